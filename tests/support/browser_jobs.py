"""A database with jobs of every kind, some of them with hostile names, arguments and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2

import procrastinate

#: A browser that took this for markup would run it, or ask for the picture.
MARKUP = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'&"
#: Turns the direction of what follows, and what a terminal would obey.
INVISIBLE = "\u202egnp.exe\u2066 \x1b[31m \u0007"
HOSTILE = MARKUP + INVISIBLE
LONG = "x" * 100_000
HOSTILE_QUEUE = '"><b>queue</b>/../?a=b&c#d'
SECRET = "correct-horse-battery-staple"


@dataclass
class Prepared:
    """Where the database is, and the ids of some jobs in it, by what they are."""

    dsn: str
    worker_id: int
    ids: dict[str, int] = field(default_factory=dict)


def app_of(dsn: str) -> procrastinate.App:
    """Return an app that knows the tasks of these jobs."""
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))

    @app.task(name="mail.send")
    def send(**_: Any) -> None: ...

    @app.periodic(cron="*/5 * * * *")
    @app.task(name="report.nightly", queue="reports")
    def nightly(timestamp: int) -> None: ...

    return app


#: Jobs by name: columns of procrastinate_jobs as SQL, with values for what is not SQL.
JOBS: dict[str, dict[str, str]] = {
    "succeeded": {
        "status": "'succeeded'",
        "attempts": "1",
        "started_at": "now() - interval '3 minutes'",
        "finished_at": "now() - interval '2 minutes'",
        "result": """'{"sent": 3}'""",
    },
    "failed": {
        "status": "'failed'",
        "attempts": "3",
        "started_at": "now() - interval '3 minutes'",
        "finished_at": "now() - interval '2 minutes'",
        "errors": "%(errors)s",
    },
    "hostile": {
        "status": "'failed'",
        "attempts": "1",
        "started_at": "now() - interval '30 minutes'",
        "finished_at": "now() - interval '20 minutes'",
        "task_name": "%(hostile_task)s",
        "queue_name": "%(hostile_queue)s",
        "lock": "%(hostile)s",
        "args": "%(hostile_args)s",
        "errors": "%(hostile_errors)s",
    },
    "cancelled": {"status": "'cancelled'", "finished_at": "now() - interval '1 hour'"},
    "aborted": {
        "status": "'aborted'",
        "attempts": "1",
        "started_at": "now() - interval '2 hours'",
        "finished_at": "now() - interval '1 hour'",
    },
    "running": {
        "status": "'doing'",
        "attempts": "1",
        "started_at": "now() - interval '20 seconds'",
        "worker_id": "%(worker_id)s",
        "lock": "'customer-7'",
    },
    "behind": {"hold": "'lock'", "lock": "'customer-7'"},
    "scheduled": {"hold": "'schedule'", "scheduled_at": "now() + interval '1 hour'"},
    "ready": {},
}


def prepare(dsn: str) -> Prepared:
    """Make the tables and the jobs."""
    with app_of(dsn).open() as app:
        app.schema_manager.apply_schema()
    with connected(dsn) as cursor:
        prepared = Prepared(dsn, _add_worker(cursor))
        for name, columns in JOBS.items():
            prepared.ids[name] = add_job(cursor, columns, worker_id=prepared.worker_id)
        for number in range(120):
            add_job(cursor, JOBS["failed"] if number % 4 == 0 else JOBS["succeeded"])
        cursor.execute(
            "insert into procrastinate_locks (lock, job_id) values ('customer-7', %s)",
            (prepared.ids["running"],),
        )
        cursor.execute(_PERIODIC)
    return prepared


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """A cursor on a connection of its own, which commits each statement."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def add_job(cursor: Any, columns: dict[str, str], **values: Any) -> int:
    """Insert a job; return its id."""
    columns = {
        "task_name": "'mail.send'",
        "queue_name": "'mail'",
        "args": "%(args)s",
        "deferred_at": "now() - interval '3 hours'",
        **columns,
    }
    cursor.execute(
        f"insert into procrastinate_jobs ({', '.join(columns)}) values"
        f" ({', '.join(columns.values())}) returning id",
        _values() | values,
    )
    id: int = cursor.fetchone()[0]
    return id


def _values() -> dict[str, Any]:
    return {
        "args": json.dumps({"to": "ada@example.com", "password": SECRET}),
        "worker_id": None,
        "errors": json.dumps([_error(n, "ConnectionError", "refused") for n in (1, 2, 3)]),
        "hostile": HOSTILE[:512],
        "hostile_task": HOSTILE[:128],
        "hostile_queue": HOSTILE_QUEUE,
        "hostile_args": json.dumps({HOSTILE: HOSTILE, "long": LONG, "none": None, "deep": [[[1]]]}),
        "hostile_errors": json.dumps([_error(1, HOSTILE, HOSTILE)]),
    }


def _error(attempt: int, kind: str, message: str) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "at": f"2026-01-0{attempt}T10:00:00+00:00",
        "type": kind,
        "message": message,
        "traceback": f'Traceback (most recent call last):\n  File "a.py"\n{kind}: {message}\n',
    }


_PERIODIC = """
insert into procrastinate_periodic (
    task_name, periodic_id, done_until, last_tick, job_id, cron, timezone, queue_name
) values (
    'report.nightly', '', now(), now() - interval '4 minutes', 1, '*/5 * * * *', 'UTC', 'reports'
)
"""


def _add_worker(cursor: Any) -> int:
    cursor.execute(
        "insert into procrastinate_workers (name, host, pid, version, concurrency, busy, trusted,"
        " queues, task_names, last_heartbeat) values ('worker-1', 'app-1', 4711, '4.0.0', 10, 1,"
        " true, '{mail}', '{mail.send,report.nightly}', now() + interval '1 hour') returning id"
    )
    id: int = cursor.fetchone()[0]
    return id
