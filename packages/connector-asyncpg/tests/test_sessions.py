"""What goes to the server: settings, prepared statements, and few messages."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import asyncpg
import pytest

from procrastinate.connector import GENERIC, AsyncSessionExecutor, Query, Rows, Value
from procrastinate.drive import Request
from procrastinate.errors import ConnectorException, InvalidData, InvalidOption
from procrastinate.storage.statements import Statements
from procrastinate_asyncpg import AsyncpgConnector
from procrastinate_asyncpg.binding import bound

SHOWN = "select current_setting('lock_timeout'), current_setting('statement_timeout')"


def query(sql: str, settings: dict[str, str] | None = None, /, **params: Value) -> Query:
    return Query("any", sql, params, settings or {})


async def names(session: AsyncSessionExecutor) -> Rows:
    return await session.execute(
        query("select name, generic_plans > 0 from pg_prepared_statements order by name")
    )


async def test_statements_are_prepared_once_and_planned_anew(connector: AsyncpgConnector) -> None:
    """But those that keep their plan, whose plan does not depend on the values."""
    async with connector.session_async() as session:
        for n in range(8):
            anew = query("select %(n)s::integer", {"enable_nestloop": "on"}, n=n)
            await session.execute(anew)
            kept = query("select %(n)s::bigint", {"plan_cache_mode": GENERIC}, n=n)
            await session.execute(kept)
        assert await names(session) == [("procrastinate_1", False), ("procrastinate_2", True)]


async def test_nothing_is_prepared_if_the_user_says_so(procrastinate_dsn: str) -> None:
    """As behind a pooler; each query has its settings all the same, and they end with it."""
    connector = AsyncpgConnector(dsn=procrastinate_dsn, statement_cache_size=0)
    await connector.open_async()
    async with connector.session_async() as session:
        for n in range(3):
            limited = query(f"{SHOWN} where %(n)s::integer >= 0", {"lock_timeout": "77s"}, n=n)
            assert (await session.execute(limited))[0][0] == "77s"
            assert (await session.execute(query(SHOWN)))[0][0] == "0"
        assert await names(session) == []
    await connector.close_async()


async def test_a_pooler_is_found_and_told_of_once(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By its process id, which is not the server's; an app's plain calls do not tell again."""
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda self: -1)
    monkeypatch.setattr("procrastinate_asyncpg.pools._told_of", set())
    connector = AsyncpgConnector(dsn=procrastinate_dsn)
    sibling = connector.sibling(max_connections=1)
    for each in (connector, sibling):
        await each.open_async()
        async with each.session_async() as session:
            await session.execute(query("select %(n)s::integer", {"jit": "off"}, n=1))
            assert await names(session) == []
        await each.close_async()
    told = [record.message for record in caplog.records if "pooler" in record.message]
    assert len(told) == 1
    assert told[0].endswith("no statement is prepared")


async def test_settings_change_from_query_to_query(connector: AsyncpgConnector) -> None:
    """In any order; what a query does not name is what it was."""
    lock, statement = {"lock_timeout": "77s"}, {"statement_timeout": "78s"}
    steps = [lock, {}, {**lock, **statement}, statement, lock, {"lock_timeout": "79s"}, {}]
    seen = []
    async with connector.session_async() as session:
        for settings in steps:
            seen.append((await session.execute(query(SHOWN, settings)))[0])
    expected = [
        (step.get("lock_timeout", "0"), step.get("statement_timeout", "0")) for step in steps
    ]
    assert seen == expected


async def test_a_transaction_does_not_see_what_queries_before_it_had(
    connector: AsyncpgConnector,
) -> None:
    async with connector.session_async() as session:
        await session.execute(query(SHOWN, {"lock_timeout": "77s", "statement_timeout": "78s"}))
    async with connector.session_async(transaction=True) as session:
        assert await session.execute(query(SHOWN, {"lock_timeout": "79s"})) == [("79s", "0")]
    async with connector.session_async(transaction=True) as session:
        assert await session.execute(query(SHOWN)) == [("0", "0")]


async def test_a_savepoint_that_is_rolled_back_takes_settings_along(
    connector: AsyncpgConnector,
) -> None:
    limited = query(SHOWN, {"lock_timeout": "77s"})
    async with connector.session_async(transaction=True) as session:
        await session.execute(query("savepoint kit"))
        assert await session.execute(limited) == [("77s", "0")]
        with pytest.raises(InvalidData):
            await session.execute(query("select 1 / 0"))
        await session.execute(query("rollback to savepoint kit"))
        assert await session.execute(query(SHOWN)) == [("0", "0")]
        assert await session.execute(limited) == [("77s", "0")]


async def test_a_prepared_statement_whose_table_changed_costs_one_connection(
    connector: AsyncpgConnector,
) -> None:
    """The error is raised once; the next session has another connection."""
    select = query("select * from things where %(x)s::integer > 0", x=1)
    async with connector.session_async() as session:
        await session.execute(query("create table things (name text)"))
        await session.execute(select)
        await session.execute(query("alter table things add column size integer"))
        with pytest.raises(Exception, match="cached"):
            await session.execute(select)
    async with connector.session_async() as session:
        assert await session.execute(select) == []


async def test_a_pool_s_connections_keep_nothing_of_ours(pool: asyncpg.Pool) -> None:
    connector = AsyncpgConnector()
    await connector.open_async(pool)
    async with connector.session_async() as session:
        limited = query(f"{SHOWN} where %(n)s::integer = 1", {"lock_timeout": "77s"}, n=1)
        assert await session.execute(limited) == [("77s", "0")]
        assert await session.execute(query(SHOWN)) == [("0", "0")]
    await connector.close_async()
    async with pool.acquire() as connection:
        assert tuple(await connection.fetchrow(SHOWN)) == ("0", "0")


@pytest.mark.parametrize("command", ["DISCARD ALL", "DEALLOCATE ALL"])
async def test_statements_that_the_owner_of_a_pool_takes_back_are_sent_again(
    connector: AsyncpgConnector, pool: asyncpg.Pool, command: str
) -> None:
    """asyncpg knows them on: in a transaction one more fails, and none after that."""
    borrowing = AsyncpgConnector()
    await borrowing.open_async(pool)
    for each in (connector, borrowing):
        asked = query(f"{SHOWN}, %(n)s::integer", {"lock_timeout": "77s"}, n=1)
        plain = query(f"{SHOWN}, %(n)s::integer", n=2)
        for _ in range(3):
            async with each.session_async() as session:
                assert await session.execute(asked) == [("77s", "0", 1)]
                await session.execute(query(command))
                assert await session.execute(plain) == [("0", "0", 2)]
                await session.execute(query(command))
                assert await session.execute(asked) == [("77s", "0", 1)]
                await session.execute(query(command))
        with pytest.raises(ConnectorException, match="does not exist"):
            async with each.session_async(transaction=True) as session:
                await session.execute(asked)
                await session.execute(query("DEALLOCATE ALL"))
                await session.execute(asked)
        async with each.session_async(transaction=True) as session:
            assert await session.execute(asked) == [("77s", "0", 1)]
    await borrowing.close_async()


async def test_a_defer_keeps_the_plans_of_its_function(connector: AsyncpgConnector) -> None:
    """Other statements with parameters, which read tables, are planned anew for their values."""
    shown = "select current_setting('plan_cache_mode'), %(n)s::text"
    settings = Statements(None)(Request("defer_job")).settings
    anew = {**settings, "enable_nestloop": "on"}
    for wanted, mode in ((settings, "auto"), (anew, "force_custom_plan"), (settings, "auto")):
        async with connector.session_async() as session:
            assert await session.execute(query(shown, wanted, n="x")) == [(mode, "x")]


async def test_a_pool_behind_a_pooler_speaks_utf8(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer repeats the encoding in asyncpg's own spelling; another encoding is refused."""
    connector = AsyncpgConnector(dsn=procrastinate_dsn)
    async with asyncpg.create_pool(procrastinate_dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            codec_of = connection.get_settings().get_data_codec
        said = SimpleNamespace(client_encoding="LATIN1", get_data_codec=codec_of)
        monkeypatch.setattr(asyncpg.Connection, "get_settings", lambda _: said)
        with pytest.raises(InvalidOption, match="LATIN1"):
            await connector.open_async(pool)
        said.client_encoding = "'utf-8'"
        await connector.open_async(pool)
        async with connector.session_async() as session:
            assert await session.execute(query("select 1")) == [(1,)]
        await connector.close_async()


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_pool_whose_statements_run_out_of_time_gets_its_connections_back(
    procrastinate_dsn: str, transaction: bool
) -> None:
    """Also if the ROLLBACK after the statement runs out of time."""
    connector = AsyncpgConnector()
    pool = await asyncpg.create_pool(
        procrastinate_dsn, min_size=1, max_size=2, command_timeout=0.001
    )
    await connector.open_async(pool)
    for _ in range(6):  # more often than the pool has connections
        with pytest.raises(ConnectorException):
            async with connector.session_async(transaction=transaction) as session:
                slow = query("select pg_sleep(1), %(n)s::text", {"lock_timeout": "7s"}, n="x")
                await session.execute(slow)
    await connector.close_async()
    for _ in range(2):
        await pool.acquire(timeout=60)
    pool.terminate()


async def test_a_connection_of_another_event_loop_is_refused(procrastinate_dsn: str) -> None:
    """Before anything is sent: its answer would come in the other loop."""
    loop = asyncio.new_event_loop()

    async def connected() -> asyncpg.Connection:
        return await asyncpg.connect(procrastinate_dsn)

    connection = await asyncio.to_thread(loop.run_until_complete, connected())
    try:
        with pytest.raises(InvalidOption, match="made in another event loop"):
            bound(connection)
    finally:
        await asyncio.to_thread(loop.run_until_complete, connection.close())
        loop.close()
