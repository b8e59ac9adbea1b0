"""What must come to its end does so, however often the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procrastinate.cancellation import end_of
from procrastinate.connector_tools.calls import to_its_end
from procrastinate.threads import in_thread


class Blocking:
    """A function that blocks its thread until it may end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end, self.has_ended = threading.Event(), threading.Event(), False
        self._error = error

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(10)
        self.has_ended = True
        if self._error is not None:
            raise self._error
        return "done"


async def _cancelled(task: asyncio.Task[Any], times: int, function: Blocking) -> None:
    """Cancel a task that runs a function in a thread, in several turns of the loop."""
    while not function.begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.005)
        assert not task.done()
    function.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert function.has_ended


async def _to_its_end_in_thread(function: Callable[[], str]) -> str:
    return await to_its_end(asyncio.to_thread(function), lambda: None)


@pytest.mark.parametrize("run", [in_thread, _to_its_end_in_thread])
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_a_call_has_ended_when_its_cancellation_is_raised(
    run: Any, times: int, error: Exception | None
) -> None:
    async def main() -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
        function = Blocking(error)
        await _cancelled(asyncio.create_task(run(function)), times, function)
        return said

    assert asyncio.run(main()) == []


def test_a_call_that_is_not_cancelled_returns_or_raises() -> None:
    def raises() -> None:
        raise ValueError("no")

    assert asyncio.run(in_thread(lambda: 1)) == 1
    with pytest.raises(ValueError, match="no"):
        asyncio.run(in_thread(raises))


def test_the_last_cancellation_is_returned() -> None:
    async def main() -> tuple[asyncio.CancelledError | None, asyncio.CancelledError | None]:
        future = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(end_of(future))
        for word in ("first", "second"):
            await asyncio.sleep(0)
            waiting.cancel(word)
        await asyncio.sleep(0)
        future.set_result(None)
        return await waiting, await end_of(future)

    last, none = asyncio.run(main())
    assert last is not None
    assert last.args == ("second",)
    assert none is None
