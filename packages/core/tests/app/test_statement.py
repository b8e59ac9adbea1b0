"""A deferrer's ``statement()``: a job as SQL, executed by other drivers than the connectors'."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import procrastinate
from procrastinate import InvalidArguments, InvalidOption, Job, Statement, Status
from procrastinate.testing import InMemoryConnector

NOON = datetime(2150, 1, 1, 12, tzinfo=UTC)
TRICKY = "50% :é $1 %(a)s '\" \\ ::x"


def add(a: int, b: str = TRICKY) -> None: ...


# Each executes a statement in a transaction of its own, and returns the first column.


async def by_psycopg2(dsn: str, statement: Statement) -> Any:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(*statement.pyformat)
        return cursor.fetchone()[0]  # type: ignore[index]


async def by_psycopg(dsn: str, statement: Statement) -> Any:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        sql, params = statement.pyformat
        row: Any = await (await connection.execute(sql.encode(), params)).fetchone()
        return row[0]


async def by_asyncpg(dsn: str, statement: Statement) -> Any:
    connection = await asyncpg.connect(dsn)
    sql, params = statement.numeric_dollar
    try:
        return await connection.fetchval(sql, *params)
    finally:
        await connection.close()


async def by_asyncpg_with_a_codec(dsn: str, statement: Statement) -> Any:
    """As applications do that keep objects in jsonb."""
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )
    sql, params = statement.numeric_dollar
    try:
        return await connection.fetchval(sql, *params)
    finally:
        await connection.close()


def by_text(driver: str) -> Callable[[str, Statement], Awaitable[Any]]:
    async def execute(dsn: str, statement: Statement) -> Any:
        parts = psycopg2.extensions.parse_dsn(dsn)
        query = {"host": parts["host"], "port": parts["port"]}
        options = {"options": parts["options"]} if "options" in parts else {}
        connect_args = {"server_settings": options} if driver == "asyncpg" else options
        url = sqlalchemy.URL.create(
            f"postgresql+{driver}", parts["user"], database=parts["dbname"], query=query
        )
        sql, params = statement.named
        if driver == "psycopg2":
            engine = sqlalchemy.create_engine(url, connect_args=connect_args)
            with engine.begin() as connection:
                value = connection.execute(sqlalchemy.text(sql), params).scalar_one()
            engine.dispose()
            return value
        async_engine = create_async_engine(url, connect_args=connect_args)
        async with async_engine.begin() as theirs:
            value = (await theirs.execute(sqlalchemy.text(sql), params)).scalar_one()
        await async_engine.dispose()
        return value

    return execute


DRIVERS: dict[str, Callable[[str, Statement], Awaitable[Any]]] = {
    "psycopg2": by_psycopg2,
    "psycopg": by_psycopg,
    "asyncpg": by_asyncpg,
    "asyncpg with a codec": by_asyncpg_with_a_codec,
    "text() over psycopg2": by_text("psycopg2"),
    "text() over psycopg": by_text("psycopg"),
    "text() over asyncpg": by_text("asyncpg"),
}


@pytest.fixture(params=[None, "App 5"])
def placed(request: pytest.FixtureRequest, dsn: str) -> Iterator[procrastinate.App]:
    """An open app, with its tables in a schema on the search path, or in one of another name."""
    connector = procrastinate.Psycopg2Connector(dsn=dsn, schema=request.param)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
        yield app


def looks(job: Job) -> tuple[Any, ...]:
    return (
        *(job.task_name, job.queue, job.priority, job.lock, job.queueing_lock),
        *(job.task_kwargs, job.scheduled_at, job.status),
    )


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_statement_defers_the_same_job(
    placed: procrastinate.App, dsn: str, driver: str
) -> None:
    execute = DRIVERS[driver]
    task = placed.task(name="add", queue="q")(add)
    for options in (
        {},
        {"priority": -3, "lock": "ql", "queueing_lock": "ql", "schedule_at": NOON},
        {"lock": TRICKY, "partition_key": TRICKY, "task_kwargs": {"b": TRICKY}},
    ):
        deferrer = task.configure(**options)
        job_id = await execute(dsn, deferrer.statement(a=1, b="é"))
        job = placed.job_manager.get_job(job_id)
        assert placed.job_manager.cancel_job_by_id(job_id)
        expected = placed.job_manager.get_job(deferrer.defer(a=1, b="é"))
        assert looks(job) == looks(expected)
    soon = await execute(dsn, task.configure(schedule_in={"hours": 1}).statement(2))
    job = placed.job_manager.get_job(soon)
    assert job.scheduled_at is not None
    assert job.scheduled_at - job.deferred_at == timedelta(hours=1)
    assert (job.task_kwargs, job.status) == ({"a": 2}, Status.TODO)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_statement_returns_null_while_a_twin_waits(
    sync_app: procrastinate.App, dsn: str, driver: str
) -> None:
    sync_app.configure_task("add", queueing_lock="ql").defer()
    statement = sync_app.configure_task("add", queueing_lock="ql").statement()
    assert await DRIVERS[driver](dsn, statement) is None
    assert len(sync_app.job_manager.list_jobs()) == 1


def test_a_statement_is_checked_as_a_defer_is() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    task = app.task(name="add")(add)
    with pytest.raises(InvalidArguments):
        task.configure().statement()
    with pytest.raises(InvalidArguments):
        task.configure().statement(a=object())
    with pytest.raises(InvalidOption, match="connection="):
        task.configure(connection=object()).statement(a=1)
    assert repr(task.configure().statement(a=1)) == "<Statement 'add'>"


def test_a_schema_with_a_colon_has_no_named_statement() -> None:
    connector = procrastinate.Psycopg2Connector(schema="a:b")
    statement = procrastinate.App(connector=connector).configure_task("add").statement()
    assert '"a:b".procrastinate_jobs' in statement.pyformat[0]
    with pytest.raises(InvalidOption, match="colon"):
        _ = statement.named
