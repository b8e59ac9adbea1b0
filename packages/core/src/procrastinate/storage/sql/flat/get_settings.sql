-- name: get_settings :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- Returns (partitions, boundary_id, 1 if the database is the coordinator or a node of a cluster, else 0).
select
    partitions, boundary_id,
    case when to_regclass('pg_catalog.pg_dist_node') is null then 0 else 1 end
from procrastinate_settings
