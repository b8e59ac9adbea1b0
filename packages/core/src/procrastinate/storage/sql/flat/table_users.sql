-- name: table_users :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- The sessions that have our tables in use: (pid, seconds since their transaction began), the oldest first.
select held.pid, extract(epoch from clock_timestamp() - min(session.xact_start))::float8
from pg_catalog.pg_locks as held
join pg_catalog.pg_stat_activity as session on session.pid = held.pid
where held.locktype = 'relation' and held.granted and held.pid <> pg_backend_pid()
    and held.relation = any(array(
        select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
    ))
group by held.pid
order by 2 desc nulls last
limit 5
