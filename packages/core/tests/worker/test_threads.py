"""The threads of plain tasks: every call is reported, whatever happens in its thread."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from procrastinate.worker.threads import TaskThreads


@pytest.fixture
def threads() -> Iterator[TaskThreads]:
    threads = TaskThreads(1, "test")
    yield threads
    threads.close()


def send(ident: int, kind: type[BaseException]) -> None:
    """Raise an exception in a thread, at its next step."""
    sent = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))
    assert sent == 1


async def outcome(future: asyncio.Future[Any]) -> Any:
    async with asyncio.timeout(10):
        return await future


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_an_exception_that_comes_too_late_for_its_call_spoils_no_other(
    threads: TaskThreads, kind: type[BaseException]
) -> None:
    for _ in range(20):
        ident, exception = await outcome(threads.call(threading.get_ident))
        assert exception is None
        send(ident, kind)
        result, exception = await outcome(threads.call(lambda: "made"))
        # The exception met this call or none: which, depends on where the thread was.
        assert (result, exception) == ("made", None) or type(exception) is kind
        assert await outcome(threads.call(lambda: "next")) == ("next", None)


async def test_an_exception_that_is_sent_to_a_thread_that_waits_loses_no_call(
    threads: TaskThreads,
) -> None:
    ident, _ = await outcome(threads.call(threading.get_ident))
    while threads._turn.qsize():  # until the thread waits for its next turn
        await asyncio.sleep(0)
    send(ident, SystemExit)

    assert await outcome(threads.call(lambda: "made")) == ("made", None)


async def test_a_call_that_is_waited_for_again_after_a_cancellation_is_reported(
    threads: TaskThreads,
) -> None:
    go_on = threading.Event()
    future = threads.call(go_on.wait)
    future.cancel()
    again = threads.wait_again(future)
    again.cancel()
    third = threads.wait_again(again)
    go_on.set()

    assert await outcome(third) == (True, None)


async def test_a_thread_that_cannot_be_started_fails_the_call_and_not_the_next_one(
    threads: TaskThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            threads.call(lambda: "lost")

    assert await outcome(threads.call(lambda: "made")) == ("made", None)


async def test_if_no_more_threads_can_be_started_those_there_are_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = TaskThreads(2, "test")
    go_on = threading.Event()
    first = threads.call(go_on.wait)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = threads.call(lambda: "second")
    go_on.set()

    assert [await outcome(each) for each in (first, second)] == [(True, None), ("second", None)]
    threads.close()
