-- name: defer_alike :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- Inserts jobs that differ in their arguments alone, one for each element of a JSON array, and wakes
-- the workers once. Returns the ids as the text of one array, or null if there are none. (See
-- storage/functions.sql. As text, because a caller's connection may read the numbers in an array as
-- something else.)
select procrastinate_defer_alike(
    %(all_args)s::jsonb, %(common)s::jsonb, 'procrastinate_jobs'::regclass
)::text
