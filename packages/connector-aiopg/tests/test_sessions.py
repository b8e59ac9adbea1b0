"""Connections of the pool: found dead, exhausted, spoilt; and the caller's own."""

from __future__ import annotations

import asyncio
from typing import Any

import aiopg
import psycopg2.extras
import pytest
from silence import SilentProxy

from procrastinate.connector import Query
from procrastinate.errors import (
    AppNotOpen,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    PoolTimeout,
    UniqueViolation,
)
from procrastinate_aiopg import AiopgConnector, pools
from procrastinate_aiopg.held import Held
from procrastinate_aiopg.sessions import bound
from procrastinate_psycopg2.driver import sever

ONE = Query("one", "select 1")
PID = Query("pid", "select pg_backend_pid()")
INSERT = Query("insert", "insert into things values (%(name)s::text)", {"name": "a"})


async def _run(connector: AiopgConnector, *queries: Query, **options: Any) -> Any:
    async with connector.session_async(**options) as session:
        return [await session.execute(query) for query in queries][-1]


async def test_a_connection_that_the_server_dropped_is_replaced_unseen(
    either: Any, observer: Any
) -> None:
    """The event loop has no turn in between to notice."""
    [(pid,)] = await _run(either, PID)
    observer.kill(pid)
    [(other,)] = await _run(either, PID)
    assert other != pid


async def test_a_dropped_connection_is_replaced_when_the_loop_noticed(
    either: Any, observer: Any
) -> None:
    [(pid,)] = await _run(either, PID)
    observer.kill(pid)
    for _ in range(5):
        await asyncio.sleep(0.01)
    [(other,)] = await _run(either, PID)
    assert other != pid


async def test_a_pool_full_of_dropped_connections_works_on(either: Any, observer: Any) -> None:
    async with either.session_async() as a, either.session_async() as b:
        pids = [(await s.execute(PID))[0][0] for s in (a, b)]
    for pid in pids:
        observer.kill(pid)
    async with either.session_async() as a, either.session_async() as b:
        assert [await a.execute(ONE), await b.execute(ONE)] == [[(1,)], [(1,)]]


async def test_a_connection_killed_in_use_is_lost_and_not_given_out_again(
    either: Any, observer: Any
) -> None:
    async with either.session_async() as session:
        [(pid,)] = await session.execute(PID)
        task = asyncio.create_task(session.execute(Query("sleep", "select pg_sleep(10)")))
        await asyncio.sleep(0)
        observer.kill(pid)
        with pytest.raises(ConnectionLost):
            await task
    assert await _run(either, PID) != [(pid,)]


async def test_an_exhausted_pool_is_a_pool_timeout(procrastinate_dsn: str) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn, maxsize=1, pool_timeout=0.2)
    await connector.open_async()
    async with connector.session_async():
        with pytest.raises(PoolTimeout, match=r"0\.2 seconds"):
            await _run(connector, ONE)
    assert await _run(connector, ONE) == [(1,)]
    await connector.close_async()


async def test_an_exhausted_given_pool_is_a_pool_timeout(procrastinate_dsn: str) -> None:
    async with aiopg.create_pool(procrastinate_dsn, maxsize=1) as pool:
        connector = AiopgConnector(pool_timeout=0.1)
        await connector.open_async(pool)
        async with connector.session_async():
            with pytest.raises(PoolTimeout):
                await _run(connector, ONE)
        assert await _run(connector, ONE) == [(1,)]
        assert (pool.size, pool.freesize) == (1, 1)


async def test_the_pools_own_timeout_is_a_pool_timeout(procrastinate_dsn: str) -> None:
    async with aiopg.create_pool(procrastinate_dsn, maxsize=1, timeout=0.1) as pool:
        connector = AiopgConnector(pool_timeout=None)
        await connector.open_async(pool)
        async with connector.session_async():
            with pytest.raises(PoolTimeout):
                await _run(connector, ONE)


async def test_waiting_coroutines_are_served_as_connections_come_back(connector: Any) -> None:
    pids = await asyncio.gather(*(_run(connector, PID) for _ in range(20)))
    assert len({pid for [(pid,)] in pids}) <= 2


async def test_a_given_pool_is_never_closed(pool: aiopg.Pool) -> None:
    connector = AiopgConnector()
    await connector.open_async(pool)
    await _run(connector, ONE)
    await connector.close_async()
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("select 1")
        assert await cursor.fetchall() == [(1,)]


async def test_a_pool_closed_by_its_owner_is_refused_and_reported(procrastinate_dsn: str) -> None:
    pool = await aiopg.create_pool(procrastinate_dsn)
    connector = AiopgConnector()
    await connector.open_async(pool)
    pool.close()
    await pool.wait_closed()
    with pytest.raises(ConnectorException, match="closed by its owner"):
        await _run(connector, ONE)
    await connector.close_async()
    with pytest.raises(InvalidOption, match="is closed"):
        await connector.open_async(pool)


async def test_anything_but_an_aiopg_pool_is_refused(connector: Any) -> None:
    with pytest.raises(InvalidOption, match=r"aiopg\.Pool"):
        await AiopgConnector().open_async(object())


async def test_opening_twice_is_harmless_and_another_pool_is_refused(
    connector: Any, pool: aiopg.Pool
) -> None:
    await connector.open_async()
    with pytest.raises(InvalidOption, match="another pool"):
        await connector.open_async(pool)


async def test_closing_does_not_wait_for_connections_in_use(
    procrastinate_dsn: str, observer: Any
) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn)
    await connector.open_async()
    async with connector.session_async() as session:
        await session.execute(ONE)
        await connector.close_async()
        await connector.close_async()
        with pytest.raises(ConnectionLost):
            await session.execute(ONE)
    with pytest.raises(AppNotOpen):
        connector.session_async()
    observer.until(lambda: observer.others() == 0)


async def test_closing_wakes_those_who_wait_for_a_connection(procrastinate_dsn: str) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn, maxsize=1)
    await connector.open_async()
    async with connector.session_async():
        waiting = asyncio.create_task(_run(connector, ONE))
        await asyncio.sleep(0)
        await connector.close_async()
        with pytest.raises(AppNotOpen):
            await waiting


async def test_a_transaction_commits_at_its_end(either: Any, observer: Any) -> None:
    async with either.session_async(transaction=True) as session:
        await session.execute(INSERT)
        assert observer.count("things") == 0
    assert observer.count("things") == 1


async def test_a_transaction_that_raises_is_rolled_back(either: Any, observer: Any) -> None:
    with pytest.raises(UniqueViolation) as caught:
        await _run(either, INSERT, INSERT, transaction=True)
    assert caught.value.constraint == "things_pkey"
    assert observer.count("things") == 0
    assert await _run(either, ONE) == [(1,)]


async def test_a_failed_statement_that_was_ignored_makes_the_commit_fail(
    either: Any, observer: Any
) -> None:
    block = either.session_async(transaction=True)
    session = await block.__aenter__()
    await session.execute(INSERT)
    with pytest.raises(UniqueViolation):
        await session.execute(INSERT)
    with pytest.raises(ConnectorException, match="rolled back"):
        await block.__aexit__(None, None, None)
    assert observer.count("things") == 0


async def test_a_connection_lost_before_the_commit_is_an_error(either: Any, observer: Any) -> None:
    block = either.session_async(transaction=True)
    session = await block.__aenter__()
    await session.execute(INSERT)
    [(pid,)] = await session.execute(PID)
    observer.kill(pid)
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionLost):
        await block.__aexit__(None, None, None)
    assert observer.count("things") == 0
    assert await _run(either, ONE) == [(1,)]


async def test_a_value_that_cannot_be_sent_is_an_error_and_the_connection_stays(
    either: Any,
) -> None:
    async with either.session_async() as session:
        [(pid,)] = await session.execute(PID)
        with pytest.raises(InvalidData):
            await session.execute(Query("nul", "select %(x)s::text", {"x": "\0"}))
        assert await session.execute(PID) == [(pid,)]


async def test_an_idle_connection_is_replaced_after_pool_recycle(procrastinate_dsn: str) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn, pool_recycle=0)
    await connector.open_async()
    first, second = await _run(connector, PID), await _run(connector, PID)
    assert first != second
    await connector.close_async()


async def test_a_read_only_server_is_lost_and_not_given_out_again(
    procrastinate_dsn: str, observer: Any
) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn)
    await connector.open_async()
    [(pid,)] = await _run(connector, PID)
    read_only = Query("ro", "set local transaction_read_only = on")
    with pytest.raises(ConnectionLost, match="begun as a read-only one") as caught:
        await _run(connector, read_only, INSERT, transaction=True)
    assert caught.value.sqlstate == "25006"
    assert await _run(connector, PID) != [(pid,)]
    await connector.close_async()


async def test_the_owners_factories_and_casters_are_neither_used_nor_changed(
    procrastinate_dsn: str,
) -> None:
    options: Any = {"cursor_factory": psycopg2.extras.RealDictCursor, "enable_json": True}
    async with aiopg.create_pool(procrastinate_dsn, **options) as pool:
        connector = AiopgConnector()
        await connector.open_async(pool)
        rows = await _run(connector, Query("json", """select '{"a": 1}'::jsonb, 1.5::numeric"""))
        assert rows == [('{"a": 1}', 1.5)]
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("""select '{"a": 1}'::jsonb as j""")
            assert [dict(row) for row in await cursor.fetchall()] == [{"j": {"a": 1}}]


# connection=


async def test_a_bound_executor_works_in_the_callers_transaction(
    connector: Any, pool: aiopg.Pool, observer: Any
) -> None:
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("begin")
        await bound(connection).execute(INSERT)
        assert observer.count("things") == 0
        await cursor.execute("rollback")
        await cursor.execute("begin")
        await bound(connection).execute(INSERT)
        await cursor.execute("commit")
    assert observer.count("things") == 1


async def test_a_bound_executor_needs_no_open_connector(pool: aiopg.Pool) -> None:
    async with pool.acquire() as connection:
        assert await bound(connection).execute(ONE) == [(1,)]


async def test_a_bound_connection_in_use_elsewhere_is_an_error(pool: aiopg.Pool) -> None:
    async with pool.acquire() as connection:
        executor = bound(connection)
        task = asyncio.create_task(executor.execute(Query("sleep", "select pg_sleep(0.2)")))
        await asyncio.sleep(0)
        with pytest.raises(ConnectorException, match="another coroutine"):
            await executor.execute(ONE)
        await task


async def test_connections_of_other_kinds_are_refused(observer: Any) -> None:
    with pytest.raises(InvalidOption, match=r"not psycopg2\.extensions\.connection"):
        bound(observer.connection)
    with pytest.raises(InvalidOption, match=r"not builtins\.str"):
        bound("connection")


async def test_a_closed_connection_is_refused(connector: Any, procrastinate_dsn: str) -> None:
    connection = await aiopg.connect(procrastinate_dsn)
    await connection.close()
    with pytest.raises(InvalidOption, match="closed"):
        bound(connection)


async def test_a_connection_given_back_to_its_pool_is_refused(pool: aiopg.Pool) -> None:
    """The pool gives the same object to the next user, whose transaction it would join."""
    connector = AiopgConnector()
    await connector.open_async(pool)
    async with pool.acquire() as connection:
        assert await bound(connection).execute(Query("one", "select 1")) == [(1,)]
    with pytest.raises(InvalidOption, match="was given back to its pool"):
        bound(connection)
    async with pool.acquire() as again:
        assert again is connection
        assert await bound(again).execute(Query("one", "select 1")) == [(1,)]
    await connector.close_async()


async def test_a_large_answer_takes_few_turns_of_a_busy_loop(connector: Any, observer: Any) -> None:
    """libpq takes 16 KiB at a time, and in each turn of a busy worker's loop much else is done."""
    large = Query("large", "select repeat('x', 1000) from generate_series(1, 150)")
    sent = (
        "pg_stat_activity where pid = %s and query like '%%generate_series%%'"
        " and (state = 'idle' or wait_event = 'ClientWrite')"
    )
    turns = 0

    async def keep_busy() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            observer.until(lambda: observer.count(sent, pid))
            turns += 1

    async with connector.session_async() as session:
        [(pid,)] = await session.execute(PID)
        busy = asyncio.create_task(keep_busy())
        rows = await session.execute(large)
        busy.cancel()

    assert len(rows) == 150
    assert turns < 150_000 / 16_384


async def test_a_counterpart_of_a_large_pool_holds_one_connection(
    procrastinate_dsn: str, observer: Any
) -> None:
    """A worker's companion has a counterpart of its own, and uses it from one thread."""
    dsn = f"{procrastinate_dsn}&application_name=large"
    connector = AiopgConnector(dsn=dsn, minsize=10)
    counterpart = connector.sync_connector()

    counterpart.open()
    for _ in range(3):
        with counterpart.session() as session:
            session.execute(Query("one", "select 1"))

    assert observer.count("pg_stat_activity where application_name = 'large'") == 1
    counterpart.close()


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [({}, None, 10), ({}, 4.0, 4), ({"timeout": 3.0}, 4.0, 3), ({"connect_timeout": 7}, 4.0, 7)],
)
def test_a_counterpart_connects_in_the_time_that_the_user_or_the_worker_gives(
    given: dict[str, Any], asked: float | None, expected: int
) -> None:
    counterpart = AiopgConnector(**given).sync_connector(connect_timeout=asked)

    assert counterpart._arguments["connect_timeout"] == expected


async def test_after_a_silent_connection_those_of_the_application_s_pool_have_to_answer_first(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its idle connections are as silent; each would cost a whole time limit otherwise."""
    monkeypatch.setattr(pools, "PROOF_MAY_TAKE", 0.1)
    with SilentProxy(procrastinate_dsn) as proxy:
        pool = await aiopg.create_pool(proxy.dsn, minsize=5, maxsize=5)
        connector = AiopgConnector()
        await connector.open_async(pool)
        proxy.hush()
        with pytest.raises(ConnectionLost):
            async with connector.session_async() as session:
                asyncio.get_running_loop().call_later(0.1, session.sever)
                await session.execute(ONE)
        async with asyncio.timeout(30):  # a silent one would be waited for without end
            for _ in range(3):
                async with connector.session_async() as session:
                    assert await session.execute(ONE) == [(1,)]
        await connector.close_async()
        pool.terminate()
        await pool.wait_closed()


async def test_a_connection_that_is_severed_as_it_proves_itself_is_not_given_out(
    pool: aiopg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit of its proof may pass in the turn of the loop in which it answers."""
    connector = AiopgConnector()
    await connector.open_async(pool)
    command, severed = Held.command, []

    async def answered_too_late(self: Held, sql: str) -> None:
        await command(self, sql)
        if not severed:
            severed.append(self.raw.info.backend_pid)
            sever(self.raw)

    monkeypatch.setattr(Held, "command", answered_too_late)
    connector._opened.here().discard_idle()
    [(pid,)] = await _run(connector, PID)

    assert len(severed) == 1
    assert pid not in severed
    assert (pool.size, pool.freesize) == (1, 1)
    await connector.close_async()


async def test_a_connection_that_its_owner_closed_is_lost(procrastinate_dsn: str) -> None:
    async with aiopg.connect(procrastinate_dsn) as connection:
        executor = bound(connection)
    with pytest.raises(ConnectionLost):
        await executor.execute(ONE)


async def test_a_connection_of_another_event_loop_is_refused(procrastinate_dsn: str) -> None:
    """Before anything is sent: its answer would come in the other loop."""
    loop = asyncio.new_event_loop()

    async def connected() -> aiopg.Connection:
        return await aiopg.connect(procrastinate_dsn)

    connection = await asyncio.to_thread(loop.run_until_complete, connected())
    try:
        with pytest.raises(InvalidOption, match="made in another event loop"):
            bound(connection)
    finally:
        connection.close()
        loop.close()


async def test_the_sibling_of_a_pool_leads_where_the_pool_does(procrastinate_dsn: str) -> None:
    connector = AiopgConnector(schema="mine")
    async with aiopg.create_pool(procrastinate_dsn, minsize=3) as pool:
        await connector.open_async(pool)
        sibling = connector.sibling(max_connections=1, connect_timeout=3.0)
        await sibling.open_async()
        where = await _run(sibling, Query("where", "select current_database()"))
        async with sibling.listen(["a"]):
            pass
        await sibling.close_async()
        await connector.close_async()
    assert (f"/{where[0][0]}?" in f"{procrastinate_dsn}?", sibling.schema) == (True, "mine")
