-- name: list_jobs :many
-- Returns a page of jobs between two ids, in order of id.
--
-- page: the ids of a page of each kind of job, one branch for each index that holds jobs of one
-- status and few others. The planner drops the branches of statuses that are not wanted.
with page as materialized (
    -- The ids of one page of jobs, of those for which a condition about their status holds. A null
    -- filter matches everything.
    (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and %(statuses)s::text[] is null
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold is null
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold = 'schedule'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.lock is not null
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'doing' = any(%(statuses)s::text[]) and job.status = 'doing'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'succeeded' = any(%(statuses)s::text[]) and job.status = 'succeeded'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'failed' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'cancelled' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'cancelled'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'aborted' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'aborted'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
        and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
        and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
        and (%(lock)s::text is null or job.lock = %(lock)s::text)
        and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
        and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    order by job.id
    limit %(limit)s::integer)
)
-- All that is shown of a job.
--
-- What the worker does not know of a job that it has just got. The time is the same for all, so it
-- is said once.
select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts, job.deferred_at, job.scheduled_at, job.lease,
    nullif(job.crashes, 0) as crashes, job.errors::text as errors, job.status::text as status, job.started_at,
    job.finished_at, job.worker_id
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(array(select page.id from page))
order by job.id
limit %(limit)s::integer
