"""Calls that a cancellation of their task does not interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from procrastinate.connector_tools import calls
from procrastinate.connector_tools.calls import Uninterrupted, to_its_end
from procrastinate.errors import ConnectionLost

Way = Callable[[Coroutine[Any, Any, Any], Callable[[], object]], Coroutine[Any, Any, Any]]


async def in_this_task(call: Coroutine[Any, Any, Any], hurry: Callable[[], object]) -> Any:
    return await Uninterrupted(call, hurry)


@pytest.fixture(params=[in_this_task, to_its_end], ids=["same_task", "own_task"])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def never() -> None:
    raise AssertionError("nobody was to hurry")


class Driver:
    """A call that waits for an answer, and notes how it ended."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.began = asyncio.Event()
        self.ended = ""

    async def call(self) -> str:
        self.began.set()
        try:
            await asyncio.sleep(0)
            result = await self.answer
        except BaseException as exc:
            self.ended = type(exc).__name__
            raise
        self.ended = result
        return result


async def test_the_result_is_returned(way: Way) -> None:
    driver = Driver()
    driver.answer.set_result("rows")
    assert await way(driver.call(), never) == "rows"


async def test_the_driver_sees_its_own_error(way: Way) -> None:
    driver = Driver()
    asyncio.get_running_loop().call_soon(driver.answer.set_exception, KeyError("x"))
    with pytest.raises(KeyError):
        await way(driver.call(), never)
    assert driver.ended == "KeyError"


async def test_a_cancellation_of_the_driver_s_own_is_a_lost_connection(way: Way) -> None:
    """asyncpg cancels what it waits for, if its own time limit is over and the server silent."""
    driver = Driver()
    asyncio.get_running_loop().call_soon(driver.answer.cancel)
    with pytest.raises(ConnectionLost, match="the driver gave the call up"):
        await way(driver.call(), never)
    assert driver.ended == "CancelledError"


async def test_a_cancellation_waits_for_the_call(way: Way) -> None:
    driver = Driver()
    task = asyncio.ensure_future(way(driver.call(), never))
    await driver.began.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    driver.answer.set_result("rows")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert driver.ended == "rows"


async def test_an_error_after_a_cancellation_is_its_cause(way: Way) -> None:
    driver = Driver()
    task = asyncio.ensure_future(way(driver.call(), never))
    await driver.began.wait()
    task.cancel()
    await asyncio.sleep(0)
    driver.answer.set_exception(KeyError("x"))
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_call_that_does_not_end_is_hurried(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 0.0)
    driver = Driver()
    task = asyncio.ensure_future(
        way(driver.call(), lambda: driver.answer.set_exception(OSError("shut down")))
    )
    await driver.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert driver.ended == "OSError"


async def test_a_future_that_the_driver_cancelled_is_no_cancellation_of_the_task() -> None:
    driver = Driver()
    asyncio.get_running_loop().call_soon(driver.answer.cancel)

    async def call() -> str:
        try:
            return await driver.call()
        except asyncio.CancelledError:
            return "the server has cancelled it"

    assert await Uninterrupted(call(), never) == "the server has cancelled it"


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_time_limit_of_the_driver_s_own_is_no_cancellation(is_cancelled: bool) -> None:
    driver = Driver()
    limit = asyncio.timeout(None)

    async def call() -> str:
        async with limit:
            return await driver.call()

    task = asyncio.ensure_future(in_this_task(call(), never))
    await driver.began.wait()
    limit.reschedule(0)
    while not limit.expired() and task.cancelling() == 0:
        await asyncio.sleep(0)
    if is_cancelled:
        task.cancel()
    driver.answer.set_result("rows")
    await asyncio.wait([task])
    assert limit.expired()
    assert task.cancelled() == is_cancelled
    assert is_cancelled or task.result() == "rows"
