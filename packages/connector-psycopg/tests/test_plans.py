"""Plans that the server keeps: on connections of our own alone, and not behind a pooler."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from procrastinate.connector import GENERIC, Query
from procrastinate.errors import ConnectionFailed, ConnectorException, InvalidData
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector
from procrastinate_psycopg.leases import AsyncLease

from .conftest import Observer

TEXT = (
    "select name from things where name = any(%(names)s::text[]) and 1 < %(least)s::integer"
    " and name not like '%%nothing%%'"
)
KEPT = {"plan_cache_mode": GENERIC}
PREPARED = Query("prepared", "select name, statement from pg_prepared_statements order by 1")


def named(*names: str, least: int = 5, settings: Any = KEPT) -> Query:
    return Query("named", TEXT, {"names": names, "least": least}, settings)


async def run(connector: PsycopgConnector, *queries: Query, **options: Any) -> list[Any]:
    async with connector.session_async(**options) as session:
        return [list(await session.execute(query)) for query in queries]


@pytest_asyncio.fixture
async def one(procrastinate_dsn: str, observer: Observer) -> AsyncIterator[PsycopgConnector]:
    """A connector of one connection, and a table with two rows."""
    observer.sql("insert into things values ('a'), ('b''%')")
    connector = PsycopgConnector(conninfo=procrastinate_dsn, max_size=1)
    await connector.open_async()
    yield connector
    await connector.close_async()


@pytest.fixture
def pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections look as they do behind a pooler, which makes a process id up."""
    monkeypatch.setattr(AsyncLease, "server_pid", -1)


async def test_a_query_that_keeps_its_plan_is_prepared_once(one: PsycopgConnector) -> None:
    for _ in range(3):
        assert await run(one, named("a", "b'%", "c"), named(least=-5)) == [[("a",), ("b'%",)], []]
    (prepared,) = await run(one, PREPARED)
    body = TEXT.replace("%(names)s", "$1").replace("%(least)s", "$2").replace("%%", "%")
    assert [name for name, _ in prepared] == ["procrastinate_named_1"]
    assert f"PREPARE procrastinate_named_1 (text[],integer) AS {body};" in prepared[0][1]


async def test_others_are_not_prepared(one: PsycopgConnector) -> None:
    found = await run(
        one,
        named("a", settings={}),
        Query("uncast", "select %(n)s", {"n": "1"}, KEPT),
        Query("none", "select 2", {}, KEPT),
        Query("odd; name", "select %(n)s::integer", {"n": 3}, KEPT),
    )
    assert found == [[("a",)], [("1",)], [(2,)], [(3,)]]
    assert await run(one, PREPARED) == [[]]


async def test_it_is_prepared_in_a_transaction_as_well_and_stays_after_a_rollback(
    one: PsycopgConnector,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with one.session_async(transaction=True) as session:
            assert list(await session.execute(named("a"))) == [("a",)]
            raise ZeroDivisionError
    assert await run(one, named("a"), transaction=True) == [[("a",)]]
    assert len((await run(one, PREPARED))[0]) == 1


async def test_no_name_is_used_twice_if_the_first_execution_fails(one: PsycopgConnector) -> None:
    failing = Query("failing", "select 1 / %(n)s::integer", {"n": 0}, KEPT)
    for _ in range(2):
        with pytest.raises(ConnectorException, match="division by zero"):
            await run(one, failing)
    assert await run(one, Query("failing", failing.sql, {"n": 1}, KEPT)) == [[(1,)]]


async def test_a_statement_that_is_missing_ends_preparing_for_the_pool(
    one: PsycopgConnector,
) -> None:
    await run(one, named("a"))
    await run(one, Query("poolers_do", "deallocate all"))
    with pytest.raises(ConnectorException) as caught:
        await run(one, named("a"))
    assert caught.value.sqlstate == "26000"
    assert await run(one, named("a")) == [[("a",)]]
    assert await run(one, PREPARED) == [[]]


async def test_nothing_is_prepared_behind_a_pooler_and_one_line_says_so(
    one: PsycopgConnector, pooler: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "procrastinate.psycopg"):
        for _ in range(3):
            assert await run(one, named("a")) == [[("a",)]]
    assert await run(one, PREPARED) == [[]]
    said = "a pooler in front of PostgreSQL: no prepared statements, and LISTEN only with listen_"
    assert [said in record.getMessage() for record in caplog.records] == [True]


async def test_behind_a_pooler_listening_is_refused_with_what_to_do(
    one: PsycopgConnector, pooler: None
) -> None:
    with pytest.raises(ConnectionFailed, match="name a direct connection with listen_conninfo="):
        async with one.listen(["a"]):
            pass


async def test_nothing_is_prepared_on_the_applications_pool(pool: Any, observer: Observer) -> None:
    observer.sql("insert into things values ('a')")
    connector = PsycopgConnector()
    await connector.open_async(pool)
    found = await run(connector, named("a"), named("a"), PREPARED)
    assert found == [[("a",)], [("a",)], []]
    await connector.close_async()


CALL_SETTINGS = {"jit": "off", "transaction_isolation": "read committed"}


def call(text: str) -> Query:
    sql = "select %(text)s::text || 'b', %(n)s::integer, %(none)s::jsonb, %(is)s::boolean"
    return Query("call", sql, {"text": text, "n": -3, "none": None, "is": True}, CALL_SETTINGS)


def test_a_synchronous_call_is_prepared_the_second_time_and_executed_by_its_name(
    procrastinate_dsn: str,
) -> None:
    connector = SyncPsycopgConnector(conninfo=procrastinate_dsn, max_size=1)
    connector.open()
    for text in ("", "'", "\\", "%", "ä"):
        with connector.session() as session:
            assert list(session.execute(call(text))) == [(f"{text}b", -3, None, True)]
    with connector.session() as session:
        with pytest.raises(InvalidData, match="NUL"):
            session.execute(call("\0"))
        assert [name for name, _ in session.execute(PREPARED)] == ["procrastinate_call_1"]
        session.execute(Query("poolers_do", "deallocate all"))
    for _ in range(2):
        with connector.session() as session:
            assert list(session.execute(call("a"))) == [("ab", -3, None, True)]
            assert list(session.execute(PREPARED)) == []
    connector.close()


async def test_a_call_is_prepared_the_second_time_and_executed_by_its_name(
    one: PsycopgConnector,
) -> None:
    for text in ("", "'", "\\", "%", "ä"):
        assert await run(one, call(text)) == [[(f"{text}b", -3, None, True)]]
    with pytest.raises(InvalidData, match="NUL"):
        await run(one, call("\0"))
    assert [name for name, _ in (await run(one, PREPARED))[0]] == ["procrastinate_call_1"]
    await run(one, Query("poolers_do", "deallocate all"))
    for _ in range(2):
        assert await run(one, call("a"), PREPARED) == [[("ab", -3, None, True)], []]
