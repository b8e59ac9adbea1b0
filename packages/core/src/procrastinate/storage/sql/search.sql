-- Searching jobs with a bounded effort. Each statement walks along one index from a place on, reads
-- at most `scanned` jobs, and stops at the last one of a page: see storage/search.py. They are about
-- one partition, because an index is in order within one only.

-- fragment: seen
-- What a walk says of a job: where it is, and whether the filters let it pass.
job.id, job.queue_name, job.priority, job.lock, {>moment} as moment, ({>wanted}) as matching

-- fragment: page_of
-- walk: the next jobs, in their order, numbered. It is read only as far as the rest asks for it.
walk as materialized (
    select found.*, row_number() over () as n
    from (
        {>walk}
    ) as found
),
-- page: those of them that match, up to the limit.
page as materialized (
    select walk.id, walk.n from walk where walk.matching limit %(limit)s::integer
),
-- reached: how many were looked at: as far as the page goes if it is full, else all.
reached as materialized (
    select case
        when (select count(*) from page) = %(limit)s::integer then (select max(page.n) from page)
        else (select count(*) from walk)
    end as n
)
select
    reached.n::bigint as looked_at,
    (reached.n < %(scanned)s::integer
        and not exists (select from walk where walk.n > reached.n))::integer as at_end,
    last.queue_name, last.priority, last.lock, {>readable moment="last.moment"}, last.id,
    found.*
from reached
left join lateral (select walk.* from walk where walk.n = reached.n limit 1) as last on true
left join page on true
left join lateral (
    select {>job_columns}
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = page.id
    limit 1
) as found on true
order by page.n

-- fragment: walk_newest
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id < %(before_id)s::bigint
order by job.id desc
limit %(scanned)s::integer

-- name: search_newest :many
-- settings: in_order
-- Looks at the jobs below an id, from the newest on. Returns (how many were looked at, 1 if there
-- are no more, where the last of them is, and all that is shown of a job) for each match, or one row
-- without a job.
with {>page_of walk=walk_newest}

-- fragment: ended
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status in ('failed', 'cancelled', 'aborted')
    and {>status}
    and job.id < %(before_id)s::bigint
order by job.id desc
limit %(scanned)s::integer

-- fragment: walk_newest_ended
-- Each status is a part of the index, in order of id: the parts are merged, and none is read further
-- than that takes.
(
    {>ended status="'failed' = any(%(statuses)s::text[]) and job.status = 'failed'"}
)
union all (
    {>ended status="'cancelled' = any(%(statuses)s::text[]) and job.status = 'cancelled'"}
)
union all (
    {>ended status="'aborted' = any(%(statuses)s::text[]) and job.status = 'aborted'"}
)
order by id desc
limit %(scanned)s::integer

-- name: search_newest_ended :many
-- The same among the jobs that failed, were cancelled or aborted.
with {>page_of walk=walk_newest_ended}

-- fragment: walk_by_id
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[])
    and job.id < %(before_id)s::bigint
order by job.id desc
limit %(scanned)s::integer

-- name: search_ids :many
-- The same among the jobs with these ids.
with {>page_of walk=walk_by_id}

-- fragment: walk_running
select {>seen moment="coalesce(job.started_at, job.deferred_at)"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and (coalesce(job.started_at, job.deferred_at), job.id)
        > (%(after)s::timestamptz, %(after_id)s::bigint)
order by coalesce(job.started_at, job.deferred_at), job.id
limit %(scanned)s::integer

-- name: search_running :many
-- The same among the jobs that run, from the one that has run longest on.
with {>page_of walk=walk_running}

-- fragment: walk_scheduled
select {>seen moment="job.scheduled_at"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
    and job.scheduled_at >= %(after)s::timestamptz
    and (job.scheduled_at > %(after)s::timestamptz or job.id > %(after_id)s::bigint)
order by job.scheduled_at, job.id
limit %(scanned)s::integer

-- name: search_scheduled :many
-- The same among the scheduled jobs, from the one that is due first on.
with {>page_of walk=walk_scheduled}

-- fragment: ready
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
    and {>behind}
order by job.queue_name, job.priority desc, job.id

-- fragment: walk_ready
-- The rest of a priority, the rest of its queue, and the other queues: each is a part of the index.
(
    {>ready behind="job.queue_name = %(after_queue)s::text
    and job.priority = %(after_priority)s::integer and job.id > %(after_id)s::bigint"}
)
union all (
    {>ready behind="job.queue_name = %(after_queue)s::text
    and job.priority < %(after_priority)s::integer"}
)
union all (
    {>ready behind="%(queue_name)s::text is null and job.queue_name > %(after_queue)s::text"}
)
limit %(scanned)s::integer

-- name: search_ready :many
-- The same among the ready jobs, queue by queue, in the order in which workers take them.
with {>page_of walk=walk_ready}

-- fragment: in_line
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
    and job.hold is distinct from 'schedule' and job.hold = 'lock'
    and {>behind}
order by job.lock, job.queue_name, job.priority desc, job.id

-- fragment: walk_lines
(
    {>in_line behind="job.lock = %(after_lock)s::text and job.queue_name = %(after_queue)s::text
    and job.priority = %(after_priority)s::integer and job.id > %(after_id)s::bigint"}
)
union all (
    {>in_line behind="job.lock = %(after_lock)s::text and job.queue_name = %(after_queue)s::text
    and job.priority < %(after_priority)s::integer"}
)
union all (
    {>in_line behind="job.lock = %(after_lock)s::text and job.queue_name > %(after_queue)s::text"}
)
union all (
    {>in_line behind="%(lock)s::text is null and job.lock > %(after_lock)s::text"}
)
limit %(scanned)s::integer

-- name: search_behind_locks :many
-- The same among the jobs behind locks, line by line, in the order in which they come out.
with {>page_of walk=walk_lines}
