"""Jobs in an application's own transaction: every connection, with every connector of the app.

A connection is of any class that an installed package binds, and the app has any installed
connector: neither has to do with the other. What is there afterwards is compared row by row, by a
connection of the tests' own.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from callers import IN_AUTOCOMMIT, KINDS, OF_OTHER_TASTES, Caller, Kind

import procrastinate
from procrastinate import (
    AlreadyEnqueued,
    App,
    ConnectorException,
    InvalidOption,
    binders,
    connectors,
)
from procrastinate_connector_testkit.databases import dsn_for, new_name, url_for

#: Django's connection is tested with Django.
ELSEWHERE = ("django.",)


def installed(kinds: Mapping[str, Kind]) -> list[str]:
    return [name for name, kind in kinds.items() if kind.binder in binders.available()]


INSTALLED = installed(KINDS)
CONNECTORS = sorted(set(connectors.available()) - {"memory", "django"})

Row = tuple[str, str, str, int]  # task, queue, status, and the argument n


@pytest.fixture(scope="module")
def database(procrastinate_server: Any) -> Iterator[str]:
    """The connection string of a database with the tables, and with one of the application's."""
    name = new_name()
    with closing(psycopg2.connect(procrastinate_server.dsn)) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute(f"create database {name}")
        dsn = dsn_for(procrastinate_server.dsn, name)
        with App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        yield dsn
        with admin.cursor() as cursor:
            cursor.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def observer(database: str) -> Iterator[Observer]:
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        observer = Observer(connection)
        observer.run("create table theirs (x integer)")
        yield observer


class Observer:
    """What others see: a connection that is in no transaction."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        self.run("delete from procrastinate_jobs; delete from procrastinate_locks")
        self.run("delete from theirs")

    def jobs(self) -> list[Row]:
        rows: Any = self.run(
            "select task_name, queue_name, status::text, (args ->> 'n')::integer"
            " from procrastinate_jobs order by id"
        )
        return list(rows)

    def theirs(self) -> list[int]:
        return [row[0] for row in self.run("select x from theirs order by x")]


@dataclass
class Case:
    """An app, a connection and how calls are made."""

    app: App
    caller: Caller
    observer: Observer
    is_async: bool

    async def call(self, of: Any, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of a pair: the synchronous or the asynchronous half."""
        if self.is_async:
            return await getattr(of, f"{method}_async")(*args, **options)
        return getattr(of, method)(*args, **options)

    async def manage(self, method: str, *args: Any, **options: Any) -> Any:
        manager = self.app.job_manager
        return await self.call(manager, method, *args, connection=self.caller.connection, **options)

    def configured(self, task: str = "task", **options: Any) -> Any:
        return self.app.configure_task(task, connection=self.caller.connection, **options)

    async def defer(self, n: int, **options: Any) -> int:
        job_id: int = await self.call(self.configured(**options), "defer", n=n)
        return job_id

    async def own_row(self, x: int) -> None:
        await self.caller.sql(f"insert into theirs values ({x})")

    def committed(self, n: int, queueing_lock: str | None = None) -> int:
        """Defer a job from outside, and commit it."""
        sql = "select procrastinate_defer_job('task', %s, queueing_lock => %s)"
        ((job_id,),) = self.observer.run(sql, f'{{"n": {n}}}', queueing_lock)
        return int(job_id)


def todo(*numbers: int, queue: str = "default") -> list[Row]:
    return [("task", queue, "todo", n) for n in numbers]


# --- Scenarios. Each begins with empty tables, and ends what it began. ---


async def commit(case: Case) -> None:
    await case.own_row(1)
    await case.defer(1)
    await case.defer(2, queue="other")
    assert (case.observer.jobs(), case.observer.theirs()) == ([], [])
    await case.caller.commit()
    assert case.observer.jobs() == [*todo(1), *todo(2, queue="other")]
    assert case.observer.theirs() == [1]


async def rollback(case: Case) -> None:
    await case.own_row(1)
    await case.defer(1)
    await case.caller.rollback()
    assert (case.observer.jobs(), case.observer.theirs()) == ([], [])
    await case.defer(2)
    await case.own_row(2)
    await case.caller.commit()
    assert (case.observer.jobs(), case.observer.theirs()) == (todo(2), [2])


async def savepoint_rolled_back(case: Case) -> None:
    await case.defer(1)
    await case.caller.sql("savepoint theirs")
    await case.own_row(1)
    await case.defer(2)
    await case.caller.sql("rollback to savepoint theirs")
    await case.defer(3)
    await case.caller.commit()
    assert (case.observer.jobs(), case.observer.theirs()) == (todo(1, 3), [])


async def failed_transaction(case: Case) -> None:
    await case.defer(1)
    with pytest.raises(Exception, match="zero"):
        await case.caller.sql("select 1 / 0")
    with pytest.raises(ConnectorException) as caught:
        await case.defer(2)
    assert caught.value.sqlstate == "25P02"
    await case.caller.rollback()
    assert case.observer.jobs() == []
    await case.defer(3)
    await case.caller.commit()
    assert case.observer.jobs() == todo(3)


async def already_enqueued(case: Case) -> None:
    case.committed(1, queueing_lock="q")
    await case.own_row(1)
    with pytest.raises(AlreadyEnqueued):
        await case.defer(2, queueing_lock="q")
    with pytest.raises(AlreadyEnqueued):
        await case.call(case.configured(queueing_lock="q"), "batch_defer", {"n": 3})
    await case.defer(4)
    await case.caller.commit()
    assert (case.observer.jobs(), case.observer.theirs()) == (todo(1, 4), [1])


async def batch(case: Case) -> None:
    numbers = range(5_000)
    arguments = [{"n": n} for n in numbers]
    await case.call(case.configured(), "batch_defer", *arguments[:10])
    await case.caller.rollback()
    ids = await case.call(case.configured(), "batch_defer", *arguments)
    assert ids == sorted(set(ids))
    await case.own_row(1)
    assert case.observer.jobs() == []
    await case.caller.commit()
    assert (case.observer.jobs(), case.observer.theirs()) == (todo(*numbers), [1])


async def cancel(case: Case) -> None:
    first, second = case.committed(1), case.committed(2)
    assert await case.manage("cancel_job_by_id", first)
    await case.caller.rollback()
    assert case.observer.jobs() == todo(1, 2)
    assert await case.manage("cancel_job_by_id", first)
    assert await case.manage("cancel_jobs", id=[first, second]) == [second]
    assert not await case.manage("cancel_job_by_id", first)
    assert case.observer.jobs() == todo(1, 2)
    await case.caller.commit()
    assert [row[2] for row in case.observer.jobs()] == ["cancelled", "cancelled"]


async def retry(case: Case) -> None:
    first, second = case.committed(1, "q"), case.committed(2)
    assert await case.manage("cancel_jobs", id=[first, second]) == [first, second]
    await case.caller.commit()
    assert await case.manage("retry_job_by_id", first, queue="other")
    await case.caller.rollback()
    assert [row[2] for row in case.observer.jobs()] == ["cancelled", "cancelled"]
    case.committed(3, "q")
    with pytest.raises(AlreadyEnqueued):
        await case.manage("retry_job_by_id", first)
    assert await case.manage("retry_jobs", id=[first, second]) == [second]
    await case.caller.commit()
    assert case.observer.jobs() == [("task", "default", "cancelled", 1), *todo(2, 3)]


async def reading(case: Case) -> None:
    case.committed(1)
    await case.defer(2)
    jobs = await case.manage("list_jobs", task="task", status="todo")
    assert [job.task_kwargs for job in jobs] == [{"n": 1}, {"n": 2}]
    assert await case.manage("get_job_status", jobs[1].id) == "todo"
    (counts,) = await case.manage("list_queues")
    assert (counts.name, counts.todo) == ("default", 2)
    await case.caller.rollback()
    assert [job.id for job in await case.manage("list_jobs")] == [jobs[0].id]
    await case.caller.rollback()
    assert case.observer.jobs() == todo(1)


SCENARIOS: dict[str, Callable[[Case], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        *(commit, rollback, savepoint_rolled_back, failed_transaction, already_enqueued),
        *(batch, cancel, retry, reading),
    )
}


# --- The matrix ---


@asynccontextmanager
async def case_of(
    database: str,
    observer: Observer,
    connection: str,
    connector: str,
    kinds: Mapping[str, Kind] = KINDS,
    *,
    is_async: bool | None = None,
) -> AsyncIterator[Case]:
    """A connection, and an app that is not open; calls are of the connection's kind by default."""
    kind = kinds[connection]
    app = App(connector=connectors.get(connector).from_url(url_for(database, connector)))
    observer.empty()
    async with kind.open(database) as caller:
        yield Case(app, caller, observer, kind.is_async if is_async is None else is_async)


def cells(*others: Iterable[str]) -> list[Any]:
    """Every connection with every connector, and with each of the others.

    All are tried on one Python. On the others it is one connector, because it only gives the schema
    and the JSON functions.
    """
    return [
        pytest.param(
            *cell, marks=[] if cell[1] == CONNECTORS[0] else [pytest.mark.slow], id=", ".join(cell)
        )
        for cell in itertools.product(INSTALLED, CONNECTORS, *others)
    ]


@pytest.mark.parametrize("connection, connector, scenario", cells(SCENARIOS))
async def test_a_transaction_decides_about_jobs(
    database: str, observer: Observer, connection: str, connector: str, scenario: str
) -> None:
    async with case_of(database, observer, connection, connector) as case:
        await SCENARIOS[scenario](case)


@pytest.mark.parametrize("connection, connector", cells())
async def test_it_does_on_an_app_that_is_open(
    database: str, observer: Observer, connection: str, connector: str
) -> None:
    """One that has seen its own tables; asynchronously also with a synchronous connection."""
    async with (
        case_of(database, observer, connection, connector, is_async=True) as case,
        case.app.open_async(),
    ):
        await case.app.configure_task("task").defer_async(n=0)
        for name, scenario in SCENARIOS.items():
            if name != "batch":
                observer.empty()
                await scenario(case)


def cells_of_plain_calls() -> list[Any]:
    return [cell for cell in cells() if not KINDS[cell.values[0]].is_async]


@pytest.mark.parametrize("connection, connector", cells_of_plain_calls())
async def test_it_does_in_plain_calls_on_an_app_that_is_open(
    database: str, observer: Observer, connection: str, connector: str
) -> None:
    async with case_of(database, observer, connection, connector) as case:
        with case.app.open():
            case.app.configure_task("task").defer(n=0)
            for name, scenario in SCENARIOS.items():
                if name != "batch":
                    observer.empty()
                    await scenario(case)


@pytest.mark.parametrize("scenario", ["commit", "already_enqueued", "batch", "retry", "reading"])
@pytest.mark.parametrize("connection", installed(OF_OTHER_TASTES))
async def test_it_does_whatever_the_owner_has_set(
    database: str, observer: Observer, connection: str, scenario: str
) -> None:
    """Rows that come in pieces, and types that are read as something else."""
    async with case_of(database, observer, connection, CONNECTORS[0], OF_OTHER_TASTES) as case:
        await SCENARIOS[scenario](case)


@pytest.mark.parametrize("connection", installed(IN_AUTOCOMMIT))
async def test_in_autocommit_mode_a_call_of_several_statements_is_refused(
    database: str, observer: Observer, connection: str
) -> None:
    """And nothing of it is done. A job is one statement, so is a batch, and so is a list."""
    async with case_of(database, observer, connection, CONNECTORS[0], IN_AUTOCOMMIT) as case:
        job_id = await case.defer(1)
        await case.call(case.configured(), "batch_defer", {"n": 2}, {"n": 3})
        for method, arguments in (
            ("cancel_job_by_id", {"id": job_id}),
            ("cancel_jobs", {"id": job_id}),
            ("retry_job_by_id", {"id": job_id}),
            ("retry_jobs", {"task": "task", "status": "todo"}),
        ):
            with pytest.raises(InvalidOption, match="autocommit mode"):
                await case.manage(method, **arguments)
        assert len(await case.manage("list_jobs")) == 3
        assert observer.jobs() == todo(1, 2, 3)


@pytest.mark.parametrize("connection", [name for name in INSTALLED if KINDS[name].is_async])
async def test_an_asynchronous_connection_in_a_plain_call_is_refused(
    database: str, observer: Observer, connection: str
) -> None:
    case = case_of(database, observer, connection, CONNECTORS[0], is_async=False)
    async with case as plain:
        with pytest.raises(InvalidOption, match=r"await .*defer_async"):
            await plain.defer(1)
        with pytest.raises(InvalidOption, match="for coroutines"):
            await plain.manage("list_jobs")
        await plain.caller.commit()
        assert observer.jobs() == []


@pytest.mark.parametrize("connection", INSTALLED)
async def test_a_connection_without_the_tables_is_refused(
    database: str, observer: Observer, connection: str
) -> None:
    """Whatever reads first leaves the transaction usable; what defers says that it has failed."""
    async with (
        case_of(database, observer, connection, CONNECTORS[0], is_async=True) as case,
        case.app.open_async(),
    ):
        await case.app.configure_task("task").defer_async(n=0)
        await case.caller.sql("set search_path = pg_temp")
        await case.caller.commit()
        await case.caller.sql("insert into public.theirs values (1)")
        for method in ("list_jobs", "cancel_jobs", "retry_jobs"):
            with pytest.raises(InvalidOption, match=r"leads to other tables.*was done$"):
                await case.manage(method, task="task")
        await case.caller.commit()
        assert observer.theirs() == [1]
        for call in (
            lambda: case.defer(1),
            lambda: case.defer(1, schedule_in={"days": 1}),
            lambda: case.call(case.configured(partition_key="k"), "batch_defer", {"n": 1}),
            lambda: case.call(case.configured(), "batch_defer", {"n": 2}, {"n": 3}),
        ):
            with pytest.raises(InvalidOption, match=r"leads to other tables.*roll it back"):
                await call()
            await case.caller.rollback()
        assert observer.jobs() == todo(0)


# A session is not over when it is closed: the next statement opens it again.
@pytest.mark.parametrize("connection", [name for name in INSTALLED if "ession" not in name])
async def test_a_closed_connection_is_refused(
    database: str, observer: Observer, connection: str
) -> None:
    async with case_of(database, observer, connection, CONNECTORS[0]) as case:
        pass
    with pytest.raises((InvalidOption, ConnectorException), match=r"closed|given back|lost"):
        await case.defer(1)
    assert observer.jobs() == []


def test_every_binder_is_tested() -> None:
    tested = {kind.binder for kind in KINDS.values()}
    missing = [name for name in binders.available() if name not in tested]
    assert [name for name in missing if not name.startswith(ELSEWHERE)] == []


def test_there_are_connections_of_either_kind() -> None:
    assert {KINDS[name].is_async for name in INSTALLED} == {False, True}
    assert len(CONNECTORS) >= 3
