"""LISTEN on a connection of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import aiopg
import pytest

from procrastinate.connector import Notification
from procrastinate.errors import ConfigurationError, ConnectionFailed, ConnectionLost, InvalidOption
from procrastinate_aiopg import AiopgConnector

LISTENERS = "pg_stat_activity where datname = current_database() and query like 'LISTEN %%'"


async def test_what_is_sent_after_entering_is_heard(connector: Any, observer: Any) -> None:
    async with connector.listen(["one", "two"]) as heard:
        observer.sql("select pg_notify('one', 'a'), pg_notify('two', 'b')")
        assert [await anext(heard), await anext(heard)] == [
            Notification("one", "a"),
            Notification("two", "b"),
        ]


async def test_any_channel_name_can_be_listened_to(connector: Any, observer: Any) -> None:
    name = 'Odd "name"; %s %(x)s é'
    async with connector.listen([name]) as heard:
        observer.sql("select pg_notify(%s, 'x')", name)
        assert await anext(heard) == Notification(name, "x")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64])
async def test_impossible_channel_names_are_refused(connector: Any, name: str) -> None:
    with pytest.raises(InvalidOption, match="1 to 63 bytes"):
        connector.listen([name])


async def test_a_server_that_goes_away_is_a_lost_connection_at_once(
    connector: Any, observer: Any
) -> None:
    async with connector.listen(["one"]) as heard:
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        [(pid,)] = observer.sql(f"select pid from {LISTENERS}")
        observer.kill(pid)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, 30)


async def test_leaving_the_block_leaves_no_listener(connector: Any, observer: Any) -> None:
    async with connector.listen(["one"]):
        assert observer.count(LISTENERS) == 1
    observer.until(lambda: observer.count(LISTENERS) == 0)


async def test_closing_the_connector_ends_its_listeners(connector: Any) -> None:
    async with connector.listen(["one"]) as heard:
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        await connector.close_async()
        with pytest.raises(ConnectionLost):
            await waiting


async def test_a_given_pool_lends_one_connection_and_gets_no_listen_back(
    pool: aiopg.Pool, observer: Any
) -> None:
    connector = AiopgConnector()
    await connector.open_async(pool)
    async with connector.listen(["one"]) as heard:
        observer.sql("select pg_notify('one', 'a')")
        assert await anext(heard) == Notification("one", "a")
        assert pool.size - pool.freesize == 1
    assert pool.size - pool.freesize == 0
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("select pg_listening_channels()")
        assert await cursor.fetchall() == []
    await connector.close_async()


async def test_a_given_pool_of_one_cannot_listen(procrastinate_dsn: str) -> None:
    async with aiopg.create_pool(procrastinate_dsn, maxsize=1) as pool:
        connector = AiopgConnector()
        await connector.open_async(pool)
        with pytest.raises(ConfigurationError, match="listen_dsn"):
            async with connector.listen(["one"]):
                pass


async def test_listen_dsn_is_where_it_listens(
    pool: aiopg.Pool, procrastinate_dsn: str, observer: Any
) -> None:
    elsewhere = f"{procrastinate_dsn} application_name=direct"
    if "://" in procrastinate_dsn:
        mark = "&" if "?" in procrastinate_dsn else "?"
        elsewhere = f"{procrastinate_dsn}{mark}application_name=direct"
    connector = AiopgConnector(listen_dsn=elsewhere)
    await connector.open_async(pool)
    async with connector.listen(["one"]):
        direct = "where application_name = 'direct' and datname = current_database()"
        statements = observer.sql(f"select query from pg_stat_activity {direct}")
        assert statements == [('LISTEN "one"',)]
    await connector.close_async()


async def test_a_listener_that_cannot_connect_says_so(pool: aiopg.Pool) -> None:
    connector = AiopgConnector(listen_dsn="host=127.0.0.1 port=1")
    await connector.open_async(pool)
    with pytest.raises(ConnectionFailed):
        async with connector.listen(["one"]):
            pass


@pytest.mark.parametrize(
    ("size", "listens_elsewhere", "refused"),
    [
        *((1, False, True), (2, False, True), (3, False, False), (0, False, False)),
        *((1, True, True), (2, True, False)),
    ],
)
async def test_a_pool_too_small_for_a_worker_is_refused_with_the_number(
    procrastinate_dsn: str, size: int, listens_elsewhere: bool, refused: bool
) -> None:
    """With 0, the pool has no limit."""
    async with aiopg.create_pool(procrastinate_dsn, minsize=0, maxsize=size) as pool:
        connector = AiopgConnector(listen_dsn=procrastinate_dsn if listens_elsewhere else None)
        await connector.open_async(pool)
        if refused:
            needed = 2 if listens_elsewhere else 3
            with pytest.raises(ConfigurationError, match=rf"{size} connections .* takes {needed}:"):
                connector.check_for_worker()
        else:
            connector.check_for_worker()
        await connector.close_async()
