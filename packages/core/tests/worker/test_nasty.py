"""Nothing that a job does keeps its slot, loses its ending, or ends the worker.

Each case runs one nasty job, then an innocent one in the same and only slot, then stops the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import inspect
import json
import linecache
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import nasty
import pytest

import procrastinate
from procrastinate.model.endings import outcome
from procrastinate.model.job import Job, Status
from procrastinate.model.liveness import blame
from procrastinate.model.text import failure, printable
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import job_log, log
from procrastinate.worker.running import attempt, endings, execution, runner, slots, threads
from procrastinate.worker.running.slots import Slots

KINDS = ("async def", "thread")
LIMIT = 10.0  # seconds for anything here

Trap = Callable[..., Any]


class Bench:
    """An app in memory with an innocent task, and a worker with one slot."""

    def __init__(self) -> None:
        self.connector = InMemoryConnector()
        self.app = procrastinate.App(connector=self.connector)
        self.innocent = self.app.task(name="innocent")(_innocent)
        self.first: Any = None  # the task of the innocent job before the nasty one, if another
        self.options: dict[str, Any] = {}
        self.just_before: Callable[[], object] = lambda: None

    def nasty(self, kind: str, function: Trap, **options: Any) -> Any:
        """A task of this kind that calls a function."""
        if kind == "thread":
            return self.app.task(name="nasty", **options)(lambda **given: function(**given))

        async def on_loop(**given: Any) -> Any:
            return function(**given)

        return self.app.task(name="nasty", **options)(on_loop)

    async def run(self, task: Any, **arguments: Any) -> Job:
        """Run the nasty job and an innocent one, stop the worker; return the nasty job's end."""
        async with self.app.open_async(), self.worker():
            await self.ended(await (self.first or self.innocent).defer_async())
            self.just_before()
            job = await self.ended(await task.defer_async(**arguments))
            innocent = await self.ended(await self.innocent.defer_async())
        assert innocent.status is Status.SUCCEEDED
        return job

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        running = asyncio.create_task(
            self.app.run_worker_async(
                **{"install_signal_handlers": False, "concurrency": 1, **self.options}
            )
        )
        try:
            yield
            assert not running.done()
        finally:
            running.cancel()
            async with asyncio.timeout(LIMIT):
                await asyncio.wait([running])
        assert running.cancelled() or running.exception() is None

    async def ended(self, job_id: int) -> Job:
        deadline = time.monotonic() + LIMIT
        while True:
            job = await self.app.job_manager.get_job_async(job_id)
            if job.status.is_final:
                return job
            assert time.monotonic() < deadline, f"job {job_id} is {job.status} for ever"
            await asyncio.sleep(0.001)


def _innocent() -> None: ...


async def _innocent_on_loop() -> None: ...


@pytest.fixture
def bench() -> Bench:
    return Bench()


def raising(make: Callable[[], BaseException]) -> Trap:
    def function(**_: Any) -> None:
        raise make()

    return function


# What a task raises


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", nasty.EXCEPTIONS.values(), ids=nasty.EXCEPTIONS)
async def test_whatever_a_task_raises_ends_its_job(
    bench: Bench, kind: str, make: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    job = await bench.run(bench.nasty(kind, raising(make)))

    assert job.status is Status.FAILED
    (error,) = job.errors
    assert error["attempt"] == 1
    assert error["type"]
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.message.startswith(f"nasty[{job.id}]() failed: ")
    shown = logging.Formatter().format(record)
    assert len(record.message) < 2_500
    assert len(shown) < 15_000
    assert "\x1b" not in shown
    assert all(line.startswith("  ") for line in shown.splitlines()[1:])


# What is around the task

RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("no"),
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "Sly": lambda: nasty.Sly("no"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "cannot be shown": nasty.EXCEPTIONS["repr and str recurse"],
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_raised = pytest.mark.parametrize("make", RAISED.values(), ids=RAISED)


class Spoiler:
    """A part of the log that raises."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self.make = make

    def spoil(self, *_: Any, **__: Any) -> Any:
        raise self.make()

    @contextlib.contextmanager
    def handler(self, **members: Any) -> Iterator[None]:
        kind = type("Handler", (logging.Handler,), members)
        handler = kind()
        logger = logging.getLogger("procrastinate")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def emit(self) -> contextlib.AbstractContextManager[None]:
        return self.handler(emit=self.spoil)

    def handle_error(self) -> contextlib.AbstractContextManager[None]:
        def emit(handler: logging.Handler, record: logging.LogRecord) -> None:
            handler.handleError(record)

        return self.handler(emit=emit, handleError=self.spoil)

    @contextlib.contextmanager
    def filter(self) -> Iterator[None]:
        logger = logging.getLogger("procrastinate.worker")
        logger.addFilter(self.spoil)
        try:
            yield
        finally:
            logger.removeFilter(self.spoil)

    @contextlib.contextmanager
    def formatter(self) -> Iterator[None]:
        handler = logging.StreamHandler()
        handler.setFormatter(type("Formatter", (logging.Formatter,), {"format": self.spoil})())
        logger = logging.getLogger("procrastinate")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    @contextlib.contextmanager
    def record_factory(self) -> Iterator[None]:
        factory = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self.spoil)
        try:
            yield
        finally:
            logging.setLogRecordFactory(factory)


@each_kind
@each_raised
@pytest.mark.parametrize("part", ["emit", "handle_error", "filter", "formatter", "record_factory"])
async def test_a_log_that_raises_costs_no_job_its_ending(
    bench: Bench, kind: str, make: Callable[[], BaseException], part: str
) -> None:
    with getattr(Spoiler(make), part)():
        job = await bench.run(bench.nasty(kind, raising(lambda: ValueError("told"))))

    assert job.status is Status.FAILED
    assert job.errors[0]["message"] == "told"


@each_kind
@each_raised
async def test_a_retry_strategy_that_raises_fails_the_job(
    bench: Bench, kind: str, make: Callable[[], BaseException]
) -> None:
    class Strategy(procrastinate.BaseRetryStrategy):
        def get_retry_decision(self, **_: Any) -> Any:
            raise make()

    job = await bench.run(bench.nasty(kind, raising(ValueError), retry=Strategy()))

    assert job.status is Status.FAILED
    assert job.errors[0]["type"] == "ValueError"
    assert job.errors[0]["retry_error"]["type"]


class PassesForADecision:
    __class__ = procrastinate.RetryDecision  # type: ignore[assignment]


def decision_with(**members: Any) -> Any:
    return object.__new__(type("Decision", (procrastinate.RetryDecision,), members))


DECISIONS: dict[str, Callable[[], Any]] = {
    "no decision": lambda: True,
    "passes for one": PassesForADecision,
    "without values": lambda: object.__new__(procrastinate.RetryDecision),
    "property raises": lambda: decision_with(retry_in=property(raising(nasty.Sly))),
    "property exits": lambda: decision_with(queue=property(raising(SystemExit))),
    "wrong values": lambda: decision_with(
        **dict.fromkeys(("retry_at", "retry_in", "queue", "lock")), priority="high"
    ),
    "cannot be shown": nasty.mirrors,
    "class property raises": lambda: type("N", (), {"__class__": property(raising(nasty.Sly))})(),
}


@each_kind
@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
async def test_a_retry_strategy_that_returns_nonsense_fails_the_job(
    bench: Bench, kind: str, decision: Callable[[], Any]
) -> None:
    class Strategy(procrastinate.BaseRetryStrategy):
        def get_retry_decision(self, **_: Any) -> Any:
            return decision()

    job = await bench.run(bench.nasty(kind, raising(ValueError), retry=Strategy()))

    assert job.status is Status.FAILED
    assert job.errors[0]["retry_error"]["type"]


def middleware(kind: str, make: Callable[[], BaseException], when: str) -> Any:
    """Middleware that raises before it goes on, afterwards, or both after and out of a clean-up."""

    def plain(call_next: Any, context: Any, worker: Any) -> Any:
        if when == "before":
            raise make()
        try:
            call_next()
        finally:
            raise make()

    async def on_loop(call_next: Any, context: Any, worker: Any) -> Any:
        if when == "before":
            raise make()
        try:
            await call_next()
        finally:
            raise make()

    return plain if kind == "thread" else on_loop


@each_kind
@each_raised
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("of", ["task", "worker"])
async def test_middleware_that_raises_fails_the_job(
    bench: Bench, kind: str, make: Callable[[], BaseException], when: str, of: str
) -> None:
    spoiler = middleware(kind, make, when)
    if of == "task":
        job = await bench.run(bench.nasty(kind, _innocent, middleware=spoiler))
        assert job.status is Status.FAILED
        return

    async def only_around_the_nasty(call_next: Any, context: Any, worker: Any) -> None:
        if context.task.name == "nasty":
            await middleware("async def", make, when)(call_next, context, worker)
        else:
            await call_next()

    bench.options["middleware"] = [only_around_the_nasty]
    job = await bench.run(bench.nasty(kind, _innocent))
    assert job.status is Status.FAILED


@each_kind
@each_raised
async def test_a_hook_that_raises_changes_nothing(
    bench: Bench,
    kind: str,
    make: Callable[[], BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = Slots.__init__

    def with_hook(self: Slots, **given: Any) -> None:
        begin(self, **{**given, "on_ended": raising(make)})

    monkeypatch.setattr(Slots, "__init__", with_hook)
    assert (await bench.run(bench.nasty(kind, _innocent))).status is Status.SUCCEEDED


# The event loop's task factory


def raising_factory(make: Callable[[], BaseException]) -> Any:
    def factory(loop: Any, coroutine: Any, **_: Any) -> Any:
        raise make()

    return factory


def _schedules_and_raises(loop: Any, coroutine: Any, **given: Any) -> Any:
    given.pop("eager_start", None)
    asyncio.Task(coroutine, loop=loop, **given)
    raise nasty.Sly


class Named(asyncio.Future):  # type: ignore[type-arg]
    """A future that passes for a task."""

    def set_name(self, name: object) -> None: ...


def _pending(loop: Any, coroutine: Any, **_: Any) -> Any:
    return Named(loop=loop)


def _done(loop: Any, coroutine: Any, **_: Any) -> Any:
    future = Named(loop=loop)
    future.set_result(None)
    return future


def _cancelled(loop: Any, coroutine: Any, **_: Any) -> Any:
    future = Named(loop=loop)
    future.cancel()
    return future


def _cancels(loop: Any, coroutine: Any, **given: Any) -> Any:
    task = asyncio.Task(coroutine, loop=loop, **given)
    task.cancel()
    return task


def _closes(loop: Any, coroutine: Any, **_: Any) -> Any:
    coroutine.close()
    return Named(loop=loop)


FACTORIES: dict[str, Any] = {
    **{f"raises {name}": raising_factory(make) for name, make in RAISED.items()},
    "schedules and raises": _schedules_and_raises,
    "returns None": lambda loop, coroutine, **_: None,
    "returns a number": lambda loop, coroutine, **_: 3,
    "returns a mirror": lambda loop, coroutine, **_: nasty.mirrors(),
    "returns the coroutine": lambda loop, coroutine, **_: coroutine,
    "returns a future that is done": _done,
    "returns a cancelled future": _cancelled,
    "returns a cancelled task": _cancels,
    "drops the coroutine": _pending,
    "closes the coroutine": _closes,
}
if sys.version_info >= (3, 12):
    FACTORIES["is eager"] = asyncio.eager_task_factory


@each_kind
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
async def test_a_task_factory_keeps_no_slot(bench: Bench, kind: str, factory: Any) -> None:
    attempts = 0

    def around_the_nasty(loop: Any, coroutine: Any, **given: Any) -> Any:
        nonlocal attempts
        attempts += coroutine.__qualname__ == "Runner._run"
        if coroutine.__qualname__ == "Runner._run" and attempts == 1:
            return factory(loop, coroutine, **given)
        return asyncio.Task(coroutine, loop=loop, **given)

    loop = asyncio.get_running_loop()
    bench.just_before = lambda: loop.set_task_factory(around_the_nasty)
    try:
        job = await bench.run(bench.nasty(kind, _innocent))
    finally:
        loop.set_task_factory(None)

    not_run = factory in (_done, _cancelled, _closes, _pending)
    assert job.status is (Status.FAILED if not_run else Status.SUCCEEDED)
    assert job.attempts == 1


# Arguments


def loads(of_the_nasty: Callable[[], Any]) -> Any:
    def decode(text: str) -> Any:
        return of_the_nasty() if "nasty" in text else json.loads(text)

    return decode


@each_kind
@each_raised
async def test_a_json_loads_that_raises_fails_the_job(
    bench: Bench, kind: str, make: Callable[[], BaseException]
) -> None:
    bench.connector.json_loads = loads(raising(make))
    async with bench.app.open_async(), bench.worker():
        job_id = await bench.nasty(kind, lambda it: None).defer_async(it="nasty")
        bench_id = await bench.innocent.defer_async()
        await bench.ended(bench_id)
        bench.connector.json_loads = json.loads
        job = await bench.ended(job_id)

    assert job.status is Status.FAILED
    assert job.errors[0]["message"].startswith("json_loads failed: ")


class NastyDict(dict):  # type: ignore[type-arg]
    items = keys = __iter__ = __len__ = __getitem__ = __repr__ = raising(nasty.Sly)


class Shows:
    def __init__(self, make: Callable[[], BaseException]) -> None:
        self.make = make

    def __repr__(self) -> str:
        raise self.make()


ARGUMENTS: dict[str, Callable[[], Any]] = {
    **{f"repr raises {name}": (lambda m=make: {"it": Shows(m)}) for name, make in RAISED.items()},
    "mirrors": lambda: {"it": nasty.mirrors()},
    "nasty text": lambda: {"it": nasty.NastyText("x")},
    "50 MB": lambda: {"it": "x" * 50_000_000},
    "deep": lambda: {"it": json.loads("[" * 900 + "]" * 900)},
    "huge number": lambda: {"it": 10**10_000},
    "a list": lambda: [1, 2],
    "None": lambda: None,
    "nasty dict": NastyDict,
    "control characters": lambda: {"it": "\n\x1b\x9b\u202e"},
    "names that are no names": lambda: {3: 4},
}


@each_kind
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
async def test_arguments_that_cannot_be_shown_cost_no_job_its_ending(
    bench: Bench, kind: str, arguments: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    def function(**_: Any) -> None:
        raise ValueError("no")

    bench.connector.json_loads = loads(arguments)
    async with bench.app.open_async(), bench.worker():
        job_id = await bench.nasty(kind, function).defer_async(it="nasty")
        await bench.ended(await bench.innocent.defer_async())
        bench.connector.json_loads = json.loads
        job = await bench.ended(job_id)

    assert job.status is Status.FAILED
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(record.message) < 2_500
    assert "\x1b" not in record.message


# What a task does to the process


class Vandals:
    """Functions for a task, each of which breaks something that the worker uses."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.loop = asyncio.get_running_loop()
        self.undo: list[Callable[[], object]] = []

    def _on_loop(self, function: Callable[[], object]) -> None:
        """Call it on the loop, at once or from the task's thread."""
        if threading.current_thread() is threading.main_thread():
            function()
        else:
            done = threading.Event()
            self.loop.call_soon_threadsafe(lambda: (function(), done.set()))
            done.wait(LIMIT)

    def cancel_its_own_task(self) -> None:
        """Cancel the attempt as code would do that cancels all tasks of the loop."""

        def cancel() -> None:
            for task in asyncio.all_tasks(self.loop):
                if task.get_name() == "nasty":
                    task.cancel()

        self._on_loop(cancel)

    def shut_the_default_executor_down(self) -> None:
        def shut_down() -> None:
            executor = ThreadPoolExecutor(1)
            executor.shutdown()
            self.loop.set_default_executor(executor)

        self._on_loop(shut_down)
        self.undo.append(lambda: self.loop.set_default_executor(ThreadPoolExecutor(1)))

    def set_a_task_factory_that_raises(self) -> None:
        self._on_loop(lambda: self.loop.set_task_factory(raising_factory(nasty.Sly)))
        self.undo.append(lambda: self.loop.set_task_factory(None))

    def set_an_exception_handler_that_raises(self) -> None:
        self._on_loop(lambda: self.loop.set_exception_handler(raising(nasty.Sly)))
        self.undo.append(lambda: self.loop.set_exception_handler(None))

    def raise_in_a_callback(self) -> None:
        self.loop.set_exception_handler(lambda *_: None)
        self.loop.call_soon_threadsafe(raising(nasty.Sly))
        self.undo.append(lambda: self.loop.set_exception_handler(None))

    def replace_the_excepthooks(self) -> None:
        hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
        self.undo.append(lambda: setattr(sys, "excepthook", hooks[0]))
        self.undo.append(lambda: setattr(threading, "excepthook", hooks[1]))
        self.undo.append(lambda: setattr(sys, "unraisablehook", hooks[2]))
        sys.excepthook = threading.excepthook = sys.unraisablehook = raising(nasty.Sly)
        raise ValueError("no")

    def let_new_threads_die_of_a_trace_function(self) -> None:
        threading.settrace(_raise_sly)
        self.undo.append(lambda: threading.settrace(None))  # type: ignore[arg-type]

    def let_new_threads_die_of_a_profile_function(self) -> None:
        threading.setprofile(_raise_sly)
        self.undo.append(lambda: threading.setprofile(None))

    def let_new_threads_have_a_huge_stack(self) -> None:
        size = threading.stack_size(1 << 46)
        self.undo.append(lambda: threading.stack_size(size))

    def let_no_thread_wait_for_its_turn(self) -> None:
        interval = sys.getswitchinterval()
        self.undo.append(lambda: sys.setswitchinterval(interval))
        sys.setswitchinterval(1e-9)

    def take_all_threads_of_the_default_executor(self) -> None:
        executor, go_on = ThreadPoolExecutor(1), threading.Event()
        executor.submit(go_on.wait, 3 * LIMIT)
        self._on_loop(lambda: self.loop.set_default_executor(executor))
        self.undo.append(go_on.set)
        self.undo.append(lambda: self.loop.set_default_executor(ThreadPoolExecutor(1)))

    def disable_logging(self) -> None:
        logging.disable(logging.CRITICAL)
        self.undo.append(lambda: logging.disable(logging.NOTSET))
        raise ValueError("no")

    def lose_stderr_and_the_log(self) -> None:
        stderr, factory = sys.stderr, logging.getLogRecordFactory()
        self.undo.append(lambda: setattr(sys, "stderr", stderr))
        self.undo.append(lambda: logging.setLogRecordFactory(factory))
        sys.stderr = None  # type: ignore[assignment]
        logging.setLogRecordFactory(raising(nasty.Sly))
        raise ValueError("no")

    def recurse_to_the_limit(self) -> None:
        self.recurse_to_the_limit()

    def lower_the_recursion_limit(self) -> None:
        limit = sys.getrecursionlimit()
        self.undo.append(lambda: sys.setrecursionlimit(limit))
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        self.recurse_to_the_limit()

    def run_out_of_memory(self) -> None:
        bytearray(1 << 60)

    def leave_a_nasty_context_variable(self) -> None:
        contextvars.ContextVar[Any]("nasty").set(nasty.NastyText("x"))

    def be_hit_by_an_exception_in_its_thread(self) -> None:
        _send_exception(threading.get_ident())

    def be_hit_by_an_exception_when_it_has_ended(self) -> None:
        ident = threading.get_ident()
        if threading.current_thread() is not threading.main_thread():
            self.loop.call_soon_threadsafe(self.loop.call_later, 0.01, _send_exception, ident)

    def return_what_cannot_be_looked_at(self) -> Any:
        return type("Nasty", (), {"__class__": property(raising(nasty.Sly))})()


def _raise_sly(*_: object) -> None:
    raise nasty.Sly


def _send_exception(ident: int) -> None:
    send = ctypes.pythonapi.PyThreadState_SetAsyncExc
    send(ctypes.c_ulong(ident), ctypes.py_object(nasty.Sly))


#: Not under coverage: on Python 3.11, a traced thread stands still while an exception for
#: another thread has not arrived there.
UNTRACED = ("be_hit_by_an_exception_when_it_has_ended",)
VANDALS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in UNTRACED else [])
    for name in vars(Vandals)
    if not name.startswith("_")
]


@each_kind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", VANDALS)
@pytest.mark.parametrize("next_kind", KINDS)
async def test_what_a_task_breaks_does_not_break_the_worker(
    bench: Bench, kind: str, next_kind: str, name: str
) -> None:
    on_loop = bench.app.task(name="on the loop")(_innocent_on_loop)
    bench.first = on_loop if kind == "async def" else bench.innocent
    bench.innocent = on_loop if next_kind == "async def" else bench.innocent
    vandals = Vandals(bench)
    try:
        job = await bench.run(bench.nasty(kind, getattr(vandals, name)))
    finally:
        for undo in reversed(vandals.undo):
            undo()

    assert job.status.is_final
    assert (job.status is Status.FAILED) == bool(job.errors)


@each_kind
@pytest.mark.parametrize("result", [True, False], ids=["kept", "not kept"])
async def test_a_value_that_cannot_be_looked_at_fails_no_job(
    bench: Bench, kind: str, result: bool
) -> None:
    liar = type("Liar", (), {"__class__": property(raising(nasty.Sly))})
    job = await bench.run(bench.nasty(kind, lambda: liar(), result=result))

    assert job.status is Status.SUCCEEDED
    assert bool(job.result_error) == result


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["bare", "with a timeout"])
async def test_a_job_for_which_no_thread_is_started_waits_for_one(
    bench: Bench, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "SENT_BACK_FOR", timedelta(milliseconds=20))
    start = threading.Thread.start

    def refuse_at_first(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        _refuse(thread)

    def forbid() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse_at_first)

    bench.innocent = bench.app.task(name="on the loop")(_innocent_on_loop)
    bench.just_before = forbid
    job = await bench.run(bench.nasty("thread", _innocent, **options))

    assert (job.status, job.attempts) == (Status.SUCCEEDED, 1)


async def test_a_worker_leaves_although_no_thread_is_started_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    def forbid() -> None:
        loop.set_default_executor(ThreadPoolExecutor(1))
        monkeypatch.setattr(threading.Thread, "start", _refuse)

    async with bench.app.open_async(), bench.worker():
        await bench.ended(await bench.innocent.defer_async())
        forbid()
    monkeypatch.undo()

    assert await bench.app.job_manager.list_workers_async() == []


class FailsAt:
    """A trace function that raises MemoryError at the n-th line of the attempt's code."""

    MODULES = (
        *(slots, runner, attempt, endings, execution, threads),
        *(job_log, log, outcome, failure, printable),
    )
    ASKED_BY_OTHERS = frozenset(  # these are not on an attempt's way
        ("__len__", "__contains__", "close", "goes_on", "outlook", "<listcomp>")
    )
    FILES = frozenset(module.__file__ for module in MODULES)

    def __init__(self, number: int) -> None:
        self.left = number
        self.hit: str | None = None

    def begin(self) -> None:
        threading.settrace(self)
        sys.settrace(self)

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        is_ours = frame.f_code.co_filename in self.FILES
        return self if is_ours and self._counts(frame, event) else None

    def _counts(self, frame: FrameType, event: str) -> bool:
        code = frame.f_code
        if code.co_name in self.ASKED_BY_OTHERS:
            return False
        if event == "return" and code.co_name == "_end" and self.hit is None:
            self.left = 0  # what follows belongs to the next job
        line = linecache.getline(code.co_filename, frame.f_lineno).strip()
        if event == "line" and line != "try:" and self.left:  # nothing happens in "try:"
            self.left -= 1
            if self.left == 0:
                self.hit = f"{Path(code.co_filename).name}:{frame.f_lineno} {line}"
                raise MemoryError(f"planted in {self.hit}")
        return True


@each_kind
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("outcome", ["returns", "raises"])
@pytest.mark.timeout(900)  # some four hundred workers, under a tracer
async def test_no_line_of_the_worker_may_fail_and_keep_the_slot(kind: str, outcome: str) -> None:
    """Raise MemoryError at each line, one after the other, that runs for one attempt."""
    function = _innocent if outcome == "returns" else raising(lambda: ValueError("no"))
    hits: list[str] = []
    for number in range(1, 1_000):
        bench, trace = Bench(), FailsAt(number)
        bench.just_before = trace.begin
        try:
            job = await bench.run(bench.nasty(kind, function))
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
        if trace.hit is None:
            break
        assert job.status.is_final
        hits.append(trace.hit)

    gc.collect()  # coroutines that were never awaited, as long as their warnings are ignored
    assert len(set(hits)) > 40


# What a task does to its own job


@each_kind
@pytest.mark.parametrize("name", ["id", "lease", "lock", "attempts"])
@pytest.mark.parametrize("by", ["task", "retry strategy", "middleware"])
async def test_a_job_that_was_changed_behind_its_back_ends_all_the_same(
    bench: Bench, kind: str, name: str, by: str
) -> None:
    def spoil(job: Any) -> None:
        object.__setattr__(job, name, "l" if name == "lock" else 99)

    class Strategy(procrastinate.BaseRetryStrategy):
        def get_retry_decision(self, *, exception: BaseException, job: Any) -> None:
            spoil(job)

    def plain(call_next: Any, context: Any, worker: Any) -> Any:
        spoil(context.job)
        return call_next()

    async def on_loop(call_next: Any, context: Any, worker: Any) -> Any:
        spoil(context.job)
        return await call_next()

    options: dict[str, Any] = {
        "task": {"pass_context": True},
        "retry strategy": {"retry": Strategy()},
        "middleware": {"middleware": plain if kind == "thread" else on_loop},
    }[by]

    def body(context: Any = None) -> None:
        if context is not None:
            spoil(context.job)
        raise ValueError("no")

    async def on_the_loop(context: Any = None) -> None:
        body(context)

    task = bench.app.task(name="nasty", **options)(body if kind == "thread" else on_the_loop)
    job = await bench.run(task)

    assert (job.id, job.attempts, job.status) == (2, 1, Status.FAILED)
    assert job.errors[0]["message"] == "no"


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in async middleware"])
async def test_a_plain_task_that_raises_stop_iteration_is_stored_as_that(
    bench: Bench, wrapped: bool
) -> None:
    async def around(call_next: Any, context: Any, worker: Any) -> Any:
        return await call_next()

    if wrapped:
        bench.options["middleware"] = [around]
    job = await bench.run(bench.nasty("thread", raising(lambda: StopIteration("enough"))))

    assert (job.errors[0]["type"], job.errors[0]["message"]) == ("StopIteration", "enough")
