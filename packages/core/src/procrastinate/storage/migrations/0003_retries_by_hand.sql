-- How many attempts a retry by hand has forgiven, and an index on jobs that ended badly.
-- compatible-from: 1

alter table {schema}.procrastinate_jobs add column attempts_forgiven integer;

create index procrastinate_jobs_ended_idx on {schema}.procrastinate_jobs
    (partition, status, id)
    where status in ('failed', 'cancelled', 'aborted');
