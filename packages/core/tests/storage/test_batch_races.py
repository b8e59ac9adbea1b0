"""Batches that meet: one of them goes through, the other is told, and neither deadlocks."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from lock_waits import COUNT_WAITING
from psycopg2.extensions import parse_dsn

import procrastinate_embedded
from procrastinate import App, drive, errors
from procrastinate.drive import Request
from procrastinate.model.job import NewJob
from procrastinate.storage import defer
from procrastinate.storage.schema_functions import functions_script
from procrastinate.storage.statements import Statements, load
from procrastinate_psycopg2 import Psycopg2Connector

Look = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def app(dsn: str) -> Iterator[App]:
    """A deadlock shows at once, and a wait that never ends becomes an error."""
    given = parse_dsn(dsn).get("options", "")  # on a cluster, the schema of the tables
    options = f"{given} -c deadlock_timeout=50ms -c lock_timeout=20s"
    with App(connector=Psycopg2Connector(dsn=dsn, options=options)).open() as app:
        yield app


class Deferring(threading.Thread):
    """A batch with these queueing locks, deferred in a thread of its own."""

    def __init__(self, app: App, queueing_locks: list[str]) -> None:
        super().__init__(daemon=True)
        self.app = app
        self.queueing_locks = queueing_locks
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        jobs = [NewJob("task", queueing_lock=each) for each in self.queueing_locks]
        connector: Any = self.app.connector
        try:
            with connector.session(transaction=True) as executor:
                self.outcome = drive.run(defer.defer_jobs(jobs), executor, Statements())
        except errors.ProcrastinateException as exc:
            self.outcome = type(exc)


def waiting(query: Look, count: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        ((found,),) = query(COUNT_WAITING)
        if found == count:
            return
        assert time.monotonic() < deadline, f"{found} of {count} wait"


@pytest.mark.parametrize("rows_per_statement", [5_000, 2])
def test_batches_with_the_same_queueing_locks_in_opposite_order_do_not_deadlock(
    app: App, dsn: str, query: Look, monkeypatch: pytest.MonkeyPatch, rows_per_statement: int
) -> None:
    """Both are stopped half-way by a third one, which then goes away."""
    monkeypatch.setattr(defer, "ROWS_PER_STATEMENT", rows_per_statement)
    connection = psycopg2.connect(dsn)
    app.configure_task("task", queueing_lock="m", connection=connection).defer()
    one = Deferring(app, ["z", "m", "a"])
    waiting(query, 1)
    other = Deferring(app, ["a", "m", "z"])
    waiting(query, 2)
    connection.rollback()
    one.join(20)
    other.join(20)
    connection.close()

    ids, refused = sorted([one.outcome, other.outcome], key=lambda each: isinstance(each, type))
    assert refused is errors.AlreadyEnqueued
    stored = query("select id, queueing_lock from procrastinate_jobs order by id")
    assert [row[0] for row in stored] == ids
    assert "".join(row[1] for row in stored) in ("zma", "amz")


SERVERS = procrastinate_embedded.installed_versions()
#: By the rules of a language, and by their code points, these stand in opposite orders.
LOCKS = ["á", "b", "Z"]


@pytest.fixture(params=sorted(version for version in SERVERS if version >= 14))
def sorted_by_language(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database that sorts as people do, where the server can (those of the wheel cannot)."""
    folder = Path(SERVERS[request.param])
    with procrastinate_embedded.server(
        durable=False, version=request.param, bin_dir=folder
    ) as server:
        dsn = server.create_database()
        connection = psycopg2.connect(server.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor, contextlib.suppress(psycopg2.Error):
            cursor.execute(
                "create database by_language template template0"
                " locale_provider icu icu_locale 'en-US' locale 'C'"
            )
            dsn = psycopg2.extensions.make_dsn(dsn, dbname="by_language")
        connection.close()
        with App(connector=Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        yield dsn


@pytest.mark.slow
def test_ticks_and_a_batch_with_the_same_queueing_locks_do_not_deadlock(
    sorted_by_language: str,
) -> None:
    """Both are stopped half-way by a third one, which then goes away."""
    third, look = psycopg2.connect(sorted_by_language), psycopg2.connect(sorted_by_language)
    look.autocommit = True

    def query(text: str) -> list[tuple[Any, ...]]:
        with look.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []

    query(
        "insert into procrastinate_periodic (task_name, periodic_id, done_until)"
        " select 'task', id, '2025-12-31' from unnest(array['á', 'b', 'Z']) as id"
    )
    options = "-c deadlock_timeout=50ms -c lock_timeout=20s"
    connector = Psycopg2Connector(dsn=sorted_by_language, options=options)
    with App(connector=connector).open() as app:
        app.configure_task("task", queueing_lock="b", connection=third).defer()
        ticking = Ticking(app, LOCKS)
        waiting(query, 1)
        batch = Deferring(app, LOCKS[::-1])
        waiting(query, 2)
        third.rollback()
        ticking.join(20)
        batch.join(20)
    stored = query("select queueing_lock from procrastinate_jobs")
    third.close()
    look.close()

    assert sorted(row[0] for row in stored) == sorted(LOCKS)
    assert batch.outcome is errors.AlreadyEnqueued or isinstance(batch.outcome, list)
    assert ticking.outcome == [True] * 3  # settled, with jobs of its own or the batch's


class Ticking(Deferring):
    """Ticks of as many schedules, deferred in a thread of their own."""

    def run(self) -> None:
        one = {"queue_names": "default", "task_names": "task", "args": "{}", "priorities": 0}
        query = Statements()(
            Request(
                "defer_ticks",
                **{name: [value] * len(self.queueing_locks) for name, value in one.items()},
                ticks=["2026-01-01T00:00:00+00:00"] * len(self.queueing_locks),
                locks=[None] * len(self.queueing_locks),
                periodic_ids=self.queueing_locks,
                queueing_locks=self.queueing_locks,
            )
        )
        connector: Any = self.app.connector
        try:
            with connector.session(transaction=True) as executor:
                self.outcome = [row[0] for row in executor.execute(query)]
        except errors.ProcrastinateException as exc:
            self.outcome = exc


def test_whatever_inserts_several_queueing_locks_does_so_in_one_order() -> None:
    """That of their code points, as Python sorts them, whatever the database's collation is."""
    texts = {name: statement.text for name, statement in load().items()}
    texts["functions"] = functions_script()
    orders = {
        name: re.findall(r"order by [^()]*queueing_lock[^,\n]*", text)
        for name, text in texts.items()
        if re.search(r"insert into \S+procrastinate_jobs|update \S+procrastinate_jobs", text)
    }
    ordered = {name: found for name, found in orders.items() if found}
    assert {"functions", "defer_ticks", "retry_unless_twin_waits"} <= ordered.keys()
    assert [each for found in ordered.values() for each in found if 'collate "C"' not in each] == []


@pytest.mark.parametrize(
    ("locks", "named"),
    [(["q"], "lock 'q' is"), (["q", "q", None], "lock 'q' is"), (["q", "r"], "lock is")],
)
@pytest.mark.parametrize("sqlstate", ["23505", "XX000"])
def test_a_batch_that_meets_a_twin_at_its_insert_is_told_which_if_that_is_sure(
    locks: list[str | None], named: str, sqlstate: str
) -> None:
    """The twin was committed meanwhile. A coordinator says so without the SQLSTATE of the node."""
    index = "procrastinate_jobs_queueing_lock_key"
    flow = defer.defer_jobs([NewJob("t", queueing_lock=lock) for lock in locks])
    next(flow)
    with pytest.raises(errors.AlreadyEnqueued, match=named):
        flow.throw(errors.database_error(f'violates "{index}_102013"', sqlstate=sqlstate))
