"""Plans that the server keeps: on connections of our own alone, and not if they may be missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiopg
import pytest
import pytest_asyncio

from procrastinate.connector import GENERIC, Query
from procrastinate.errors import ConnectorException
from procrastinate_aiopg import AiopgConnector
from procrastinate_aiopg.held import Held
from procrastinate_aiopg.sessions import bound

TEXT = "select name from things where name = any(%(names)s::text[]) and 1 < %(least)s::integer"
KEPT = {"plan_cache_mode": GENERIC}
PREPARED = Query("prepared", "select name, statement from pg_prepared_statements order by 1")
PID = Query("pid", "select pg_backend_pid()")


def named(*names: str, least: int = 5, settings: Any = KEPT) -> Query:
    return Query("named", TEXT, {"names": names, "least": least}, settings)


async def run(connector: AiopgConnector, *queries: Query, **options: Any) -> list[Any]:
    async with connector.session_async(**options) as session:
        return [await session.execute(query) for query in queries]


@pytest_asyncio.fixture
async def one(procrastinate_dsn: str, observer: Any) -> AsyncIterator[AiopgConnector]:
    """A connector of one connection, and a table with two rows."""
    observer.sql("insert into things values ('a'), ('b''%')")
    connector = AiopgConnector(dsn=procrastinate_dsn, maxsize=1)
    await connector.open_async()
    yield connector
    await connector.close_async()


async def test_a_query_that_keeps_its_plan_is_prepared_once(one: AiopgConnector) -> None:
    for _ in range(3):
        assert await run(one, named("a", "b'%", "c"), named(least=-5)) == [[("a",), ("b'%",)], []]
    ((prepared,),) = [await run(one, PREPARED)]
    body = TEXT.replace("%(names)s", "$1").replace("%(least)s", "$2")
    assert [name for name, _ in prepared] == ["procrastinate_named_1"]
    assert f"PREPARE procrastinate_named_1 (text[],integer) AS {body};" in prepared[0][1]


async def test_others_are_not_prepared(one: AiopgConnector) -> None:
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
    one: AiopgConnector,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with one.session_async(transaction=True) as session:
            assert await session.execute(named("a")) == [("a",)]
            raise ZeroDivisionError
    assert await run(one, named("a"), transaction=True) == [[("a",)]]
    assert len((await run(one, PREPARED))[0]) == 1


async def test_no_name_is_used_twice_if_the_first_execution_fails(one: AiopgConnector) -> None:
    failing = Query("failing", "select 1 / %(n)s::integer", {"n": 0}, KEPT)
    for _ in range(2):
        with pytest.raises(ConnectorException, match="division by zero"):
            await run(one, failing)
    assert await run(one, Query("failing", failing.sql, {"n": 1}, KEPT)) == [[(1,)]]


async def test_a_plan_follows_changes_of_the_tables(one: AiopgConnector, observer: Any) -> None:
    await run(one, named("a"))
    observer.sql("drop table things")
    observer.sql("create table things (id bigint, name text)")
    observer.sql("insert into things values (1, 'a')")
    assert await run(one, named("a")) == [[("a",)]]


async def test_a_connection_is_closed_if_a_result_has_another_type_now(
    one: AiopgConnector, observer: Any
) -> None:
    await run(one, named("a"))
    ((pid,),) = (await run(one, PID))[0]
    observer.sql("alter table things alter name type varchar")
    with pytest.raises(ConnectorException) as caught:
        await run(one, named("a"))
    assert caught.value.sqlstate == "0A000"
    assert await run(one, named("a")) == [[("a",)]]
    assert (await run(one, PID))[0] != [(pid,)]


@pytest.mark.parametrize(
    "spoilt",
    ["execute 'deallocate all'", "execute 'prepare procrastinate_other_2 as select 1'"],
    ids=["missing", "in the way"],
)
async def test_a_pool_prepares_nothing_more_once_that_has_failed(
    one: AiopgConnector, spoilt: str
) -> None:
    """As behind a pooler that was not found out."""
    await run(one, named("a"))
    await run(one, Query("spoilt", f"do $$ begin {spoilt}; end $$"))
    other = Query("other", "select %(n)s::integer", {"n": 1}, KEPT)
    with pytest.raises(ConnectorException) as caught:
        await run(one, other, named("a"))
    assert caught.value.sqlstate in ("26000", "42P05")
    assert await run(one, named("a"), other) == [[("a",)], [(1,)]]
    assert await run(one, PREPARED) == [[]]


async def test_nothing_is_prepared_where_the_protocol_names_another_process(
    one: AiopgConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As poolers do. They are asked once for each connection."""
    asked = []
    send = Held._send

    async def answering(self: Held, sql: str, params: Any) -> None:
        asked.append(sql)
        pooled = sql.replace("pg_catalog.pg_backend_pid()", "pg_catalog.pg_backend_pid() + 1")
        await send(self, pooled, params)

    monkeypatch.setattr(Held, "_send", answering)
    assert await run(one, named("a"), named("b")) == [[("a",)], []]
    assert await run(one, PREPARED) == [[]]
    assert sum("pg_backend_pid" in sql for sql in asked) == 1


async def test_nothing_is_prepared_on_the_connections_of_a_pool_that_is_lent(
    pool: aiopg.Pool, observer: Any
) -> None:
    lent = AiopgConnector()
    await lent.open_async(pool)
    observer.sql("insert into things values ('a')")
    assert await run(lent, named("a"), PREPARED) == [[("a",)], []]
    async with pool.acquire() as connection:
        found = await bound(connection).execute(named("a"))
        assert found == [("a",)]
        assert await bound(connection).execute(PREPARED) == []
    await lent.close_async()
