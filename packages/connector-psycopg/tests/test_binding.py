"""``connection=``: what is special to psycopg's connections. The kit tests the rest."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumper

from procrastinate.connector import Query
from procrastinate.errors import ConnectorException, InvalidOption, UniqueViolation
from procrastinate_psycopg.binding import bind, bind_async

from .conftest import Observer

MOMENT = Query("moment", "select %(at)s::timestamptz", {"at": "2026-03-01T12:00:00+00:00"})


@pytest.fixture
def connection(procrastinate_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(procrastinate_dsn) as connection:
        yield connection


def insert(name: str) -> Query:
    sql = "insert into things values (%(name)s::text) returning name, 7, array[1, 2]"
    return Query("insert", sql, {"name": name})


def test_it_works_in_pipeline_mode(connection: psycopg.Connection, observer: Observer) -> None:
    with connection.pipeline():
        executor = bind(connection)
        assert executor.execute(insert("a")) == [("a", 7, [1, 2])]
        assert executor.execute(Query("none", "delete from things where 1 = 2")) == []
        with pytest.raises(UniqueViolation):
            executor.execute(insert("a"))
    connection.rollback()
    assert observer.sql("select * from things") == []


async def test_it_works_in_pipeline_mode_of_an_asynchronous_connection(
    procrastinate_dsn: str, observer: Observer
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(procrastinate_dsn) as connection,
        connection.pipeline(),
    ):
        executor = bind_async(connection)
        assert list(await executor.execute(insert("a"))) == [("a", 7, [1, 2])]
        assert list(await executor.execute(Query("none", "delete from things"))) == []
        await connection.rollback()
    assert observer.sql("select * from things") == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_leaves_the_callers_transaction_usable(
    procrastinate_dsn: str, observer: Observer, times: int
) -> None:
    slow = Query("slow", "insert into things select 'b' from pg_sleep(0.5)")
    async with await psycopg.AsyncConnection.connect(procrastinate_dsn) as connection:
        await connection.execute("insert into things values ('a')")
        deferring = asyncio.create_task(bind_async(connection).execute(slow))
        for _ in range(times):
            await asyncio.sleep(0.1)
            deferring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deferring
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        await connection.commit()
    assert observer.sql("select name from things order by 1") == [("a",), ("b",)]


SAVEPOINT = Query("set_savepoint", "savepoint a")


@pytest.mark.parametrize("awaited", [True, False])
def test_a_pipeline_without_a_transaction_keeps_what_was_done_before_a_refusal(
    connection: psycopg.Connection, observer: Observer, awaited: bool
) -> None:
    """The server would undo it all if it had to refuse a SAVEPOINT there."""
    connection.autocommit = True
    with connection.pipeline():
        executor = bind(connection)
        theirs = connection.execute("insert into things values ('theirs') returning 1")
        if awaited:
            assert theirs.fetchone() == (1,)
        with pytest.raises(ConnectorException) as caught:
            executor.execute(SAVEPOINT)
        executor.execute(insert("a"))
        with connection.transaction():
            connection.execute("select 1")
            assert executor.execute(SAVEPOINT) == []
    assert caught.value.sqlstate == "25P01"
    assert observer.sql("select * from things") == [("theirs",), ("a",)]


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_failure_of_an_earlier_statement_in_a_pipeline_is_told_as_such(
    connection: psycopg.Connection, observer: Observer, has_arrived: bool
) -> None:
    executor = bind(connection)
    with connection.pipeline() as pipeline:
        connection.execute("select 1 / 0")
        if has_arrived:
            connection.pgconn.send_flush_request()
            connection.pgconn.flush()
            assert select.select([connection], [], [], 30)[0]
        with pytest.raises(ConnectorException, match=r"earlier statement .*\(division by zero\)"):
            executor.execute(insert("a"))
        with pytest.raises(ConnectorException, match="earlier statement") as caught:
            executor.execute(insert("a"))
        pipeline.sync()
        connection.rollback()
        assert executor.execute(insert("a")) == [("a", 7, [1, 2])]
    assert type(caught.value) is ConnectorException


async def test_pipelines_of_asynchronous_connections_are_treated_alike(
    procrastinate_dsn: str, observer: Observer
) -> None:
    async with await psycopg.AsyncConnection.connect(procrastinate_dsn) as connection:
        await connection.set_autocommit(True)
        executor = bind_async(connection)
        async with connection.pipeline():
            await connection.execute("insert into things values ('theirs')")
            with pytest.raises(ConnectorException) as caught:
                await executor.execute(SAVEPOINT)
        async with connection.pipeline() as pipeline:
            await connection.execute("select 1 / 0")
            with pytest.raises(ConnectorException, match="earlier statement"):
                await executor.execute(insert("a"))
            await pipeline.sync()
    assert caught.value.sqlstate == "25P01"
    assert observer.sql("select * from things") == [("theirs",)]


def test_adapters_of_the_owner_are_neither_used_nor_changed(
    connection: psycopg.Connection, observer: Observer
) -> None:
    class Shouting(StrDumper):
        def dump(self, obj: str) -> bytes:
            return obj.upper().encode()

    connection.adapters.register_dumper(str, Shouting)
    connection.adapters.register_loader("text", connection.adapters.get_loader(17, 0))
    assert bind(connection).execute(insert("quiet")) == [("quiet", 7, [1, 2])]
    assert connection.execute("select %s::bytea", ["loud"]).fetchone() == (b"LOUD",)


@pytest.mark.parametrize("style", ["German", "SQL, DMY", "Postgres"])
def test_dates_are_read_whatever_the_style_is(connection: psycopg.Connection, style: str) -> None:
    connection.execute(f"set datestyle to {style}")
    ((moment,),) = bind(connection).execute(MOMENT)
    assert moment.timestamp() == 1772366400
    without_values = Query("moment", "select '2026-03-01 12:00Z'::timestamptz")
    assert bind(connection).execute(without_values) == [(moment,)]
    assert connection.execute("show datestyle").fetchone()[0].startswith(style.split(",")[0])  # type: ignore[index]


def test_texts_are_read_in_the_connections_encoding(connection: psycopg.Connection) -> None:
    connection.execute("set client_encoding to latin1")
    query = Query("text", "select %(x)s::text", {"x": "é"})
    assert bind(connection).execute(query) == [("é",)]


@pytest.mark.parametrize("style", ["ISO", "German"])
def test_without_an_encoding_texts_are_read_as_ours(
    connection: psycopg.Connection, style: str
) -> None:
    """psycopg itself gives bytes then. In another date style, they come in the binary format."""
    connection.execute(f"set datestyle to {style}; set client_encoding to sql_ascii")
    query = Query("text", "select %(x)s::text, array[%(x)s::text], 'ß'::name", {"x": "é漢"})
    assert bind(connection).execute(query) == [("é漢", ["é漢"], "ß")]


def test_a_proxy_is_seen_through_and_anything_else_refused(
    connection: psycopg.Connection, observer: Observer
) -> None:
    class Proxy:
        def __init__(self, wrapped: Any) -> None:
            self.__wrapped__ = wrapped

    class Endless:
        def __getattr__(self, name: str) -> Any:
            return self

    assert bind(Proxy(Proxy(connection))).execute(insert("a")) == [("a", 7, [1, 2])]
    for other in (None, Endless(), Proxy(None)):
        with pytest.raises(InvalidOption, match="is no psycopg Connection"):
            bind(other)
    with pytest.raises(InvalidOption, match="is no psycopg AsyncConnection"):
        bind_async(connection)
    connection.close()
    with pytest.raises(InvalidOption, match="is closed"):
        bind(connection)
