-- name: draw_job_ids :many
-- So many new ids, for a batch that takes several statements.
select nextval('procrastinate_jobs_id_seq')
from generate_series(1, %(count)s::integer)
