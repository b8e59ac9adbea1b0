"""Which signals a worker takes from the program around it, and what it gives back."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import procrastinate
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.process.signals import (
    INT,
    TERM,
    Found,
    Taking,
    asking,
    found,
    kept,
    to_take,
)

NOTHING, IGNORED, HANDLED = Found


@pytest.fixture(autouse=True)
def _as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (INT, TERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("on_int", "on_term", "taken"),
    [
        (NOTHING, NOTHING, (INT, TERM)),
        (NOTHING, IGNORED, (INT,)),
        (NOTHING, HANDLED, ()),  # rule 3
        (IGNORED, NOTHING, (TERM,)),  # what a shell starts in the background
        (IGNORED, IGNORED, ()),
        (IGNORED, HANDLED, ()),
        (HANDLED, NOTHING, (TERM,)),
        (HANDLED, IGNORED, ()),
        (HANDLED, HANDLED, ()),
    ],
)
def test_a_guest_takes_what_is_free(
    on_int: Found, on_term: Found, taken: tuple[signal.Signals, ...]
) -> None:
    assert to_take(Taking.FREE, on_int, on_term) == taken
    assert to_take(Taking.BOTH, on_int, on_term) == (INT, TERM)
    assert to_take(Taking.NONE, on_int, on_term) == ()


class Server:
    """Handles signals as servers do."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def handle(self, number: int, *_: object) -> None:
        self.got.append(number)

    def __call__(self, number: int, *_: object) -> None:
        self.handle(number)


def handlers() -> dict[str, Any]:
    server = Server()
    return {
        "a function": lambda *_: None,
        "a method": server.handle,
        "an object": server,
        "a partial": functools.partial(server.handle, TERM),
        "a partial of a partial": functools.partial(functools.partial(server.handle), TERM),
        "what says it equals all": type(
            "Equal", (Server,), {"__eq__": lambda *_: True, "__hash__": None}
        )(),
        "a handler in C": None,
    }


@pytest.mark.parametrize("name", handlers())
def test_a_handler_of_any_kind_is_seen(name: str) -> None:
    assert found(handlers()[name]) is HANDLED


def test_the_defaults_are_no_handlers() -> None:
    assert found(signal.SIG_DFL) is NOTHING
    assert found(signal.default_int_handler) is NOTHING
    assert found(signal.SIG_IGN) is IGNORED

    async def inside() -> Found:
        return found(signal.getsignal(INT))

    signal.signal(INT, signal.default_int_handler)
    assert asyncio.run(inside()) is NOTHING


def app_in_memory() -> procrastinate.App:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="look")
    async def look() -> None: ...

    return app


async def one_worker(app: procrastinate.App) -> None:
    async with app.open_async():
        await app.configure_task("look").defer_async()
        await app.run_worker_async(wait=False)


@pytest.mark.parametrize("number", [INT, TERM])
def test_what_the_loop_handles_stays_its_own(number: signal.Signals) -> None:
    """Also afterwards: the loop is deaf once its handler was replaced and not given back."""
    got: list[int] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        for each in (INT, TERM):
            loop.add_signal_handler(each, got.append, each)
        app = app_in_memory()
        works = asyncio.Event()

        @app.task
        async def work() -> None:
            works.set()

        async with app.open_async():
            await work.defer_async()
            worker = asyncio.create_task(app.run_worker_async())
            await asyncio.wait_for(works.wait(), 10)
            await raised(number, got, 1)
            assert not worker.done()
            worker.cancel()
            await asyncio.wait([worker], timeout=10)
        await raised(number, got, 2)
        assert got == [number, number]

    asyncio.run(program())


async def raised(number: signal.Signals, got: list[int], times: int) -> None:
    signal.raise_signal(number)
    async with asyncio.timeout(10):
        while len(got) < times:
            await asyncio.sleep(0.001)


# `signal.getsignal` itself compares handlers, and takes what equals all for SIG_DFL.
NOT_SET = {"a handler in C", "what says it equals all"}


@pytest.mark.parametrize("name", [name for name in handlers() if name not in NOT_SET])
def test_what_the_program_handles_stays_its_own(name: str) -> None:
    handler = handlers()[name]
    seen: list[Any] = []

    async def program() -> None:
        app = app_in_memory()

        @app.task
        async def ask() -> None:
            seen.extend(map(signal.getsignal, (INT, TERM)))

        async with app.open_async():
            await ask.defer_async()
            await app.run_worker_async(wait=False)

    signal.signal(INT, handler)
    signal.signal(TERM, handler)
    asyncio.run(program())
    assert [each is handler for each in seen] == [True, True]
    assert signal.getsignal(INT) is handler
    assert signal.getsignal(TERM) is handler


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_that_nothing_handles_stops_a_worker(number: signal.Signals) -> None:
    before: list[Any] = []

    async def program() -> None:
        before.extend(map(signal.getsignal, (INT, TERM)))
        app = app_in_memory()
        async with app.open_async():
            worker = app.worker()
            running = asyncio.create_task(worker.run())
            while not worker.is_alive:
                await asyncio.sleep(0)
            signal.raise_signal(number)
            await asyncio.wait_for(running, 10)
        assert list(map(signal.getsignal, (INT, TERM))) == before
        assert worker.failure is None

    signal.signal(INT, signal.default_int_handler)
    signal.signal(TERM, signal.SIG_DFL)
    asyncio.run(program())


def test_a_signal_after_a_cancellation_is_the_second_request() -> None:
    async def program() -> None:
        app = app_in_memory()
        began = asyncio.Event()

        @app.task(name="endless")
        async def endless() -> None:
            began.set()
            await asyncio.Event().wait()

        async with app.open_async():
            await endless.defer_async()
            worker = app.worker()
            running = asyncio.create_task(worker.run())
            await asyncio.wait_for(began.wait(), 10)
            running.cancel()
            while not worker._stop.gracefully.is_set():
                await asyncio.sleep(0)
            signal.raise_signal(TERM)
            await asyncio.wait([running], timeout=20)
            assert running.done()

    signal.signal(TERM, signal.SIG_DFL)
    asyncio.run(program())


TAKE_OVER: dict[str, Callable[[asyncio.AbstractEventLoop, Server], object]] = {
    "by signal.signal": lambda loop, server: signal.signal(TERM, server.handle),
    "by the loop": lambda loop, server: loop.add_signal_handler(TERM, server.handle, TERM),
}


@pytest.mark.parametrize("how", TAKE_OVER)
def test_a_handler_that_was_set_while_the_worker_ran_stays(how: str) -> None:
    """A server that starts after its worker must not lose its handlers when that ends."""
    server = Server()

    async def program() -> None:
        loop = asyncio.get_running_loop()
        with asking(lambda: None, Taking.FREE):
            TAKE_OVER[how](loop, server)
        await raised(TERM, server.got, 1)
        assert server.got == [TERM]

    signal.signal(TERM, signal.SIG_DFL)
    asyncio.run(program())


def test_a_worker_that_owns_its_process_takes_both_and_gives_them_back() -> None:
    server = Server()
    app = app_in_memory()
    seen: list[Any] = []

    @app.task
    async def ask() -> None:
        seen.extend(map(signal.getsignal, (INT, TERM)))

    ask.defer()
    signal.signal(INT, server.handle)
    signal.signal(TERM, server)
    app.run_worker(wait=False)

    assert len(seen) == 2
    assert server.handle not in seen
    assert server not in seen
    assert signal.getsignal(INT) == server.handle
    assert signal.getsignal(TERM) is server


async def test_a_worker_in_another_thread_takes_none() -> None:
    before = [signal.getsignal(number) for number in (INT, TERM)]
    await asyncio.to_thread(lambda: asyncio.run(one_worker(app_in_memory())))
    assert [signal.getsignal(number) for number in (INT, TERM)] == before


# A worker that owns its process

TAKES: dict[str, Callable[[], object]] = {
    "default": lambda: signal.signal(TERM, signal.SIG_DFL),
    "ignore": lambda: signal.signal(TERM, signal.SIG_IGN),
    "handler": lambda: signal.signal(TERM, lambda *_: None),
    "both": lambda: [signal.signal(number, signal.SIG_IGN) for number in (INT, TERM)],
    "the loop's": lambda: asyncio.get_running_loop().add_signal_handler(TERM, lambda: None),
    "the loop's, removed": lambda: (
        asyncio.get_running_loop().add_signal_handler(TERM, lambda: None),
        asyncio.get_running_loop().remove_signal_handler(TERM),
    ),
}


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
async def test_signals_are_taken_back_from_a_job(
    take: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[None] = []
    with asking(lambda: asked.append(None), Taking.BOTH) as take_back, kept(take_back):
        ours = signal.getsignal(TERM)
        take()
        async with asyncio.timeout(10):
            while not (signal.getsignal(TERM) is signal.getsignal(INT) is ours):
                await asyncio.sleep(0.01)
        signal.raise_signal(TERM)
        signal.raise_signal(INT)
    assert len(asked) == 2
    assert [record.__dict__["action"] for record in caplog.records] == ["signals_taken_back"]


async def test_a_guest_takes_nothing_back() -> None:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task
    async def take() -> None:
        signal.signal(TERM, signal.SIG_IGN)

    async with app.open_async(), app.worker():
        await take.defer_async()
        async with asyncio.timeout(10):
            while signal.getsignal(TERM) is not signal.SIG_IGN:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # two looks, if there were any
    assert signal.getsignal(TERM) is signal.SIG_IGN
