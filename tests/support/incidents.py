"""Four incidents in a database, as somebody on call meets them: ``python incidents.py DSN``.

Each is made by plain SQL, beside ordinary jobs, so that it stands still while it is looked at:

A late queue: jobs of "mail" wait for an hour, because no worker serves it any more.
A stuck worker: the loop of "worker-2" has not turned for ten minutes, and its jobs run on.
A lock that nobody releases: a job that has run for five hours holds "customer-7", and 40 wait.
A wave of failures: 300 of shop.charge have failed with one error within a quarter of an hour.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import psycopg2

import procrastinate
from procrastinate.model.monitoring.minutes import BUCKETS, bucket_of

_WORKERS = """
insert into procrastinate_workers (name, host, pid, version, concurrency, busy, trusted, queues,
    task_names, started_at, last_heartbeat, blocked_since)
select 'worker-' || n, 'app-' || n, 4710 + n, '4.0.0', 5, (array[1, 2, 0])[n], true,
    case n when 2 then '{images}' else '{default}' end::text[],
    '{shop.charge,shop.refund,mail.send,images.resize,report.build}',
    now() - interval '2 days', now() + interval '1 hour',
    case n when 2 then now() - interval '10 minutes' end
from generate_series(1, 3) as n
returning id
"""
_ENDED = """
insert into procrastinate_jobs (task_name, queue_name, args, status, attempts, deferred_at,
    started_at, finished_at)
select (array['shop.refund', 'report.build', 'images.resize'])[1 + mod(n, 3)],
    (array['default', 'default', 'images'])[1 + mod(n, 3)], jsonb_build_object('n', n), 'succeeded',
    1, at - interval '3 seconds', at - interval '2 seconds', at
from (select n, now() - n * interval '450 ms' as at from generate_series(1, 3000) as n) as job
order by n desc
"""
_LATE = """
insert into procrastinate_jobs (task_name, queue_name, args, deferred_at)
select 'mail.send', 'mail', jsonb_build_object('to', n || '@example.com'),
    now() - interval '65 minutes' + n * interval '10 seconds'
from generate_series(1, 380) as n
"""
_STUCK = """
insert into procrastinate_jobs (task_name, queue_name, args, status, attempts, lease, worker_id,
    deferred_at, started_at)
select 'images.resize', 'images', jsonb_build_object('image', n), 'doing', 1, 1, %(second)s,
    now() - interval '12 minutes', now() - interval '11 minutes'
from generate_series(1, 2) as n
"""
_WAITING_FOR_IT = """
insert into procrastinate_jobs (task_name, queue_name, args, deferred_at)
select 'images.resize', 'images', jsonb_build_object('image', n),
    now() - interval '10 minutes' + n * interval '10 seconds'
from generate_series(3, 60) as n
"""
_HOLDER = """
with holder as (
    insert into procrastinate_jobs (task_name, queue_name, lock, args, status, attempts, lease,
        worker_id, deferred_at, started_at)
    values ('report.build', 'default', 'customer-7', '{"customer": 7}', 'doing', 1, 1, %(first)s,
        now() - interval '5 hours', now() - interval '5 hours')
    returning id, lock
)
insert into procrastinate_locks (lock, job_id) select lock, id from holder
"""
_LINE = """
insert into procrastinate_jobs (task_name, queue_name, lock, hold, args, deferred_at)
select 'shop.refund', 'default', 'customer-7', 'lock', jsonb_build_object('customer', 7, 'n', n),
    now() - interval '5 hours' + n * interval '5 minutes'
from generate_series(1, 40) as n
"""
_FAILED = """
insert into procrastinate_jobs (task_name, queue_name, args, status, attempts, deferred_at,
    started_at, finished_at, errors)
select 'shop.charge', 'default', jsonb_build_object('order', n), 'failed', 3,
    at - interval '1 minute', at - interval '2 seconds', at,
    jsonb_build_array(jsonb_build_object(
        'attempt', 3, 'at', to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'),
        'type', 'requests.exceptions.ConnectionError', 'traceback', %(traceback)s::text,
        'message', 'payments.example:443 refused the connection for order ' || n))
from (select n, now() - n * interval '3 seconds' as at from generate_series(1, 300) as n) as job
order by n desc
"""
_OLD_FAILURES = """
insert into procrastinate_jobs (task_name, queue_name, args, status, attempts, deferred_at,
    started_at, finished_at, errors)
select 'report.build', 'default', jsonb_build_object('report', n), 'failed', 1, at, at, at,
    %(errors)s::jsonb
from (select n, now() - n * interval '7 hours' as at from generate_series(1, 12) as n) as job
order by n desc
"""
_SCHEDULED = """
insert into procrastinate_jobs (task_name, queue_name, hold, args, deferred_at, scheduled_at)
select 'mail.send', 'mail', 'schedule', jsonb_build_object('to', n || '@example.com'), now(),
    now() + n * interval '20 minutes'
from generate_series(1, 24) as n
"""
_SCHEDULES = """
insert into procrastinate_periodic
    (task_name, periodic_id, done_until, last_tick, cron, timezone, queue_name)
select task, '', pg_catalog.date_trunc('minute', now()), now() - last, cron, zone, queue
from (values
    ('report.build', interval '7 hours', '0 5 * * *', 'Europe/Paris', 'default'),
    ('shop.reconcile', interval '3 minutes', '*/5 * * * *', 'UTC', 'default'),
    ('mail.digest', interval '19 hours', '0 7 * * 1-5', 'Europe/Paris', 'mail')
) as schedule (task, last, cron, zone, queue)
"""
_MINUTE = """
insert into procrastinate_minutes (begins_at, seconds, queue_name, task_name, succeeded, failed,
    retried, seconds_run, seconds_waited, run_buckets, waited_buckets)
select date_trunc('minute', now()) - %(ago)s * interval '1 minute', 60, queue, task,
    %(succeeded)s, %(failed)s, 2 * %(failed)s, %(succeeded)s, %(succeeded)s,
    %(run)s::bigint[], %(waited)s::bigint[]
from (values (%(queue)s, %(task)s), (%(queue)s, ''), ('', %(task)s), ('', '')) as kind(queue, task)
on conflict (begins_at, seconds, queue_name, task_name, partition) do update
set succeeded = procrastinate_minutes.succeeded + excluded.succeeded,
    failed = procrastinate_minutes.failed + excluded.failed,
    retried = procrastinate_minutes.retried + excluded.retried,
    seconds_run = procrastinate_minutes.seconds_run + excluded.seconds_run,
    seconds_waited = procrastinate_minutes.seconds_waited + excluded.seconds_waited,
    run_buckets = (select array_agg(old + new order by place)
        from unnest(procrastinate_minutes.run_buckets, excluded.run_buckets)
            with ordinality as both_of_them(old, new, place)),
    waited_buckets = (select array_agg(old + new order by place)
        from unnest(procrastinate_minutes.waited_buckets, excluded.waited_buckets)
            with ordinality as both_of_them(old, new, place))
"""
_KINDS = {"shop.charge": "default", "shop.refund": "default", "images.resize": "images"}
_TRACEBACK = (
    'Traceback (most recent call last):\n  File "shop/tasks.py", line 41, in charge\n'
    "    payments.charge(order)\nrequests.exceptions.ConnectionError: refused\n"
)


def prepare(dsn: str) -> None:
    """Make the tables in an empty database, and all four incidents."""
    with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
        app.schema_manager.apply_schema()
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            _fill(cursor)
    finally:
        connection.close()


def _fill(cursor: Any) -> None:
    cursor.execute(_WORKERS)
    first, second, _ = [row[0] for row in cursor.fetchall()]
    old = [{"attempt": 1, "at": None, "type": "ValueError", "message": "no data", "traceback": ""}]
    values = {
        "first": first,
        "second": second,
        "traceback": _TRACEBACK,
        "errors": json.dumps(old),
    }
    for statement in (
        *(_OLD_FAILURES, _HOLDER, _LINE, _LATE, _ENDED, _FAILED, _STUCK, _WAITING_FOR_IT),
        *(_SCHEDULED, _SCHEDULES),
    ):
        cursor.execute(statement, values)
    for ago in range(1, 181):
        for number, (task, queue) in enumerate(_KINDS.items()):
            cursor.execute(_MINUTE, _minute(ago, number) | {"task": task, "queue": queue})


def _minute(ago: int, number: int) -> dict[str, Any]:
    """Return what one task did in a minute: the first one fails since a quarter of an hour."""
    is_failing = number == 0 and ago <= 15
    ended = round(40 + 12 * math.sin(ago / 25 + number))
    failed = 20 if is_failing else 0
    return {
        "ago": ago,
        "succeeded": ended - failed if number != 2 or ago > 10 else 0,
        "failed": failed,
        "run": _buckets(0.2 + 0.8 * number, ended),
        "waited": _buckets(0.05 * (4 if ago < 30 else 1), ended),
    }


def _buckets(seconds: float, count: int) -> list[int]:
    """Return counts for durations around so many seconds."""
    buckets = [0] * BUCKETS
    for n in range(count):
        buckets[bucket_of(seconds * math.exp(math.sin(n)))] += 1
    return buckets


if __name__ == "__main__":
    prepare(sys.argv[1])
