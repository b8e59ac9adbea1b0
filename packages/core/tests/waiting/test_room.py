"""Waiting for the end of a job: the process's rows, its listener, and what comes in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import procrastinate
from procrastinate.waiting.room import WaitingRoom

Query = Callable[..., list[tuple[Any, ...]]]
Until = Callable[..., Awaitable[None]]
End = Callable[..., None]
Rows = Callable[[], list[int]]

LONG = 30.0  # seconds that no wait of these tests takes


@pytest.fixture(params=["aiopg", "psycopg", "asyncpg"])
async def app(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[procrastinate.App]:
    """An open app on each driver that can listen."""
    name = request.param
    url = dsn.replace("postgresql://", f"{name}://", 1)
    async with procrastinate.App(connector=url).open_async() as app:
        yield app


@pytest.fixture
def room(app: procrastinate.App) -> WaitingRoom:
    return app._gateway.waiting_room


async def deferred(app: procrastinate.App, count: int = 1) -> list[int]:
    return await app.configure_task("t").batch_defer_async(*[{"n": n} for n in range(count)])


async def test_a_wait_ends_with_the_job(
    app: procrastinate.App, room: WaitingRoom, end: End, until: Until, waiting: Rows
) -> None:
    first, second = await deferred(app, 2)
    ends = [
        asyncio.ensure_future(room.until_ended_async(first, timeout=LONG)),
        asyncio.ensure_future(room.until_ended_async(first, timeout=LONG)),
        asyncio.ensure_future(room.until_ended_async(second, timeout=None)),
        asyncio.ensure_future(asyncio.to_thread(room.until_ended, second, timeout=None)),
    ]
    await until(lambda: waiting() == [first, second])
    end(first)
    one, same = await asyncio.gather(*ends[:2])
    assert one is not None
    assert (one, one.id, one.status, one.task_kwargs) == (same, first, "succeeded", {"n": 0})
    assert not ends[2].done()
    end(second, status="failed")
    assert [job.status for job in await asyncio.gather(*ends[2:]) if job] == ["failed"] * 2
    await until(lambda: waiting() == [])


async def test_many_wait_and_leave_no_row(
    app: procrastinate.App, room: WaitingRoom, end: End, until: Until, waiting: Rows
) -> None:
    ids = await deferred(app, 3_000)
    tasks = [asyncio.ensure_future(room.until_ended_async(each, timeout=None)) for each in ids]
    await until(lambda: len(waiting()) == len(ids))
    for start in range(0, len(ids), 300):
        end(*ids[start : start + 300])
    jobs = await asyncio.gather(*tasks)
    assert [job.id for job in jobs if job] == ids
    await until(lambda: waiting() == [])
