"""A database after months of use: millions of ended jobs, and what waits and runs now.

Of 5,000,000 jobs at full size 3,900,000 have succeeded, 1,000,000 have failed, a few were cancelled
or aborted, and 70,000 wait: most of them in one lock's line, others for their time or for a worker.
The jobs end over `DAYS`. Tasks, queues and errors come in very different numbers, as they do in
life: one queue has most jobs, and one task failed only once, at the very beginning.

    python -m benchmarks.history postgresql://localhost/empty --jobs 5000000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import click

import procrastinate
from benchmarks.databases import Database, connected

DAYS = 30
SLICE = 250_000  # jobs that one statement inserts
#: Of a million jobs, how many wait for a lock, for their time, for a worker; and how many run.
IN_LINE, SCHEDULED, READY, RUNNING = 10_000, 2_000, 2_000, 20
LOCK = "tenant-1"  # the one with the long line
#: Names that few jobs have. The first failed job is the only one of its task and error.
RARE_TASK, RARE_ERROR, NEVER = "billing.close_year", "LedgerMismatch", "no such text anywhere"

#: n counts the ended jobs from 0, the oldest. Of 493 of them 100 failed, n = 0 being the first.
_ENDED = """
insert into procrastinate_jobs (
    task_name, queue_name, lock, args, status, attempts, lease, worker_id, deferred_at, started_at,
    finished_at, errors
)
select
    case when n = 0 then %(rare_task)s
        else (array['mail', 'image', 'report', 'sync', 'billing'])[1 + n %% 7 %% 5]
            || '.task_' || (n %% 97 * n %% 40)::text end,
    case when n %% 13 < 10 then 'default' else 'queue-' || (n %% 19)::text end,
    case when n %% 53 = 0 then 'tenant-' || (n %% 2000)::text end,
    jsonb_build_object('customer', n %% 100000, 'path', '/some/path/' || n::text),
    status::procrastinate_job_status,
    case when status = 'failed' then 3 else 1 end,
    case when status = 'failed' then 3 else 1 end,
    n %% 8 + 1,
    at - interval '9 seconds', at - interval '1 second', at,
    case when status = 'failed' then (
        select jsonb_agg(jsonb_build_object(
            'attempt', attempt,
            'at', to_char(
                at - (3 - attempt) * interval '2 seconds', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
            ),
            'type', kind,
            'message', case n %% 4
                when 0 then 'connection to 10.0.' || (n %% 255)::text || '.7 refused'
                when 1 then 'customer ' || n::text || ' has no address'
                when 2 then 'timed out after ' || (n %% 60)::text || ' seconds'
                else 'unexpected answer' end,
            'traceback', traceback
        ))
        from generate_series(1, 3) as attempt
    ) end
from (
    select
        n,
        now() - (%(ended)s - n) * (%(days)s * interval '1 day' / %(ended)s) as at,
        case when n * 100 %% 493 < 100 then 'failed'
            when n %% 500 = 1 then 'cancelled'
            when n %% 500 = 251 then 'aborted'
            else 'succeeded' end as status,
        case when n = 0 then %(rare_error)s
            else (array['ConnectionError', 'ValueError', 'TimeoutError', 'KeyError',
                'requests.exceptions.HTTPError', 'app.errors.Refused'])[1 + n %% 11 %% 6]
        end as kind,
        'Traceback (most recent call last):' || repeat(
            E'\\n  File "/srv/app/tasks.py", line ' || (n %% 900)::text
                || E', in run\\n    call()', 5
        ) as traceback
    from generate_series(%(first)s, %(last)s) as n
) as job
"""

_NOW = """
insert into procrastinate_jobs (
    task_name, queue_name, lock, args, status, hold, attempts, lease, worker_id, deferred_at,
    scheduled_at, started_at
)
select
    'sync.task_' || (n %% 40)::text,
    case when kind = 'in line' or n %% 13 < 10 then 'default' else 'queue-' || (n %% 19)::text end,
    case when kind = 'in line' then %(lock)s end,
    jsonb_build_object('customer', n),
    case when kind = 'running' then 'doing' else 'todo' end::procrastinate_job_status,
    case kind when 'in line' then 'lock' when 'scheduled' then 'schedule' end::procrastinate_hold,
    (kind = 'running')::integer, (kind = 'running')::integer,
    case when kind = 'running' then n %% 8 + 1 end,
    now() - interval '1 minute' - n * interval '1 millisecond',
    case when kind = 'scheduled' then now() + interval '1 hour' + n * interval '1 second' end,
    case when kind = 'running' then now() - interval '30 seconds' end
from generate_series(1, %(count)s) as n, (select %(kind)s::text as kind) as chosen
"""

_WORKERS = """
insert into procrastinate_workers (
    id, name, started_at, last_heartbeat, host, concurrency, pid, version, busy, trusted, task_names
)
select nextval('procrastinate_workers_id_seq'), 'worker-' || n::text, now() - interval '1 day',
    now() + interval '1 day', 'app-' || n::text, 10, 1000 + n, '4.1', 3, true, array['sync.task_1']
from generate_series(1, 8) as n
"""


@dataclass(frozen=True, slots=True)
class History:
    """How many jobs of each kind there are."""

    ended: int
    in_line: int
    scheduled: int
    ready: int
    running: int


def history_of(jobs: int) -> History:
    """Return the parts of a history with this number of jobs in all."""

    def part(of_a_million: int) -> int:
        return max(1, jobs * of_a_million // 1_000_000)

    in_line, scheduled, ready, running = map(part, (IN_LINE, SCHEDULED, READY, RUNNING))
    ended = max(10, jobs - in_line - scheduled - ready - running)
    return History(ended, in_line, scheduled, ready, running)


def write(database: Database, history: History) -> Iterator[int]:
    """Insert a history; yield after each slice how many of the ended jobs are there.

    The table is neither vacuumed nor analyzed, and stays so until its setting is reset.
    """
    database.run("alter table procrastinate_jobs set (autovacuum_enabled = false)")
    database.run("set synchronous_commit = off")
    for first in range(0, history.ended, SLICE):
        last = min(first + SLICE, history.ended) - 1
        database.run_named(
            _ENDED,
            first=first,
            last=last,
            ended=history.ended,
            days=DAYS,
            rare_task=RARE_TASK,
            rare_error=RARE_ERROR,
        )
        yield last + 1
    database.run(_WORKERS)
    for kind, count in (
        ("in line", history.in_line),
        ("scheduled", history.scheduled),
        ("ready", history.ready),
        ("running", history.running),
    ):
        database.run_named(_NOW, kind=kind, count=count, lock=LOCK)
    database.run_named(
        "insert into procrastinate_locks (lock, job_id) select %(lock)s, min(id)"
        " from procrastinate_jobs where status = 'doing'",
        lock=LOCK,
    )


def main() -> None:
    """Write a history into an empty database, and analyze it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("dsn", help="leads to a database without procrastinate's tables")
    parser.add_argument("--jobs", type=int, default=5_000_000)
    given = parser.parse_args()
    connector = procrastinate.Psycopg2Connector(dsn=given.dsn)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
    with connected(given.dsn) as cursor:
        database = Database(given.dsn, cursor)
        for written in write(database, history_of(given.jobs)):
            click.echo(f"{written:,} ended jobs")
        database.run("alter table procrastinate_jobs reset (autovacuum_enabled)")
        database.run("vacuum (analyze) procrastinate_jobs")


if __name__ == "__main__":
    main()
