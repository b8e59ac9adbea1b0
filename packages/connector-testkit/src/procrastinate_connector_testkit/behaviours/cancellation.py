"""Cancelled tasks: a call to the database ends first, then the cancellation is delivered."""

from __future__ import annotations

import asyncio

import pytest

from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.sessions import (
    scratch,
    states,
    stored,
    until_idle,
)
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject

CONTRACT = "AsyncConnector.session_async: a call is never interrupted half-way by a cancellation"
#: It takes long enough to be seen while it runs, also on a busy machine.
SLOW_INSERT = "insert into kit_rows select 1 from pg_sleep(1.5)"


async def running(db: Subject) -> None:
    """Wait until the slow statement runs on the server."""
    sql = (
        "select pid from pg_stat_activity where datname = current_database()"
        " and state = 'active' and query like '%pg_sleep(1.5)%' and pid <> pg_backend_pid()"
    )
    await db.eventually("the statement runs", lambda: db.outside(sql))


class Cancellation:
    """Of tasks that wait for the database."""

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
    @behaviour(CONTRACT, ways="own")
    async def test_cancellation_waits_for_the_statement(self, db: Subject, times: int) -> None:
        """When the task has ended, so has its statement; and the connector goes on."""
        await scratch(db)
        task = asyncio.create_task(db.sql(SLOW_INSERT))
        await running(db)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stored(db) == [1], "the task ended before its statement"
        assert await db.value("select 1") == 1

    @behaviour(3, CONTRACT, ways="own")
    async def test_cancellation_rolls_a_transaction_back(self, db: Subject) -> None:
        await scratch(db)
        pids: list[int] = []

        async def work() -> None:
            async with entered(db.session(transaction=True)) as session:
                pids.append(await session.value("select pg_backend_pid()"))
                await session.sql(SLOW_INSERT)
                await session.sql("insert into kit_rows values (2)")

        task = asyncio.create_task(work())
        await running(db)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await states(db, pids) == [], "the statement or its transaction is still under way"
        assert await stored(db) == []
        assert await db.value("select 1") == 1

    @behaviour(CONTRACT, ways="own")
    async def test_cancellation_between_statements_loses_no_connection(self, db: Subject) -> None:
        """However often a task is cancelled inside of a session, there are connections left."""
        pids: list[int] = []

        async def work(inside: asyncio.Event) -> None:
            async with entered(db.session(transaction=True)) as session:
                pids.append(await session.value("select pg_backend_pid()"))
                inside.set()
                await asyncio.sleep(60)

        for _ in range(20):
            inside = asyncio.Event()
            task = asyncio.create_task(work(inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until_idle(db, pids)
        assert await db.value("select 1") == 1

    @behaviour(CONTRACT, ways="own")
    async def test_cancellation_at_any_moment_loses_no_connection(self, db: Subject) -> None:
        """Also while a connection is being made, taken, or given back."""

        async def work() -> None:
            async with entered(db.session(transaction=True)) as session:
                await session.sql("select 1")

        for steps in range(60):
            task = asyncio.create_task(work())
            for _ in range(steps % 20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await asyncio.gather(*(db.value("select 1") for _ in range(8))) == [1] * 8
