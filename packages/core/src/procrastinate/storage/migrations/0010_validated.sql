-- Validates the check of migration 9, while everybody works on.
-- compatible-from: 4
-- outside of a transaction: each statement runs by itself, and may run again
--
-- Locks: share update exclusive on jobs, which holds up VACUUM and other migrations, and neither inserts, claims
-- nor endings. Reads all jobs once.

alter table {schema}.procrastinate_jobs
    validate constraint procrastinate_jobs_row_check;
