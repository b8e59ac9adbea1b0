-- name: get_settings :one
-- settings: only, jit, isolation
select partitions, boundary_id
from procrastinate_settings
