-- name: enter_again :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Enters a worker under the id that it had, because its row was removed. (An INSERT in a CTE of the
-- heartbeat is what a distributed database cannot run on one node.)
insert into procrastinate_workers as worker (id, name)
values (%(worker_id)s::bigint, %(name)s::text)
on conflict (id, partition) do update set last_heartbeat = excluded.last_heartbeat
