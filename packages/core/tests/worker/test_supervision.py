"""No part of a worker dies unseen: it goes on without harm, or the worker ends and says why."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.errors import WorkerFailed
from procrastinate.testing import InMemoryConnector
from procrastinate.watchdog import Watchdog
from procrastinate.worker.backlog.backlog import Backlog
from procrastinate.worker.claiming.fetcher import Fetcher
from procrastinate.worker.companions import companion
from procrastinate.worker.companions.heartbeat import Heartbeat
from procrastinate.worker.companions.ticker import Ticker
from procrastinate.worker.companions.vitals import Vitals
from procrastinate.worker.helpers.housekeeping import Housekeeping
from procrastinate.worker.helpers.listener import Listener
from procrastinate.worker.shift import ending
from procrastinate.worker.writing.writer import Writer

QUICK = {
    "update_heartbeat_interval": 0.2,
    "stalled_worker_timeout": 5.0,
    "fetch_job_polling_interval": 0.05,
    "abort_job_polling_interval": 0.05,
    "install_signal_handlers": False,
}
ENDS_WITHIN = 30.0  # seconds

#: A part's name, and where it is hit: in a method that it calls again and again.
PARTS: dict[str, tuple[type, str]] = {
    "heartbeat": (Heartbeat, "round"),
    "heartbeat, after the answer": (Vitals, "confirmed"),
    "ticker": (Ticker, "round"),
    "watchdog": (Watchdog, "_watch"),
    "tick": (Vitals, "say"),
    "housekeeping": (Housekeeping, "_round"),
    "listener": (Listener, "_hear"),
    "writer": (Writer, "_write_next_batch"),
    "fetching": (Fetcher, "claim"),
    "backlog": (Backlog, "room"),
}


class Poison(BaseException):
    """What no `except Exception` catches."""


DEADLY = [MemoryError, RecursionError, KeyboardInterrupt, SystemExit, GeneratorExit, Poison]


class Unusable(logging.Handler):
    """A log handler that raises, whatever it is given."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise MemoryError("no log either")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = Unusable()
    logger = logging.getLogger("procrastinate")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


class Hit:
    """Replaces a method by one that raises a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]) -> None:
        self._kind, self._name = where
        self._original = getattr(*where)
        self._monkeypatch = monkeypatch
        self.count = 0
        self._left = 0
        self._exception: type[BaseException] = MemoryError

    def begin(self, exception: type[BaseException], times: int) -> None:
        self._left, self._exception = times, exception
        hit, original = self, self._original

        def fail() -> None:
            if hit._left:
                hit._left -= 1
                hit.count += 1
                raise hit._exception("poison")

        if asyncio.iscoroutinefunction(original):

            async def poisoned(*args: Any, **options: Any) -> Any:
                fail()
                return await original(*args, **options)

        else:

            def poisoned(*args: Any, **options: Any) -> Any:  # type: ignore[misc]
                fail()
                return original(*args, **options)

        self._monkeypatch.setattr(self._kind, self._name, poisoned)


def app_in_memory() -> procrastinate.App:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="noop")
    async def noop() -> None: ...

    @app.periodic(cron="* * * * * *")
    @app.task(name="secondly", queue="nobody's")
    def secondly(timestamp: int) -> None: ...

    return app


async def outcome_of(
    app: procrastinate.App, hit: Hit, exception: type[BaseException], *, expected: str
) -> str:
    """Hit a part of a worker that runs; return how that went on: "works" or "ended"."""
    worker = app.worker(queues=["default"], **QUICK)
    running = asyncio.create_task(worker.run())
    await _runs_a_job(app)
    hit.begin(exception, times=1)
    began = time.monotonic()
    await _defer(app)
    while not hit.count and not running.done():
        assert time.monotonic() - began < ENDS_WITHIN, "it was never hit"
        await _defer(app)
        await asyncio.sleep(0.02)
    # If it is not to end, it goes on for longer than a companion needs to start again.
    goes_on = companion.REBORN_AFTER + 0.5
    await asyncio.wait([running], timeout=ENDS_WITHIN if expected == "ended" else goes_on)
    if not running.done():
        await _runs_a_job(app)
        worker.stop()
        await asyncio.wait([running], timeout=ENDS_WITHIN)
        assert running.done(), "it does not stop any more"
        running.result()
        return "works"
    with pytest.raises(WorkerFailed):
        running.result()
    return "ended"


async def _defer(app: procrastinate.App) -> int:
    return await app.configure_task("noop").defer_async()


async def _runs_a_job(app: procrastinate.App) -> None:
    job_id = await _defer(app)
    async with asyncio.timeout(ENDS_WITHIN):
        while (await app.job_manager.get_job_async(job_id)).status is not Status.SUCCEEDED:
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def reborn_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "REBORN_AFTER", 0.1)


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_dies_of_lack_of_memory_is_noticed(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It beats, claims and stops afterwards, or the worker has ended and raises why."""
    threads = {"heartbeat", "heartbeat, after the answer", "ticker", "watchdog"}
    expected = "works" if part in threads else "ended"
    hit = Hit(monkeypatch, PARTS[part])
    assert await outcome_of(app_in_memory(), hit, MemoryError, expected=expected) == expected


@pytest.mark.parametrize("exception", DEADLY)
@pytest.mark.parametrize("part", ["heartbeat", "tick", "writer", "fetching"])
async def test_a_part_may_die_of_anything_and_the_log_with_it(
    monkeypatch: pytest.MonkeyPatch, broken_log: None, part: str, exception: type[BaseException]
) -> None:
    expected = "works" if part == "heartbeat" else "ended"
    hit = Hit(monkeypatch, PARTS[part])
    assert await outcome_of(app_in_memory(), hit, exception, expected=expected) == expected


async def test_a_companion_that_dies_too_often_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_in_memory()
    hit = Hit(monkeypatch, PARTS["heartbeat"])
    running = asyncio.create_task(app.worker(queues=["default"], **QUICK).run())
    await _runs_a_job(app)
    hit.begin(Poison, times=companion.DEATHS)
    await asyncio.wait([running], timeout=ENDS_WITHIN)

    assert running.done()
    with pytest.raises(WorkerFailed, match="heartbeat"):
        running.result()
    assert hit.count == companion.DEATHS
    assert "it has died too often" in caplog.text


async def test_a_thread_that_is_gone_without_a_word_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If even the handling of a death raises, for instance."""
    app = app_in_memory()
    hit = Hit(monkeypatch, PARTS["heartbeat"])
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    running = asyncio.create_task(app.worker(queues=["default"], **QUICK).run())
    await _runs_a_job(app)

    def died(self: companion.Companion, exc: BaseException) -> bool:
        raise MemoryError

    monkeypatch.setattr(companion.Companion, "_died", died)
    hit.begin(MemoryError, times=1)
    await asyncio.wait([running], timeout=ENDS_WITHIN)

    assert running.done()
    with pytest.raises(WorkerFailed, match="heartbeat"):
        running.result()


async def test_a_worker_whose_part_dies_lets_running_jobs_end_and_writes_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it is the writer: a new one writes what is left."""
    for part in ("tick", "writer", "fetching"):
        app = app_in_memory()
        go_on = asyncio.Event()

        @app.task(name="long")
        async def long(go_on: asyncio.Event = go_on) -> None:
            await go_on.wait()

        with monkeypatch.context() as patch:
            hit = Hit(patch, PARTS[part])
            running = asyncio.create_task(
                app.worker(queues=["default"], concurrency=2, **QUICK).run()
            )
            job_id = await long.defer_async()
            await _runs_a_job(app)
            hit.begin(MemoryError, times=1)
            async with asyncio.timeout(ENDS_WITHIN):
                while not hit.count:
                    await _defer(app)
                    await asyncio.sleep(0.02)
            assert not running.done()
            go_on.set()
            await asyncio.wait([running], timeout=ENDS_WITHIN)
            with pytest.raises(WorkerFailed):
                running.result()
        job = await app.job_manager.get_job_async(job_id)
        assert (part, job.status) == (part, Status.SUCCEEDED)


async def test_helpers_survive_a_task_that_cancels_all_others(until: Callable[..., Any]) -> None:
    app = app_in_memory()
    mine = asyncio.current_task()

    @app.task(name="wild")
    async def wild() -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("procrastinate-"):
                task.cancel()

    running = asyncio.create_task(app.worker(queues=["default"], **QUICK).run())
    await _runs_a_job(app)
    await wild.defer_async()
    await until(lambda: [job.status for job in app.connector.jobs_of(wild)] == [Status.SUCCEEDED])
    await _runs_a_job(app)
    assert not running.done()
    assert mine is not None
    running.cancel()
    await asyncio.wait([running])


async def test_a_sign_of_life_that_comes_late_does_not_enter_a_worker_that_has_left(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "COMPANIONS_MAY_TAKE", 0.1)
    left, threads = threading.Event(), []
    give = Heartbeat._give_sign_of_life

    def late(self: Heartbeat, line: Any) -> None:
        threads.append(threading.current_thread())
        assert left.wait(30)
        give(self, line)

    monkeypatch.setattr(Heartbeat, "_give_sign_of_life", late)
    await any_app.run_worker_async(wait=False, install_signal_handlers=False)
    left.set()
    await asyncio.to_thread(threads[0].join, 30)
    assert not threads[0].is_alive()
    assert await any_app.job_manager.list_workers_async() == []


def test_the_watchdog_is_gone_when_it_was_stopped() -> None:
    class Slow(Watchdog):
        def _watch(self) -> None:
            super()._watch()
            time.sleep(0.2)

    watchdog = Slow("test")
    watchdog.start()
    watchdog.stop()
    assert not watchdog.is_alive


def test_the_watchdog_ends_waits_and_leaves_those_alone_that_have_ended() -> None:
    watchdog = Watchdog("test")
    watchdog.start()
    bitten: list[str] = []
    released = threading.Event()

    def bite() -> None:
        bitten.append("slow")
        if len(bitten) == 2:  # again, as the first time there may have been nothing to sever
            released.set()

    with watchdog.watching(60.0, lambda: bitten.append("patient")):
        with watchdog.watching(1.0, lambda: bitten.append("quick")):
            pass
        with watchdog.watching(1.0, bite):
            assert released.wait(30)
    watchdog.stop()

    assert bitten[:2] == ["slow", "slow"]
    assert set(bitten) == {"slow"}
    assert not watchdog.is_alive


POISONED_APP = """
import logging
import time

import procrastinate
from procrastinate.testing import InMemoryConnector
import procrastinate.worker.PART as module

app = procrastinate.App(connector=InMemoryConnector())
began = time.monotonic()
original = module.CLASS.METHOD


def poisoned(self, *args, **options):
    if time.monotonic() > began + 1.0:
        raise MemoryError("poison")
    return original(self, *args, **options)


class Unusable(logging.Handler):
    def handle(self, record):
        raise MemoryError("no log either")


module.CLASS.METHOD = poisoned
logging.getLogger("procrastinate").addHandler(Unusable())
"""


@pytest.mark.parametrize(
    ("module", "kind", "method"),
    [
        ("companions.heartbeat", "Heartbeat", "round"),
        ("helpers.housekeeping", "Housekeeping", "_round"),
        ("companions.vitals", "Vitals", "say"),
        ("claiming.fetcher", "Fetcher", "claim"),
    ],
)
def test_a_program_whose_worker_lost_a_part_exits_with_1(
    tmp_path: Path, module: str, kind: str, method: str
) -> None:
    """Also if every line of its log raises."""
    text = POISONED_APP.replace("PART", module).replace("CLASS", kind).replace("METHOD", method)
    (tmp_path / "poisoned.py").write_text(text)
    command = [sys.executable, "-m", "procrastinate", "--app=poisoned.app", "worker"]
    options = ["--heartbeat-interval=0.2", "--stalled-worker-timeout=5"]

    ended = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1, ended.stderr
    assert "ended because its" in ended.stderr
