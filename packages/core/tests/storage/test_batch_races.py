"""Batches that meet: one of them goes through, the other is told, and neither deadlocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from procrastinate import App, drive, errors
from procrastinate.model.job import NewJob
from procrastinate.storage import defer
from procrastinate.storage.statements import Statements
from procrastinate_psycopg2 import Psycopg2Connector

Look = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def app(dsn: str) -> Iterator[App]:
    """A deadlock shows at once, and a wait that never ends becomes an error."""
    options = "-c deadlock_timeout=50ms -c lock_timeout=20s"
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
                self.outcome = drive.run(defer.defer_jobs(Statements(), jobs), executor)
        except errors.ProcrastinateException as exc:
            self.outcome = type(exc)


def waiting(query: Look, count: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        ((found,),) = query(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
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
