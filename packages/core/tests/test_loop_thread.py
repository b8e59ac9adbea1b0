"""Plain calls on a connector whose driver has no synchronous half."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import procrastinate
from procrastinate import errors
from procrastinate.connector import AsyncConnector, AsyncSessionExecutor, Query, Rows
from procrastinate.loop_thread import CONNECTIONS, LoopThread, LoopThreadConnector
from procrastinate.testing import InMemoryConnector

PATIENCE = 60.0  # seconds until what should be so has to be so


class Executor:
    def __init__(self, connector: Plain) -> None:
        self.connector = connector

    async def execute(self, query: Query, /) -> Rows:
        self.connector.entered.set()
        return await self.connector.answer(query)

    def sever(self) -> None:
        self.connector.severed_by.append(threading.get_ident())


class Plain(InMemoryConnector):
    """An in-memory connector without its synchronous half; or one that answers as a test says."""

    sync_connector = AsyncConnector.sync_connector  # type: ignore[assignment]

    def __init__(self, answer: Callable[[Query], Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.answer: Callable[[Query], Any] = answer or (lambda query: None)
        self.is_fake = answer is not None
        self.siblings: list[Plain] = []
        self.sizes: list[int] = []
        self.entered = threading.Event()
        self.severed_by: list[int] = []
        self.exits: list[Any] = []

    def sibling(self, *, max_connections: int, connect_timeout: float | None = None) -> Plain:
        sibling = Plain(
            self.answer if self.is_fake else None,
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            store=self._store,
        )
        sibling.exits, sibling.entered = self.exits, self.entered
        sibling.severed_by = self.severed_by
        self.siblings.append(sibling)
        self.sizes.append(max_connections)
        return sibling

    @asynccontextmanager
    async def session_async(self, **options: Any) -> AsyncIterator[AsyncSessionExecutor]:
        if not self.is_fake:
            async with super().session_async(**options) as session:
                yield session
            return
        try:
            yield Executor(self)
        except BaseException as exc:
            self.exits.append(type(exc))
            raise
        self.exits.append(None)


def opened(connector: Plain) -> LoopThreadConnector:
    plain = connector.sync_connector()
    assert isinstance(plain, LoopThreadConnector)
    plain.open()
    return plain


Threads = Callable[[], list[threading.Thread]]


@pytest.fixture(autouse=True)
def threads() -> Iterator[Threads]:
    """Return what tells the loop threads of this test; none of them is left at its end."""
    before = set(threading.enumerate())

    def of_this_test() -> list[threading.Thread]:
        new = [each for each in threading.enumerate() if each not in before]
        return [each for each in new if each.name == "procrastinate-plain"]

    yield of_this_test
    gc.collect()  # an app that is always open is closed by nobody
    for thread in of_this_test():
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_an_app_defers_and_reads_by_one_loop_in_a_thread(threads: Threads) -> None:
    connector = Plain()
    app = procrastinate.App(connector=connector)

    @app.task(name="add")
    def add(n: int) -> None: ...

    with app.open():
        ids = [add.defer(n=n) for n in range(3)]
        assert [job.id for job in app.job_manager.list_jobs()] == ids
        assert len(threads()) == 1
    assert connector.sizes == [CONNECTIONS]
    assert [job.task_kwargs for job in connector.jobs] == [{"n": n} for n in range(3)]


async def test_a_plain_call_in_a_coroutine_does_not_wait_for_its_own_loop() -> None:
    app = procrastinate.App(connector=Plain())

    @app.task(name="add")
    def add(n: int) -> None: ...

    async with app.open_async():
        assert add.defer(n=1) != add.defer(n=2)


def test_a_plain_call_on_the_loop_itself_is_refused() -> None:
    """It would wait for itself."""
    plain: list[LoopThreadConnector] = []

    async def answer(query: Query) -> Rows:
        with plain[0].session() as session:
            return session.execute(query)

    plain.append(opened(Plain(answer)))
    with (
        pytest.raises(errors.ConfigurationError, match="in another thread"),
        plain[0].session() as session,
    ):
        session.execute(Query("any", "select 1"))
    plain[0].close()


def test_who_waits_is_told_when_the_connector_is_closed() -> None:
    async def answer(query: Query) -> Rows:
        await asyncio.sleep(3600)
        return []

    connector = Plain(answer)
    plain = opened(connector)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            with plain.session() as session:
                session.execute(Query("any", "select 1"))
        except errors.ConnectionLost as exc:
            told.append(exc)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert connector.entered.wait(PATIENCE)
    plain.close()
    waiting.join(PATIENCE)
    assert len(told) == 1
    with pytest.raises(errors.AppNotOpen):
        plain.session()


def test_a_loop_that_has_ended_takes_no_calls() -> None:
    loop = LoopThread("procrastinate-plain")

    async def nothing() -> None: ...

    loop.end(nothing())
    with pytest.raises(errors.ConnectionLost):
        loop.call(nothing())
    loop.soon(lambda: None)
    loop.end(nothing())


def test_sever_is_called_on_the_loop_whatever_thread_asks() -> None:
    async def answer(query: Query) -> Rows:
        return [(threading.get_ident(),)]

    connector = Plain(answer)
    plain = opened(connector)
    with plain.session() as session:
        ((loop_thread,),) = session.execute(Query("any", "select 1"))
        session.sever()
        session.execute(Query("any", "select 1"))  # comes after it
    assert connector.severed_by == [loop_thread]
    assert loop_thread != threading.get_ident()
    plain.close()
    session.sever()


@pytest.mark.skipif(
    not hasattr(signal, "pthread_kill")
    or threading.current_thread() is not threading.main_thread(),
    reason="Python hears signals in its main thread",
)
def test_an_interruption_waits_for_the_end_of_the_call() -> None:
    """The call is cancelled, the session learns of the interruption, and nothing is left."""
    cancelled = threading.Event()
    waiting = threading.get_ident()

    async def answer(query: Query) -> Rows:
        try:
            signal.pthread_kill(waiting, signal.SIGINT)
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return []

    connector = Plain(answer)
    plain = opened(connector)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), plain.session() as session:
            session.execute(Query("any", "select 1"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled.is_set()
    assert connector.exits[-1] is KeyboardInterrupt
    plain.close()


def test_a_connector_that_nobody_closed_ends_its_thread_when_it_is_collected(
    threads: Threads,
) -> None:
    plain = opened(Plain())
    gone = weakref.ref(plain)
    (thread,) = threads()
    del plain
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_pool_is_refused() -> None:
    plain = Plain().sync_connector()
    with pytest.raises(errors.InvalidOption, match="give it to open_async"):
        plain.open(object())


def test_a_connector_must_have_one_of_the_two() -> None:
    class Neither(InMemoryConnector):
        sync_connector = AsyncConnector.sync_connector  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"sync_connector\(\) nor a sibling\(\)"):
        Neither().sync_connector()


PROGRAM = """
import procrastinate
from procrastinate.connector import AsyncConnector
from procrastinate.testing import InMemoryConnector

class Plain(InMemoryConnector):
    sync_connector = AsyncConnector.sync_connector
    def sibling(self, **sizes):
        return Plain(store=self._store)

app = procrastinate.App(connector=Plain())
app.open()
app.configure_task("any", allow_unknown=True).defer()
print(len(app.job_manager.list_jobs()), flush=True)
"""


def test_a_program_that_closes_nothing_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONDEVMODE": ""},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
