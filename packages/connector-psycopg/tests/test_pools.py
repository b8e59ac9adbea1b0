"""The application's own pools."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg_pool
import pytest
from psycopg.rows import dict_row

from procrastinate.connector import Query
from procrastinate.errors import ConfigurationError, ConnectionFailed, InvalidOption, PoolTimeout
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector, borrowed
from procrastinate_psycopg.binding import bind, bind_async
from procrastinate_psycopg.leases import AsyncLease

from .conftest import Observer, rows, sync_rows

PID = "select pg_backend_pid()"


def waits_for_ever(run: Any) -> Any:
    """Return a way to run queries on which UNLISTEN gets no answer while the connection lives."""

    async def instead(lease: AsyncLease, query: Query, begin: str = "") -> Any:
        if query.name == "unlisten":
            query = Query(query.name, "select pg_sleep(3600)")
        return await run(lease, query, begin)

    return instead


async def test_a_pool_that_is_closed_or_was_never_opened_is_refused(procrastinate_dsn: str) -> None:
    pool = psycopg_pool.AsyncConnectionPool(procrastinate_dsn, open=False)
    for _ in range(2):
        with pytest.raises(InvalidOption, match="is closed, or was never opened"):
            await PsycopgConnector().open_async(pool)
        await pool.close()


def test_a_synchronous_pool_that_is_closed_is_refused(procrastinate_dsn: str) -> None:
    pool = psycopg_pool.ConnectionPool(procrastinate_dsn, open=False)
    with pytest.raises(InvalidOption, match="is closed, or was never opened"):
        SyncPsycopgConnector().open(pool)


async def test_the_other_kind_of_pool_is_refused_with_what_it_is_for(
    pool: Any, procrastinate_dsn: str
) -> None:
    with pytest.raises(InvalidOption, match=r"await app\.open_async\(pool\)"):
        SyncPsycopgConnector().open(pool)
    other = psycopg_pool.ConnectionPool(procrastinate_dsn, open=False)
    with pytest.raises(InvalidOption, match=r"app\.open\(pool\)"):
        await PsycopgConnector().open_async(other)
    with pytest.raises(InvalidOption, match=r"not builtins\.int"):
        await PsycopgConnector().open_async(7)


async def test_a_connection_given_back_to_its_pool_is_refused(
    pool: Any, procrastinate_dsn: str
) -> None:
    """Whatever pool that is: the connector need not know it."""
    one = Query("one", "select 1")
    async with pool.connection() as connection:
        assert await bind_async(connection).execute(one) == [(1,)]
    with pytest.raises(InvalidOption, match="was given back to its pool"):
        bind_async(connection)
    with psycopg_pool.ConnectionPool(procrastinate_dsn, min_size=1) as plain:
        with plain.connection() as theirs:
            assert bind(theirs).execute(one) == [(1,)]
        with pytest.raises(InvalidOption, match="was given back to its pool"):
            bind(theirs)


async def test_a_pool_of_another_event_loop_is_refused(pool: Any) -> None:
    def elsewhere() -> None:
        with pytest.raises(InvalidOption, match="in another event loop"):
            asyncio.run(PsycopgConnector().open_async(pool))

    await asyncio.to_thread(elsewhere)


async def test_a_pool_too_small_for_a_worker_is_refused_with_the_number(
    procrastinate_dsn: str,
) -> None:
    async with psycopg_pool.AsyncConnectionPool(
        procrastinate_dsn, min_size=1, max_size=2, open=False
    ) as pool:
        connector = PsycopgConnector()
        await connector.open_async(pool)
        with pytest.raises(ConfigurationError, match=r"2 connections .* a worker takes 3"):
            connector.check_for_worker()
        direct = PsycopgConnector(listen_conninfo=procrastinate_dsn)
        await direct.open_async(pool)
        direct.check_for_worker()
        async with direct.listen(["a"]):
            pass
        await connector.close_async()
        await direct.close_async()


async def test_a_pool_gets_the_connection_that_listened_back(
    procrastinate_dsn: str, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    """It hears nothing any more, and the pool's log has nothing to warn of."""
    async with psycopg_pool.AsyncConnectionPool(
        procrastinate_dsn, min_size=1, max_size=1, open=False
    ) as pool:
        connector = PsycopgConnector()
        await connector.open_async(pool)
        ((pid,),) = await rows(connector, PID)
        async with connector.listen(["a", 'b "c"']) as heard:
            observer.sql("select pg_notify('a', '1'), pg_notify('a', '2')")
            assert (await anext(aiter(heard))).payload == "1"
        observer.sql("select pg_notify('a', '3')")
        async with pool.connection() as connection:
            assert connection.info.backend_pid == pid
            listening = await connection.execute("select pg_listening_channels()")
            assert await listening.fetchall() == []
            assert connection.pgconn.notifies() is None
        await connector.close_async()
    assert [record.message for record in caplog.records if "discard" in record.message] == []


async def test_a_pool_gets_a_silent_connection_that_listened_back_closed(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(borrowed, "UNLISTEN_MAY_TAKE", 0.0)
    monkeypatch.setattr(AsyncLease, "run", waits_for_ever(AsyncLease.run))
    connector = PsycopgConnector()
    await connector.open_async(pool)
    async with connector.listen(["a"]):
        before = pool.get_stats().get("returns_bad", 0)
    await connector.close_async()
    assert pool.get_stats()["returns_bad"] == before + 1


async def test_a_pool_closed_by_its_owner_is_reported(pool: Any) -> None:
    connector = PsycopgConnector()
    await connector.open_async(pool)
    await pool.close()
    with pytest.raises(ConnectionFailed, match="has been closed by its owner"):
        await rows(connector, "select 1")
    await connector.close_async()


async def test_a_pool_in_use_is_a_pool_timeout(pool: Any) -> None:
    connector = PsycopgConnector(pool_timeout=0.05)
    await connector.open_async(pool)
    async with pool.connection(), pool.connection(), pool.connection():
        with pytest.raises(PoolTimeout, match=r"max_size=3.* within 0\.05 seconds"):
            await rows(connector, "select 1")
    assert await rows(connector, "select 1") == [(1,)]
    await connector.close_async()


async def test_dead_connections_of_a_pool_are_passed_over(pool: Any, observer: Observer) -> None:
    connector = PsycopgConnector()
    await connector.open_async(pool)
    ((before,),) = await rows(connector, PID)
    observer.kill(before)
    ((after,),) = await rows(connector, PID)
    assert after != before
    await connector.close_async()


def test_dead_connections_of_a_synchronous_pool_are_passed_over(
    procrastinate_dsn: str, observer: Observer
) -> None:
    with psycopg_pool.ConnectionPool(procrastinate_dsn, min_size=1, open=True) as pool:
        connector = SyncPsycopgConnector()
        connector.open(pool)
        ((before,),) = sync_rows(connector, PID)
        observer.kill(before)
        ((after,),) = sync_rows(connector, PID)
        assert after != before
        connector.close()


async def test_a_session_given_back_is_the_pools_again(pool: Any) -> None:
    await pool.wait()  # who asks before the first connection is there makes the pool grow
    connector = PsycopgConnector()
    await connector.open_async(pool)
    for _ in range(10):
        await rows(connector, "select 1")
    await connector.close_async()
    stats = pool.get_stats()
    assert stats["pool_available"] == stats["pool_size"]
    async with pool.connection() as connection:
        assert await (await connection.execute("select 2")).fetchall() == [(2,)]


async def test_a_severed_connection_makes_the_others_answer_first(
    pool: Any, observer: Observer
) -> None:
    connector = PsycopgConnector()
    await connector.open_async(pool)
    with pytest.raises(Exception, match="the connection broke"):
        async with connector.session_async() as session:
            session.sever()
            await session.execute(Query("test", "select 1"))
    assert await rows(connector, "select 1") == [(1,)]
    await connector.close_async()


async def test_the_synchronous_half_goes_where_the_pool_goes(procrastinate_dsn: str) -> None:
    async with psycopg_pool.AsyncConnectionPool(
        procrastinate_dsn,
        kwargs={"application_name": "kit of mine", "row_factory": dict_row, "autocommit": True},
        open=False,
    ) as pool:
        connector = PsycopgConnector()
        await connector.open_async(pool)
        half = connector.sync_connector()
        half.open()
        said = sync_rows(half, "select current_database(), current_setting('application_name')")
        assert said == [(*(await rows(connector, "select current_database()"))[0], "kit of mine")]
        half.close()
        await connector.close_async()


async def test_a_pool_that_does_not_say_where_it_goes_is_an_error(pool: Any) -> None:
    connector = PsycopgConnector()
    await connector.open_async(pool)
    pool.conninfo = lambda: "host=secret"
    with pytest.raises(ConfigurationError, match="give PsycopgConnector the same conninfo="):
        connector.sync_connector()
    await connector.close_async()


async def test_rows_of_a_pool_with_other_dates_are_read_as_they_are(
    procrastinate_dsn: str,
) -> None:
    async with psycopg_pool.AsyncConnectionPool(
        procrastinate_dsn, kwargs={"options": "-c datestyle=German"}, open=False
    ) as pool:
        connector = PsycopgConnector()
        await connector.open_async(pool)
        sql = "select '2026-03-01 12:00+00'::timestamptz where 1 = %(one)s::integer"
        ((moment,),) = await rows(connector, sql, one=1)
        assert moment.isoformat().startswith("2026-03-01T")
        async with pool.connection() as connection:
            said = await (await connection.execute("show datestyle")).fetchone()
            assert said[0].startswith("German")
        await connector.close_async()


async def test_the_sibling_of_a_pool_leads_where_the_pool_does(procrastinate_dsn: str) -> None:
    connector = PsycopgConnector(schema="mine")
    async with psycopg_pool.AsyncConnectionPool(procrastinate_dsn, min_size=3) as pool:
        await connector.open_async(pool)
        sibling = connector.sibling(max_connections=1, connect_timeout=3.0)
        await sibling.open_async()
        async with sibling.session_async() as session, sibling.listen(["a"]):
            ((database,),) = await session.execute(Query("where", "select current_database()"))
        await sibling.close_async()
        await connector.close_async()
    assert (f"/{database}?" in f"{procrastinate_dsn}?", sibling.schema) == (True, "mine")
