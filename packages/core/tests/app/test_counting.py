"""Exact counts of the jobs in one state, by queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import InvalidOption, QueryCanceled
from procrastinate.model.states import State
from procrastinate.testing import InMemoryConnector


@pytest.fixture(params=["memory", "database"])
async def app(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[procrastinate.App]:
    """An open app. (By name, ``dsn`` is what says that tests run on many partitions too.)"""
    connector: Any = InMemoryConnector()
    if request.param == "database":
        connector = procrastinate.AiopgConnector(dsn=dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app


async def test_each_state_is_counted_by_queue(app: procrastinate.App) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    @app.task(queue="a", lock="one at a time")
    async def work() -> None:
        running.set()
        await go_on.wait()

    @app.task(queue="b")
    async def good() -> None: ...

    @app.task(queue="b")
    async def bad() -> None:
        raise ValueError

    await good.batch_defer_async({}, {})
    await bad.defer_async()
    await app.run_worker_async(wait=False, queues=["b"])
    cancelled = await good.defer_async()
    await app.job_manager.cancel_job_by_id_async(cancelled)
    await work.defer_async()
    await good.configure(schedule_in=timedelta(hours=1)).defer_async()
    await good.configure(queue="c").defer_async()
    async with app.worker(queues=["a"]):
        await running.wait()
        await work.batch_defer_async({}, {})
        await app.run_worker_async(wait=False, queues=["a"])  # puts them behind the lock
        found = {state: await app.queue_manager.count_async(state) for state in State}
        go_on.set()
    assert found == {
        State.READY: {"c": 1},
        State.SCHEDULED: {"b": 1},
        State.BEHIND_A_LOCK: {"a": 2},
        State.RUNNING: {"a": 1},
        State.SUCCEEDED: {"b": 2},
        State.FAILED: {"b": 1},
        State.CANCELLED: {"b": 1},
        State.ABORTED: {},
    }
    assert await asyncio.to_thread(app.queue_manager.count, "failed") == {"b": 1}


async def test_a_count_that_takes_too_long_is_an_error(dsn: str) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        async with connector.session_async(transaction=True) as session:
            lock = "lock table procrastinate_jobs in access exclusive mode"
            await session.execute(procrastinate.connector.Query("lock", lock))
            with pytest.raises(QueryCanceled):
                await app.queue_manager.count_async("ready", timeout=0.1)
        assert await app.queue_manager.count_async("ready", timeout=30) == {}


@pytest.mark.parametrize(
    "given", [{"state": "waiting"}, {"state": None}, {"state": "ready", "timeout": 0}]
)
async def test_a_wrong_value_is_named(given: dict[str, Any]) -> None:
    async with procrastinate.App(connector=InMemoryConnector()).open_async() as app:
        with pytest.raises(InvalidOption, match=next(reversed(given))):
            await app.queue_manager.count_async(**given)
