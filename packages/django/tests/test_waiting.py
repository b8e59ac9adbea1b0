"""Waiting for jobs beside `transaction.atomic`: what is not committed does not exist for a wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction

from procrastinate import App, JobNotFound, connectors
from procrastinate.errors import InvalidOption
from procrastinate_django import DjangoConnector, drivers

from .databases import new_alias

#: psycopg's and psycopg2's number for it.
REPEATABLE_READ = 2
PATIENCE = 20.0  # seconds


@pytest.fixture(scope="module")
def dsn(procrastinate_server: Any) -> Iterator[str]:
    with procrastinate_server.database() as dsn:
        with App(connector=connectors.get("psycopg2")(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        yield dsn


@pytest.fixture
def alias(dsn: str) -> Iterator[str]:
    alias = new_alias(dsn)
    with connections[alias].cursor() as cursor:
        cursor.execute("delete from procrastinate_jobs")
    yield alias
    connections[alias].close()


def add_tasks(app: App) -> App:
    @app.task(name="twice", result=True)
    def twice(n: int) -> int:
        return 2 * n

    return app


@pytest.fixture
def app(alias: str) -> App:
    return add_tasks(App(connector=DjangoConnector(alias=alias)))


@pytest.fixture
def elsewhere(dsn: str) -> App:
    """The same tasks in a program without Django."""
    return add_tasks(App(connector=connectors.get("aiopg")(dsn=dsn)))


@pytest.fixture
def runs_soon(elsewhere: App) -> Iterator[Callable[[], None]]:
    """Start a worker that runs what is there after a moment, in which a wait begins."""
    timers: list[threading.Timer] = []

    def soon() -> None:
        timer = threading.Timer(0.2, lambda: elsewhere.run_worker(wait=False))
        timers.append(timer)
        timer.start()

    yield soon
    for each in timers:
        each.join(PATIENCE)
        assert not each.is_alive()


def connections_of(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and backend_type = 'client backend'"
        )
        return int(cursor.fetchone()[0])


def waits(app: App) -> dict[str, Callable[..., Any]]:
    """Return all that waits for the end of a job."""
    task, manager = app.tasks["twice"], app.job_manager
    return {
        "task.wait_for": task.wait_for,
        "app.wait_for": app.wait_for,
        "wait_until_ended": manager.wait_until_ended,
        "task.wait_for_async": async_to_sync(task.wait_for_async),
        "app.wait_for_async": async_to_sync(app.wait_for_async),
        "wait_until_ended_async": async_to_sync(manager.wait_until_ended_async),
    }


WAITS = list(waits(add_tasks(App(connector=connectors.get("psycopg2")()))))


def test_a_call_in_atomic_is_refused_before_it_defers(app: App, alias: str) -> None:
    task = app.tasks["twice"]
    with transaction.atomic(using=alias):
        for call in (task.call, task.configure(priority=1).call, async_to_sync(task.call_async)):
            with pytest.raises(InvalidOption, match="not committed"):
                call(n=1, timeout=1)
        assert app.job_manager.list_jobs() == []
    assert app.job_manager.list_jobs() == []


def test_a_call_without_autocommit_is_refused(dsn: str, alias: str) -> None:
    manual = new_alias(dsn, AUTOCOMMIT=False)
    app = add_tasks(App(connector=DjangoConnector(alias=manual)))
    try:
        with pytest.raises(InvalidOption, match="not committed"):
            app.tasks["twice"].call(n=1, timeout=1)
    finally:
        connections[manual].close()


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_without_autocommit_sees_what_is_committed(
    dsn: str, alias: str, elsewhere: App, name: str
) -> None:
    manual = new_alias(dsn, AUTOCOMMIT=False)
    app = add_tasks(App(connector=DjangoConnector(alias=manual)))
    with elsewhere.open():
        committed = elsewhere.tasks["twice"].defer(n=1)
    try:
        job_id = app.tasks["twice"].defer(n=2)
        with pytest.raises(JobNotFound):
            waits(app)[name](job_id, timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            waits(app)[name](committed, timeout=0.1)
    finally:
        connections[manual].close()


def test_a_wait_takes_no_second_connection_of_a_pool(
    dsn: str, alias: str, elsewhere: App, runs_soon: Callable[[], None]
) -> None:
    """If all threads hold one and wait for another, none would get it."""
    pooled = new_alias(dsn)
    if drivers.uses_psycopg3():  # Django has no pools for psycopg2
        pool = {"min_size": 1, "max_size": 1, "timeout": 1}
        connections.settings[pooled]["OPTIONS"]["pool"] = pool
    app = add_tasks(App(connector=DjangoConnector(alias=pooled)))
    with elsewhere.open():
        job_id = elsewhere.tasks["twice"].defer(n=3)
    try:
        with transaction.atomic(using=pooled):
            assert len(app.job_manager.list_jobs()) == 1
            runs_soon()
            assert app.wait_for(job_id, timeout=PATIENCE) == 6
    finally:
        connections[pooled].close()
        connections[pooled].close_pool()


def test_a_call_outside_of_atomic_gives_the_result(app: App, runs_soon: Callable[[], None]) -> None:
    runs_soon()
    assert app.tasks["twice"].call(n=4, timeout=PATIENCE) == 8


def test_a_call_in_on_commit_gives_the_result(
    app: App, alias: str, runs_soon: Callable[[], None]
) -> None:
    results: list[int] = []

    def call() -> None:
        runs_soon()
        results.append(app.tasks["twice"].call(n=5, timeout=PATIENCE))

    with transaction.atomic(using=alias):
        transaction.on_commit(call, using=alias)
    assert results == [10]


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("timeout", [0, PATIENCE])
def test_a_wait_in_atomic_does_not_find_its_own_job(
    app: App, alias: str, name: str, timeout: float
) -> None:
    """Otherwise it would last for ever, with the transaction open."""
    task = app.tasks["twice"]
    with transaction.atomic(using=alias):
        job_id = task.defer(n=1)
        with pytest.raises(JobNotFound, match="Commit first"):
            waits(app)[name](job_id, timeout=timeout)
        task.defer(n=2)
    assert [job.task_kwargs for job in app.job_manager.list_jobs()] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "name, isolation", [("task.wait_for", None), *((name, REPEATABLE_READ) for name in WAITS)]
)
def test_a_wait_in_atomic_sees_the_end_of_a_job_that_is_committed(
    dsn: str,
    alias: str,
    elsewhere: App,
    runs_soon: Callable[[], None],
    name: str,
    isolation: int | None,
) -> None:
    """Also if the transaction's own snapshot is older than the job."""
    settings = new_alias(dsn)
    if isolation is not None:
        connections.settings[settings]["OPTIONS"]["isolation_level"] = isolation
    app = add_tasks(App(connector=DjangoConnector(alias=settings)))
    try:
        with transaction.atomic(using=settings):
            assert app.job_manager.list_jobs() == []
            with elsewhere.open():
                job_id = elsewhere.tasks["twice"].defer(n=3)
            runs_soon()
            ended = waits(app)[name](job_id, timeout=PATIENCE)
            assert getattr(ended, "result", ended) == 6
            app.tasks["twice"].defer(n=5)
    finally:
        connections[settings].close()


def test_a_wait_in_atomic_leaves_no_connection(app: App, alias: str, elsewhere: App) -> None:
    with elsewhere.open():
        job_id = elsewhere.tasks["twice"].defer(n=3)
    before = connections_of(alias)
    with transaction.atomic(using=alias):
        for wait in waits(app).values():
            with pytest.raises(TimeoutError):
                wait(job_id, timeout=0.1)
    deadline = time.monotonic() + PATIENCE
    while connections_of(alias) > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_broken_transaction_does_not_keep_a_wait_from_looking(
    app: App, alias: str, elsewhere: App
) -> None:
    with elsewhere.open():
        job_id = elsewhere.tasks["twice"].defer(n=3)
    with transaction.atomic(using=alias):
        transaction.set_rollback(True, using=alias)
        with pytest.raises(TimeoutError):
            app.wait_for(job_id, timeout=0)
