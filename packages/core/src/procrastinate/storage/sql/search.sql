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
    (select count(*) from page), found.*
from reached
left join lateral (select walk.* from walk where walk.n = reached.n limit 1) as last on true
left join (
    select page.* from page order by page.n limit %(shown)s::integer
) as page on true
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
-- are no more, where the last of them is, how many of them match, and all that is shown of a job) for
-- each match up to `shown`, or one row without a job.
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
-- The same as search_newest, among the jobs that failed, were cancelled or aborted.
with {>page_of walk=walk_newest_ended}

-- fragment: walk_by_id
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[])
    and job.id < %(before_id)s::bigint
order by job.id desc
limit %(scanned)s::integer

-- name: search_ids :many
-- The same as search_newest, among the jobs with these ids.
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
-- The same as search_newest, among the jobs that run, from the one that has run longest on.
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
-- The same as search_newest, among the scheduled jobs, from the one that is due first on.
with {>page_of walk=walk_scheduled}

-- fragment: ready_behind
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
    and {>behind}
order by job.queue_name, job.priority desc, job.id
limit %(scanned)s::integer

-- fragment: walk_ready
-- The rest of a priority, the rest of its queue, and the other queues: each is a part of the index.
-- (Without a limit of their own, the planner sorted all of a part.)
(
    {>ready_behind behind="job.queue_name = %(after_queue)s::text
    and job.priority = %(after_priority)s::integer and job.id > %(after_id)s::bigint"}
)
union all (
    {>ready_behind behind="job.queue_name = %(after_queue)s::text
    and job.priority < %(after_priority)s::integer"}
)
union all (
    {>ready_behind behind="%(queue_name)s::text is null and job.queue_name > %(after_queue)s::text"}
)
limit %(scanned)s::integer

-- name: search_ready :many
-- The same as search_newest, among the ready jobs, queue by queue, in the order in which workers take them.
with {>page_of walk=walk_ready}

-- fragment: in_line
select {>seen moment="null::timestamptz"}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
    and job.hold is distinct from 'schedule' and job.hold = 'lock'
    and {>behind}
order by job.lock, job.queue_name, job.priority desc, job.id
limit %(scanned)s::integer

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
-- The same as search_newest, among the jobs behind locks, line by line, in the order in which they come out.
with {>page_of walk=walk_lines}

-- fragment: ready_before
-- (In order, so that the planner takes the index.)
select job.id
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
    and job.queue_name = %(queue_name)s::text and {>before}
order by job.priority desc, job.id
limit %(counted)s::integer

-- fragment: in_line_before
select job.id
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.lock is not null
    and job.status = 'todo' and job.hold is distinct from 'schedule' and job.hold = 'lock'
    and job.lock = %(lock)s::text and job.queue_name = %(queue_name)s::text and {>before}
order by job.priority desc, job.id
limit %(counted)s::integer

-- fragment: count_before
-- How many jobs come before another one, by its priority or by its id; more than `counted` are not
-- counted.
(
    select count(*)
    from (
        ({>of before="job.priority > %(priority)s::integer"})
        union all
        ({>of before="job.priority = %(priority)s::integer and job.id < %(id)s::bigint"})
        limit %(counted)s::integer
    ) as job
)

-- name: place_of_job :many
-- Returns, of a job whose queue, priority and lock are known: (the time, whether its abortion was
-- asked for, since when no worker knows its task, how many ready jobs come before it, who holds its
-- lock, the first ready job with its lock, how many jobs are before it in its line).
with held as materialized (
    select held.job_id
    from {schema}.procrastinate_locks as held
    where held.lock = %(lock)s::text and held.partition = %(partition)s::smallint
)
select
    statement_timestamp(),
    job.abort_requested::integer,
    {>readable moment="job.unknown_since"},
    {>count_before of=ready_before},
    held.job_id,
    (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.lock is not null
            and job.status = 'todo' and job.hold is distinct from 'schedule'
            and job.hold is null and job.lock = %(lock)s::text and job.id <> %(id)s::bigint
        order by job.queue_name, job.priority desc, job.id
        limit 1
    ),
    {>count_before of=in_line_before}
from {schema}.procrastinate_jobs as job
left join held on true
where job.partition = %(partition)s::smallint and job.id = %(id)s::bigint

-- name: list_failures :many
-- settings: in_order
-- Looks at the jobs that failed, from the newest on. Returns (how many were looked at, task, type
-- and beginning of the last error, how many, when the first and the last ended, the last id) for
-- each kind of failure, or one row of nulls. Errors that differ only in their digits are counted
-- together. The caller joins groups whose normalised texts are the same.
with walk as materialized (
    select
        job.id, job.task_name, job.finished_at, ({>wanted}) as matching,
        coalesce(last.entry ->> 'type'::text, '') as type,
        left(coalesce(last.entry ->> 'message'::text, ''), 200) as message
    from {schema}.procrastinate_jobs as job
    cross join lateral (select job.errors -> -1 as entry offset 0) as last
    where job.partition = %(partition)s::smallint
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
    order by job.id desc
    limit %(scanned)s::integer
),
alike as materialized (
    select
        walk.task_name, walk.type, min(walk.message) as message, count(*) as jobs,
        min(walk.finished_at) as first_at, max(walk.finished_at) as last_at, max(walk.id) as last_id
    from walk
    where walk.matching
    group by walk.task_name, walk.type, translate(walk.message, '0123456789', '0000000000')
)
select
    (select count(*) from walk), alike.task_name, alike.type, alike.message, alike.jobs,
    {>readable moment="alike.first_at"}, {>readable moment="alike.last_at"}, alike.last_id
from (select 1) as one
left join alike on true
order by alike.last_id desc

-- name: glance_at_queues :many
-- settings: in_order
-- Returns (what, queue, how many, since when the oldest of them is ready) for what there is to see
-- of queues: 'ready', 'scheduled', 'parked', 'running', 'failed'. It counts at most `share` ready jobs of
-- each of these queues, and `each` jobs of each other sort (of the failed ones the newest). A row without
-- a queue says how many of a sort were counted.
--
-- ready: how many jobs of each queue are ready, as far as they are counted.
with ready as materialized (
    select queue.name, counted.jobs, least(counted.since, last.since) as since
    from pg_catalog.unnest(%(queue_names)s::text[]) as queue(name)
    cross join lateral (
        select count(*) as jobs, min(greatest(job.deferred_at, job.scheduled_at)) as since
        from (
            select job.deferred_at, job.scheduled_at
            from {schema}.procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.status = 'todo'
                and job.hold is null and job.queue_name = queue.name
            order by job.priority desc, job.id
            limit %(share)s::integer
        ) as job
    ) as counted
    -- The first of the lowest priority has often waited longest.
    left join lateral (
        select greatest(job.deferred_at, job.scheduled_at) as since
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo'
            and job.hold is null and job.queue_name = queue.name
            and job.priority = (
                select job.priority
                from {schema}.procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.status = 'todo'
                    and job.hold is null and job.queue_name = queue.name
                order by job.priority, job.id desc
                limit 1
            )
        order by job.id
        limit 1
    ) as last on true
),
scheduled as materialized (
    select job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
    order by job.scheduled_at
    limit %(each)s::integer
),
parked as materialized (
    select job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
    order by job.lock, job.queue_name, job.priority desc, job.id
    limit %(each)s::integer
),
running as materialized (
    select job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'doing'
    order by job.worker_id
    limit %(each)s::integer
),
failed as materialized (
    select job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
    order by job.id desc
    limit %(each)s::integer
)
select seen.what, seen.name, seen.jobs, {>readable moment="seen.since"}
from (
    select 'ready' as what, ready.name, ready.jobs, ready.since from ready
    {>by_queue of="scheduled"}
    {>by_queue of="parked"}
    {>by_queue of="running"}
    {>by_queue of="failed"}
) as seen
order by seen.what collate "C", seen.name collate "C"

-- fragment: by_queue
union all
select '{>of}', {>of}.queue_name, count(*), null::timestamptz
from {>of}
group by grouping sets ({>of}.queue_name, ())
