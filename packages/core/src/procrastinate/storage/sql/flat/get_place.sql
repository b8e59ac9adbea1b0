-- name: get_place :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- What tells the tables that a connection leads to from others: the table, the database, and the server's
-- start, as another server may have the same names and numbers. The first is 0 without the tables, and null on
-- a cluster, each node of which is another place. Needs no right on the tables, and never fails: the caller's
-- transaction goes on. (SEEN compares them, in the statements that defer.)
select
    case
        when to_regclass('pg_catalog.pg_dist_node') is null
            then coalesce(to_regclass('procrastinate_jobs')::oid::bigint, 0)
    end,
    current_database()::text,
    pg_postmaster_start_time()
