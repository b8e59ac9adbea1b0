"""The threads of plain tasks: every call is reported, whatever happens in its thread."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Iterator
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


#: Not under coverage: on Python 3.11, a traced thread stands still while an exception for
#: another thread has not arrived there.
untraced = pytest.mark.slow


@untraced
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


@untraced
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


async def test_a_call_without_a_future_tells_what_it_returned_and_what_it_raised(
    threads: TaskThreads,
) -> None:
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number")
    context = contextvars.copy_context()
    context.run(number.set, 7)
    told: list[tuple[Any, BaseException | None]] = []
    both = asyncio.Event()

    def note(result: Any, exception: BaseException | None) -> None:
        told.append((result, exception))
        if len(told) == 2:
            both.set()

    error = ValueError("no")
    threads.run(number.get, context, note)
    threads.run(raising(error), context, note)
    async with asyncio.timeout(10):
        await both.wait()

    assert told == [(7, None), (None, error)]


def raising(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


async def test_calls_that_follow_each_other_leave_the_loop_to_others(threads: TaskThreads) -> None:
    """Each end begins the next call at once, and that one ends before its turn is over."""
    ends = 0
    enough = asyncio.Event()

    def again(result: Any, exception: BaseException | None) -> None:
        nonlocal ends
        ends += 1
        if enough.is_set() or ends == 20_000:
            return
        threads.run(lambda: None, contextvars.copy_context(), again)
        while len(threads._ended) == 1:  # only this one: until the next call has ended, too
            pass

    asyncio.get_running_loop().call_later(0.01, enough.set)
    threads.run(lambda: None, contextvars.copy_context(), again)
    async with asyncio.timeout(10):
        await enough.wait()

    assert ends < 20_000
