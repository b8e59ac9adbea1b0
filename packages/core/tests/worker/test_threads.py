"""The threads of plain tasks: every call is reported, whatever happens in its thread."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import dis
import functools
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from procrastinate.worker.running.threads import TaskThreads


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


async def test_a_thread_that_goes_on_with_an_offer_is_busy() -> None:
    """So another call gets another thread."""
    threads = TaskThreads(2, "test")
    begun, go_on = threading.Event(), threading.Event()

    def offered() -> None:
        begun.set()
        go_on.wait(10)

    threads.offer(offered, contextvars.copy_context(), lambda result, exception: None)
    first = Told(1)
    first.run(threads, lambda: None)
    await first.all()
    assert begun.wait(10)

    assert await outcome(threads.call(lambda: "other")) == ("other", None)
    assert threads.offers_left == 0
    go_on.set()
    threads.close()


async def test_an_offer_is_made_after_a_call_or_taken_back_and_never_both(
    threads: TaskThreads,
) -> None:
    made = 0

    def offered() -> None:
        nonlocal made
        made += 1

    taken_back = 0
    for _ in range(300):
        threads.offer(offered, contextvars.copy_context(), lambda result, exception: None)
        call = Told(1)
        call.run(threads, lambda: None)
        taken_back += threads.take_back_offer()
        await call.all()
    await outcome(threads.call(lambda: None))

    assert made + taken_back == 300


async def test_an_offer_that_is_started_is_made_without_an_end_before_it(
    threads: TaskThreads,
) -> None:
    made = asyncio.Event()
    threads.offer(lambda: "made", contextvars.copy_context(), lambda result, exception: made.set())
    threads.start_offer()
    threads.start_offer()  # there is none any more

    async with asyncio.timeout(10):
        await made.wait()
    assert not threads.take_back_offer()


async def test_the_loop_is_not_woken_for_each_end_while_a_thread_goes_on_by_itself(
    threads: TaskThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    woken = 0
    wake = loop.call_soon_threadsafe

    def counted(*arguments: Any) -> Any:
        nonlocal woken
        woken += 1
        return wake(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    monkeypatch.setattr("procrastinate.worker.running.threads.PAUSE", 60.0)
    told = Told(100)
    begun, turns = threading.Semaphore(0), threading.Semaphore(0)

    def wait_for_turn() -> None:
        begun.release()
        turns.acquire()

    told.offer(threads, 99, wait_for_turn)
    told.run(threads, wait_for_turn)
    for _ in range(100):
        assert begun.acquire(timeout=10)  # so the call before it is reported
        for _ in range(3):
            await asyncio.sleep(0)  # the loop would hear of each end, if it was woken
        turns.release()
    await told.all()

    assert woken <= 3  # at the first end, before the last offer was taken, and at the last end


async def test_an_end_is_told_soon_although_its_thread_goes_on_by_itself(
    threads: TaskThreads,
) -> None:
    told, turn, go_on = Told(2), threading.Event(), threading.Event()
    told.offer(threads, 1, turn.wait)
    Told(2).offer(threads, 2, go_on.wait)  # one that it goes on with, and one that is left
    told.run(threads, lambda: None)
    await told.some(1)

    turn.set()
    await told.all()

    assert not go_on.is_set()
    go_on.set()


async def test_an_end_that_is_awaited_is_told_at_once(
    threads: TaskThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procrastinate.worker.running.threads.PAUSE", 60.0)
    told, turn, go_on = Told(2), threading.Event(), threading.Event()
    told.offer(threads, 1, turn.wait, awaited=True)
    Told(2).offer(threads, 2, go_on.wait)
    told.run(threads, lambda: None)
    await told.some(1)

    turn.set()
    await told.all()

    assert not go_on.is_set()
    go_on.set()


class Told:
    """Counts the ends of which the loop was told."""

    def __init__(self, expected: int) -> None:
        self.left = self.expected = expected
        self.news = asyncio.Event()

    def note(self, result: Any, exception: BaseException | None) -> None:
        self.left -= 1
        self.news.set()

    def run(self, threads: TaskThreads, function: Callable[[], Any]) -> None:
        threads.run(function, contextvars.copy_context(), self.note)

    def offer(
        self, threads: TaskThreads, count: int, function: Callable[[], Any], **options: bool
    ) -> None:
        for _ in range(count):
            threads.offer(function, contextvars.copy_context(), self.note, **options)

    async def some(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.expected - self.left < count:
                self.news.clear()
                await self.news.wait()

    async def all(self) -> None:
        await self.some(self.expected)


# Interruptions at every moment

#: The instructions after which Python raises an exception that was sent to a thread.
MOMENTS = ("CALL", "RESUME", "JUMP_BACKWARD", "CALL_FUNCTION_EX", "CALL_KW")


class Interrupted(BaseException):
    """Stands for an exception that is sent to a thread."""


class Interrupter:
    """Raises `Interrupted` once in a thread: in its own code, at one of the possible moments."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.place = ""

    def step(self, code: CodeType, offset: int) -> None:
        """Hear of an instruction that is about to be executed."""
        if threading.current_thread() is threading.main_thread():
            return
        # `_serve_always` only begins, and goes on after an exception.
        if code.co_name == "_serve_always" or not is_possible(code, offset):
            return
        self.left -= 1
        if self.left == 0:
            self.place = code.co_name
            raise Interrupted

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Hear of it on Python 3.11."""
        if frame.f_code not in CODES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.step(frame.f_code, frame.f_lasti)
        return self.trace

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hear of each instruction in threads that are started meanwhile."""
        if sys.version_info < (3, 12):
            threading.settrace(self.trace)
            yield
            threading.settrace(None)
        else:
            tool, event = sys.monitoring.DEBUGGER_ID, sys.monitoring.events.INSTRUCTION
            sys.monitoring.use_tool_id(tool, "interrupter")
            sys.monitoring.register_callback(tool, event, self.step)
            for code in CODES:
                sys.monitoring.set_local_events(tool, code, event)
            yield
            for code in CODES:
                sys.monitoring.set_local_events(tool, code, 0)
            sys.monitoring.free_tool_id(tool)


def codes_within(code: CodeType) -> list[CodeType]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return [code, *itertools.chain.from_iterable(map(codes_within, inner))]


CODES = [
    code
    for function in vars(TaskThreads).values()
    if isinstance(function, FunctionType)
    for code in codes_within(function.__code__)
]


def is_possible(code: CodeType, offset: int) -> bool:
    before = [each for each in instructions(code) if each.offset < offset]
    return bool(before) and before[-1].opname in MOMENTS


@functools.cache
def instructions(code: CodeType) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if each.opname not in ("CACHE", "PRECALL")]


@untraced
async def test_no_call_and_no_offer_is_lost_or_made_twice_wherever_its_thread_is_interrupted() -> (
    None
):
    places = set()
    for moment in itertools.count(1):
        interrupter = Interrupter(moment)
        await make_some_calls(interrupter)
        if not interrupter.place:
            break
        places.add(interrupter.place)

    assert places == {"_serve", "_take", "<lambda>", "_make", "_take_offer", "_report"}


async def make_some_calls(interrupter: Interrupter) -> None:
    """Make calls and an offer, in a thread that is interrupted at its first turns or never."""
    threads = TaskThreads(1, "test")
    made: list[str] = []
    told: dict[str, list[BaseException | None]] = {"call": [], "offer": [], "last": []}

    def run(name: str, how: Callable[..., None]) -> None:
        how(
            lambda: made.append(name),
            contextvars.copy_context(),
            lambda result, exception: told[name].append(exception),
        )

    run("offer", threads.offer)
    with interrupter.at_work():
        run("call", threads.run)
        await until_told(told, "call")
        threads.start_offer()  # unless the thread has gone on with it
        await until_told(told, "offer")
        run("last", threads.run)
        await until_told(told, "last")
        threads.close()

    assert len(made) == len(set(made)), interrupter.place
    for name, (first, *_) in told.items():
        assert name in made or first is not None, (name, interrupter.place)


async def until_told(told: dict[str, list[BaseException | None]], name: str) -> None:
    async with asyncio.timeout(10):
        while not told[name]:
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["waited for", "to be awaited", "raised"])
async def test_a_call_that_does_not_end_its_job_passes_no_slot_on(
    threads: TaskThreads, kind: str
) -> None:
    """Middleware waits for it, or the loop goes on with its result, or with what it raised."""
    made, told = threading.Event(), Told(1)
    threads.offer(made.set, contextvars.copy_context(), lambda result, exception: None)
    if kind == "waited for":
        await outcome(threads.call(lambda: None))
    elif kind == "raised":
        told.run(threads, raising(ValueError()))
        await told.all()
    else:
        told.run(threads, asyncio.get_running_loop().create_future)
        await told.all()

    assert threads.take_back_offer()
    assert not made.is_set()


def test_nothing_begins_after_the_loop_was_stopped() -> None:
    threads = TaskThreads(1, "test")
    go_on, made = threading.Event(), threading.Event()

    async def begin() -> None:
        told = Told(1)
        told.run(threads, go_on.wait)
        told.offer(threads, 1, made.set)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    go_on.set()
    deadline = time.monotonic() + 10
    while not threads._ended:  # until it has decided how to go on, and said so
        assert time.monotonic() < deadline

    assert threads.offers_left == 1
    assert not made.is_set()
    threads.close()
    loop.close()


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
