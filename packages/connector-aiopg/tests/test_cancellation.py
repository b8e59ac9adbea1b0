"""A cancelled task never leaves a statement half-way, and a cancelled statement cancels no task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiopg
import pytest
from silence import SilentProxy

from procrastinate.connector import Query
from procrastinate.connector_tools import calls
from procrastinate.errors import QueryCanceled
from procrastinate_aiopg import AiopgConnector

# It takes long enough to be seen while it runs, also on a busy machine.
SLOW_INSERT = Query("slow", "insert into things select 'a' from (select pg_sleep(1.5)) as s")
PID = Query("pid", "select pg_backend_pid()")

#: Statements like this under way in the test's own database: other tests share the server.
ACTIVE = """
    pg_stat_activity where datname = current_database() and state = 'active'
    and pid <> pg_backend_pid() and query like %s
"""


async def _under_way(observer: Any, sql: str = "%pg_sleep%") -> None:
    """Wait until the server executes a statement."""
    await asyncio.to_thread(observer.until, lambda: observer.count(ACTIVE, sql) > 0)


async def _insert(connector: AiopgConnector, **options: Any) -> None:
    async with connector.session_async(**options) as session:
        await session.execute(SLOW_INSERT)


async def test_a_cancelled_task_ends_after_its_statement(either: Any, observer: Any) -> None:
    task = asyncio.create_task(_insert(either))
    await _under_way(observer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.sql("select name from things") == [("a",)]


async def test_the_connection_of_a_cancelled_task_is_used_again(
    connector: Any, observer: Any
) -> None:
    async with connector.session_async() as session:
        before = await session.execute(PID)
    task = asyncio.create_task(_insert(connector))
    await _under_way(observer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with connector.session_async() as session:
        assert await session.execute(PID) == before


async def test_cancelling_twice_changes_nothing(connector: Any, observer: Any) -> None:
    task = asyncio.create_task(_insert(connector))
    await _under_way(observer)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.count("things") == 1


async def test_a_cancelled_transaction_is_rolled_back(either: Any, observer: Any) -> None:
    task = asyncio.create_task(_insert(either, transaction=True))
    await _under_way(observer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.count("things") == 0


async def test_a_task_cancelled_during_commit_has_committed(connector: Any, observer: Any) -> None:
    observer.sql(
        "create function doze() returns trigger language plpgsql as"
        " 'begin perform pg_sleep(1.5); return null; end'"
    )
    observer.sql(
        "create constraint trigger doze after insert on things initially deferred"
        " for each row execute function doze()"
    )

    async def insert() -> None:
        async with connector.session_async(transaction=True) as session:
            await session.execute(Query("insert", "insert into things values ('a')"))

    task = asyncio.create_task(insert())
    await _under_way(observer, "COMMIT")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.count("things") == 1


async def test_cancelling_every_task_interrupts_no_statement(
    procrastinate_dsn: str, observer: Any
) -> None:
    """As `asyncio.run` does at its end."""
    connector = AiopgConnector(dsn=procrastinate_dsn)

    def end_of_a_program() -> None:
        async def main() -> None:
            await connector.open_async()
            inserting = asyncio.create_task(_insert(connector))
            await _under_way(observer)
            assert not inserting.done()

        asyncio.run(main())

    await asyncio.to_thread(end_of_a_program)
    assert observer.count("things") == 1
    await connector.close_async()


async def test_a_timeout_around_a_call_is_a_timeout(connector: Any, observer: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await _insert(connector)
    assert observer.count("things") == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_wait_for_around_a_call_is_a_timeout(connector: Any, observer: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_insert(connector), 0.1)
    assert observer.count("things") == 1


async def test_a_statement_that_lasts_loses_its_connection(
    connector: Any, observer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement goes on until the test lets it, which is after the task has ended."""
    monkeypatch.setattr(calls, "PATIENCE", 0.1)
    lasting = "insert into things select 'a' from (select pg_advisory_xact_lock(1)) as s"

    async def last() -> None:
        async with connector.session_async(transaction=True) as session:
            await session.execute(Query("last", lasting))

    observer.sql("select pg_advisory_lock(1)")
    task = asyncio.create_task(last())
    await _under_way(observer, "%pg_advisory_xact_lock%")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    async with connector.session_async() as session:
        assert await session.execute(Query("one", "select 1")) == [(1,)]
    observer.sql("select pg_advisory_unlock(1)")
    while observer.count(ACTIVE, "%pg_advisory_xact_lock%"):
        await asyncio.sleep(0.01)
    assert observer.count("things") == 0, "a transaction without its client was committed"


async def test_a_server_that_falls_silent_does_not_stop_the_event_loop(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg2's cancel() would hold the interpreter's lock until such a server answers."""
    monkeypatch.setattr(calls, "PATIENCE", 0.1)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    with SilentProxy(procrastinate_dsn) as proxy:
        connector = AiopgConnector(dsn=proxy.dsn)
        await connector.open_async()
        watching = asyncio.create_task(watch())
        async with asyncio.timeout(30):
            with pytest.raises(TimeoutError):
                async with connector.session_async() as session:
                    proxy.hush(new=True)
                    async with asyncio.timeout(0.1):
                        await session.execute(Query("one", "select 1"))
        await asyncio.sleep(0.5)
        watching.cancel()
        await connector.close_async()
    assert longest < 10.0


async def test_a_statement_timeout_is_an_error_and_cancels_no_task(either: Any) -> None:
    async with either.session_async() as session:
        with pytest.raises(QueryCanceled) as caught:
            await session.execute(
                Query("slow", "set local statement_timeout = 50; select pg_sleep(5)")
            )
        assert caught.value.sqlstate == "57014"
        assert await session.execute(Query("one", "select 1")) == [(1,)]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_pg_cancel_backend_is_an_error_and_cancels_no_task(
    either: Any, observer: Any
) -> None:
    async with either.session_async() as session:
        [(pid,)] = await session.execute(PID)
        task = asyncio.create_task(session.execute(Query("sleep", "select pg_sleep(5)")))
        await _under_way(observer)
        observer.sql("select pg_cancel_backend(%s)", pid)
        with pytest.raises(QueryCanceled):
            await task
        assert await session.execute(PID) == [(pid,)]


async def test_a_given_pool_keeps_the_promise_too(
    pool: aiopg.Pool, procrastinate_dsn: str, observer: Any
) -> None:
    """There, aiopg's own timeouts are armed."""
    short = await aiopg.create_pool(procrastinate_dsn, timeout=0.2)
    connector = AiopgConnector()
    await connector.open_async(short)
    await _insert(connector)
    assert observer.count("things") == 1
    await connector.close_async()
    short.close()
    await short.wait_closed()


async def test_a_cancelled_wait_for_a_connection_loses_none(connector: Any) -> None:
    async with connector.session_async(), connector.session_async():
        waiting = [asyncio.create_task(_one(connector)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in done] == [asyncio.CancelledError] * 3
    results = await asyncio.gather(*(_one(connector) for _ in range(10)))
    assert results == [[(1,)]] * 10


async def test_a_waiter_cancelled_as_its_turn_comes_passes_it_on(connector: Any) -> None:
    first, second = connector.session_async(), connector.session_async()
    await first.__aenter__()
    await second.__aenter__()
    waiting = [asyncio.create_task(_one(connector)) for _ in range(2)]
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert await waiting[1] == [(1,)]
    await second.__aexit__(None, None, None)


async def _one(connector: AiopgConnector) -> Any:
    async with connector.session_async() as session:
        return await session.execute(Query("one", "select 1"))
