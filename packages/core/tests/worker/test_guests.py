"""A worker in somebody else's process: kept for the length of a block, or run as a task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import procrastinate
from procrastinate import Status, WorkerFailed, errors
from procrastinate.model.liveness import restarts
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import worker as worker_module
from procrastinate.worker.helpers.housekeeping import Housekeeping
from procrastinate.worker.process.keeping import Keeper
from procrastinate.worker.shift.shift import Shift
from procrastinate.worker.writing.writer import Writer


class Planned(Exception):
    """What the tests kill workers with."""


class Deaths:
    """Kills the workers of a test: their present run, or each next one at its start."""

    def __init__(self) -> None:
        self.runs = 0
        self.at_start: list[BaseException] = []
        self.killing: asyncio.Future[None] | None = None

    def kill(self, exc: BaseException | None = None) -> None:
        """End the present run with an exception."""
        assert self.killing is not None
        self.killing.set_exception(exc or Planned("the worker dies"))

    async def run(self, shift: Shift) -> None:
        self.runs += 1
        if self.at_start:
            raise self.at_start.pop(0)
        self.killing = asyncio.get_running_loop().create_future()
        working = asyncio.create_task(Shift.run(shift))
        await asyncio.wait([working, self.killing], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
            self.killing.result()
        self.killing.cancel()
        working.result()


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    planned = Deaths()

    class MortalShift(Shift):
        async def run(self) -> None:
            await planned.run(self)

    monkeypatch.setattr(worker_module.Worker, "_shift_type", MortalShift)
    monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
    return planned


@pytest.fixture
def app() -> procrastinate.App:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="add")
    async def add(a: int) -> None: ...

    return app


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


async def runs_jobs(app: procrastinate.App, until: Callable[..., Any]) -> None:
    job_id = await app.configure_task("add").defer_async(a=1)
    assert isinstance(app.connector, InMemoryConnector)
    jobs = app.connector
    await until(lambda: {job.id: job.status for job in jobs.jobs}[job_id] is Status.SUCCEEDED)


# --- Entering and leaving -------------------------------------------------------------------------


async def test_a_worker_is_registered_and_listening_once_the_block_is_entered(
    any_app: procrastinate.App, until: Callable[..., Any]
) -> None:
    done = asyncio.Event()

    @any_app.task
    async def task() -> None:
        done.set()

    async with any_app.worker(fetch_job_polling_interval=3600) as worker:
        assert (worker.is_alive, worker.is_stopping, worker.failure) == (True, False, None)
        await task.defer_async()  # heard of, or else it would wait for an hour
        await asyncio.wait_for(done.wait(), 10)
    assert (worker.is_alive, worker.is_stopping, worker.failure) == (False, False, None)


async def test_a_worker_that_does_not_listen_enters_too(any_app: procrastinate.App) -> None:
    async with any_app.worker(listen_notify=False) as worker:
        assert worker.is_alive


async def test_a_stopped_worker_has_left_the_database(
    dsn: str, query: Callable[..., list[Any]]
) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        async with app.worker(name="guest"):
            assert query("select name from procrastinate_workers") == [("guest",)]
        assert query("select name from procrastinate_workers") == []


async def test_leaving_lets_running_jobs_end(app: procrastinate.App) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task
    async def slow() -> None:
        began.set()
        await may_end.wait()

    async with app.open_async():
        job_id = await slow.defer_async()
        async with app.worker():
            await asyncio.wait_for(began.wait(), 10)
            asyncio.get_running_loop().call_later(0.05, may_end.set)
        assert await app.job_manager.get_job_status_async(job_id) is Status.SUCCEEDED


async def endless(began: asyncio.Event) -> None:
    began.set()
    await asyncio.sleep(3600)


async def test_past_the_graceful_timeout_running_jobs_are_aborted(app: procrastinate.App) -> None:
    began = asyncio.Event()

    @app.task
    async def long() -> None:
        await endless(began)

    async with app.open_async():
        job_id = await long.defer_async()
        async with app.worker(shutdown_graceful_timeout=0.01):
            await asyncio.wait_for(began.wait(), 10)
        assert await app.job_manager.get_job_status_async(job_id) is Status.TODO


async def test_a_cancellation_while_the_block_is_left_means_now(app: procrastinate.App) -> None:
    began = asyncio.Event()

    @app.task
    async def long() -> None:
        await endless(began)

    async def program() -> None:
        async with app.worker(shutdown_graceful_timeout=None):
            await asyncio.wait_for(began.wait(), 10)

    async with app.open_async():
        job_id = await long.defer_async()
        host = asyncio.create_task(program())
        await asyncio.wait_for(began.wait(), 10)
        await asyncio.sleep(0)
        host.cancel()
        await asyncio.wait([host], timeout=10)
        assert host.cancelled()
        assert await app.job_manager.get_job_status_async(job_id) is Status.TODO


@pytest.mark.parametrize("exc", [ValueError("mine"), KeyError(), asyncio.CancelledError()])
async def test_the_exception_of_the_block_goes_on_its_way(
    app: procrastinate.App, exc: BaseException
) -> None:
    with pytest.raises(type(exc)) as raised:
        async with app.open_async(), app.worker() as worker:
            raise exc
    assert raised.value is exc
    assert not worker.is_alive


# --- What keeps a worker from starting ------------------------------------------------------------


async def test_no_tables(procrastinate_dsn: str) -> None:
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        with pytest.raises(errors.SchemaNotApplied):
            async with app.worker() as worker:
                pytest.fail("entered")
        worker = app.worker()
        with pytest.raises(errors.SchemaNotApplied):
            await worker.__aenter__()
        assert isinstance(worker.failure, errors.SchemaNotApplied)
        assert not worker.is_alive


async def test_no_server(dsn: str) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn, listen_dsn="host=127.0.0.1 port=1")
    async with procrastinate.App(connector=connector).open_async() as app:
        worker = app.worker()
        with pytest.raises(errors.ConnectionFailed):
            await worker.__aenter__()
        assert not worker.is_alive


async def test_an_app_that_is_not_open(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
    with pytest.raises(errors.AppNotOpen):
        await app.worker().__aenter__()


@pytest.mark.parametrize(
    "exc",
    [
        Planned("at the start"),
        MemoryError(),
        errors.InsufficientPrivilege("no grant"),
        TimeoutError(),
        asyncio.CancelledError(),
    ],
)
async def test_whatever_ends_it_at_its_start(
    app: procrastinate.App, deaths: Deaths, exc: BaseException
) -> None:
    deaths.at_start = [exc]
    expected = WorkerFailed if isinstance(exc, asyncio.CancelledError) else type(exc)
    async with app.open_async():
        worker = app.worker()
        with pytest.raises(expected):
            await worker.__aenter__()
    assert deaths.runs == 1
    assert isinstance(worker.failure, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"colour": "red"}, "colour"),
        ({"on_failure": "exit"}, "on_failure"),
        ({"on_failure": "cancel", "wait": False}, "wait"),
        ({"on_failure": print, "install_signal_handlers": True}, "install_signal_handlers"),
    ],
)
def test_a_wrong_option_is_refused_at_once(
    app: procrastinate.App, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(errors.InvalidOption, match=says):
        app.worker(**options)


@pytest.mark.parametrize("option", ["wait", "install_signal_handlers"])
async def test_what_contradicts_a_block_is_refused_when_it_is_entered(
    app: procrastinate.App, option: str
) -> None:
    options: dict[str, Any] = {option: option != "wait"}
    async with app.open_async():
        worker = app.worker(**options)
        with pytest.raises(errors.InvalidOption, match=option):
            await worker.__aenter__()
        worker.stop()
        await worker.run()  # it may still run


async def test_a_default_that_does_not_wait_is_refused_in_a_block() -> None:
    app = procrastinate.App(connector=InMemoryConnector(), worker_defaults={"wait": False})
    async with app.open_async():
        with pytest.raises(errors.InvalidOption, match="wait"):
            await app.worker().__aenter__()
        async with app.worker(wait=True) as worker:
            assert worker.is_alive


async def test_on_failure_is_for_a_block(app: procrastinate.App) -> None:
    async with app.open_async():
        with pytest.raises(errors.InvalidOption, match="on_failure"):
            await app.worker(on_failure="restart").run()


async def test_entering_that_is_cancelled_leaves_nothing_behind(
    app: procrastinate.App, deaths: Deaths
) -> None:
    async with app.open_async():
        worker = app.worker()
        entering = asyncio.create_task(worker.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering], timeout=10)
        assert entering.cancelled()
        assert not worker.is_alive
        async with worker:
            assert worker.is_alive


# --- When it ends by itself -----------------------------------------------------------------------

REASONS = [
    Planned("the worker dies"),
    MemoryError("no memory"),
    errors.ConnectionLost("gone"),
    RuntimeError("x" * 10_000),
    type("Deaf", (Exception,), {"__str__": lambda self: 1 / 0})(),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("reason", REASONS, ids=lambda exc: type(exc).__name__)
async def test_it_is_started_again(
    app: procrastinate.App,
    deaths: Deaths,
    caplog: pytest.LogCaptureFixture,
    until: Callable[..., Any],
    reason: BaseException,
) -> None:
    async with app.open_async(), app.worker(name="guest") as worker:
        deaths.kill(reason)
        await until(lambda: deaths.runs == 2 and worker.failure is None)
        assert worker.is_alive
        await runs_jobs(app, until)
    (line,) = errors_of(caplog)
    assert line.startswith("worker guest ")
    assert line.endswith("; it is started again in 0.001 s")
    assert len(line) < 3_000


@pytest.mark.parametrize("turns", range(6))
async def test_an_end_just_after_its_start_is_handled_once(
    app: procrastinate.App,
    deaths: Deaths,
    caplog: pytest.LogCaptureFixture,
    until: Callable[..., Any],
    turns: int,
) -> None:
    async with app.open_async():
        worker = app.worker()
        entering = asyncio.create_task(worker.__aenter__())
        while deaths.killing is None:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        deaths.kill()
        try:
            await asyncio.wait_for(entering, 10)
        except Planned:  # it was not listening yet
            assert deaths.runs == 1
            return
        await until(lambda: deaths.runs == 2 and worker.failure is None)
        await worker.__aexit__(None, None, None)
        assert (deaths.runs, len(errors_of(caplog))) == (2, 1)


async def test_after_five_restarts_within_an_hour_it_stays_ended(
    app: procrastinate.App,
    deaths: Deaths,
    caplog: pytest.LogCaptureFixture,
    until: Callable[..., Any],
) -> None:
    async with app.open_async(), app.worker() as worker:
        deaths.at_start = [Planned(f"{number}") for number in range(2, 7)]
        deaths.kill()
        await until(lambda: deaths.runs == 6 and "not started again" in "".join(errors_of(caplog)))
        assert not worker.is_alive
        assert repr(worker.failure) == "Planned('6')"
        assert not worker.is_stopping
    assert deaths.runs == 6
    assert repr(worker.failure) == "Planned('6')"
    assert len(errors_of(caplog)) == 6


async def test_restarts_that_do_not_reach_the_database_do_not_count(
    app: procrastinate.App, deaths: Deaths, until: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(restarts, "LONGEST_PAUSE", 0.001)
    away = [errors.ConnectionFailed(), errors.ConnectionLost(), errors.PoolTimeout()]
    deaths_at_start = [*away, TimeoutError()] * 3
    async with app.open_async(), app.worker() as worker:
        deaths.at_start = [*deaths_at_start]
        deaths.kill()
        runs = 2 + len(deaths_at_start)
        await until(lambda: deaths.runs == runs and worker.failure is None)
        await runs_jobs(app, until)


async def in_the_pause(worker: procrastinate.Worker, deaths: Deaths, until: Any) -> Keeper:
    """Kill a worker that is started again in a pause that no test waits for."""
    deaths.kill()
    await until(lambda: worker.failure is not None)
    assert not worker.is_alive
    assert worker._keeper is not None
    return worker._keeper


async def test_a_block_that_is_left_during_the_pause_starts_nothing(
    app: procrastinate.App, deaths: Deaths, until: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE", 30.0)
    async with app.open_async():
        async with app.worker() as worker:
            keeper = await in_the_pause(worker, deaths, until)
        assert keeper._next_start is not None
        assert keeper._next_start.cancelled()
        assert (deaths.runs, worker.is_alive) == (1, False)
        assert isinstance(worker.failure, Planned)


async def test_cancel_ends_the_block_and_says_why(
    app: procrastinate.App, deaths: Deaths, caplog: pytest.LogCaptureFixture
) -> None:
    async def program() -> None:
        async with app.worker(on_failure="cancel"):
            deaths.kill()
            await asyncio.sleep(3600)

    async with app.open_async():
        host = asyncio.create_task(program())
        await asyncio.wait([host], timeout=10)
        with pytest.raises(WorkerFailed, match="has ended: Planned: the worker dies") as raised:
            host.result()
        assert isinstance(raised.value.__cause__, Planned)
        assert host.cancelling() == 0
    assert (deaths.runs, len(errors_of(caplog))) == (1, 1)


async def test_cancel_does_not_reach_beyond_the_block(
    app: procrastinate.App, deaths: Deaths, until: Callable[..., Any]
) -> None:
    """Also if the block is left before the cancellation was delivered to it."""
    async with app.open_async():
        with pytest.raises(WorkerFailed):
            async with app.worker(on_failure="cancel"):
                deaths.kill()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="mine"):
            async with app.worker(on_failure="cancel") as worker:
                deaths.kill()
                task = asyncio.current_task()
                assert task is not None
                while not task.cancelling():  # without giving it a chance to be delivered
                    await _one_turn()
                raise ValueError("mine")
        await asyncio.sleep(0)
        assert isinstance(worker.failure, Planned)
        assert task.cancelling() == 0


async def _one_turn() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def test_another_cancellation_is_kept(app: procrastinate.App, deaths: Deaths) -> None:
    async def program() -> None:
        async with app.worker(on_failure="cancel"):
            deaths.kill()
            await asyncio.sleep(3600)

    async def cancel_too() -> None:
        while not host.cancelling():
            await asyncio.sleep(0)
        host.cancel()

    async with app.open_async():
        host = asyncio.create_task(program())
        cancelling = asyncio.create_task(cancel_too())
        await asyncio.wait([host, cancelling], timeout=10)
        assert host.cancelled()


async def test_terminate_sends_sigterm_to_the_process(
    app: procrastinate.App, deaths: Deaths, until: Callable[..., Any]
) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        async with app.open_async(), app.worker(on_failure="terminate") as worker:
            deaths.kill()
            await until(lambda: got == [signal.SIGTERM])
            assert isinstance(worker.failure, Planned)
        assert deaths.runs == 1
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", ["plain", "async", "raises", "async, raises"])
async def test_a_function_is_given_what_ended_it(
    app: procrastinate.App,
    deaths: Deaths,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    got: list[BaseException] = []

    def tell(exc: BaseException) -> None:
        got.append(exc)
        if "raises" in kind:
            raise ValueError("mine")

    async def tell_async(exc: BaseException) -> None:
        await asyncio.sleep(0)
        tell(exc)

    on_failure = tell_async if "async" in kind else tell
    async with app.open_async(), app.worker(name="guest", on_failure=on_failure) as worker:
        deaths.kill()
        await until(lambda: got)
        assert got == [worker.failure]
        expected = ["worker guest has ended: Planned: the worker dies"]
        expected += ["on_failure of worker guest raised"] * ("raises" in kind)
        await until(lambda: errors_of(caplog) == expected)
    assert deaths.runs == 1


# --- Stopping from within and without -------------------------------------------------------------


@pytest.mark.parametrize("on_failure", ["restart", "cancel", "terminate", print])
async def test_a_worker_that_is_told_to_stop_has_not_failed(
    app: procrastinate.App,
    deaths: Deaths,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    on_failure: Any,
) -> None:
    async with app.open_async(), app.worker(on_failure=on_failure) as worker:
        thread = threading.Thread(target=worker.stop)
        thread.start()
        thread.join()
        await until(lambda: not worker.is_alive)
        assert (worker.failure, worker.is_stopping) == (None, True)
    assert (deaths.runs, worker.failure, errors_of(caplog)) == (1, None, [])


async def test_a_stop_before_the_start_is_remembered(app: procrastinate.App) -> None:
    async with app.open_async():
        worker = app.worker()
        worker.stop()
        await asyncio.wait_for(worker.run(), 10)
        assert (worker.is_alive, worker.is_stopping, worker.failure) == (False, False, None)


async def test_a_stop_in_the_pause_before_a_restart_is_obeyed(
    app: procrastinate.App, deaths: Deaths, until: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE", 30.0)
    async with app.open_async(), app.worker() as worker:
        keeper = await in_the_pause(worker, deaths, until)
        worker.stop()
        keeper._start_unless_stopped()  # the pause is over
        assert (deaths.runs, worker.is_alive) == (1, False)
        assert keeper._running is not None
        assert keeper._running.done()


async def test_it_runs_once_at_a_time_and_again_after_its_end(app: procrastinate.App) -> None:
    async with app.open_async():
        worker = app.worker()
        async with worker:
            for again in (worker.run, worker.__aenter__):
                with pytest.raises(errors.ConfigurationError, match="runs already"):
                    await again()
            assert worker.is_alive
        worker.stop()  # after its end, which changes nothing
        async with worker:
            assert (worker.is_alive, worker.is_stopping) == (True, False)
        running = asyncio.create_task(worker.run())
        while not worker.is_alive:
            await asyncio.sleep(0)
        with pytest.raises(errors.ConfigurationError, match="runs already"):
            await worker.run()
        worker.stop()
        await asyncio.wait_for(running, 10)


# --- A worker as a task ---------------------------------------------------------------------------


@contextlib.contextmanager
def silent_loop() -> Iterator[None]:
    """A loop that does not complain of exceptions that were never looked at."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    yield
    loop.set_exception_handler(None)


DYING: dict[str, Callable[[procrastinate.App], Any]] = {
    "not open": lambda app: app.run_worker_async(),
    "wrong option": lambda app: app.run_worker_async(concurrency=0),
    "unknown option": lambda app: app.run_worker_async(colour="red"),  # type: ignore[call-arg]
    "no such module": lambda app: _with_import_path(app).run_worker_async(),
    "synchronous": lambda app: app.with_connector("psycopg2").run_worker_async(),
    "a worker of its own": lambda app: app.worker().run(),
}


def _with_import_path(app: procrastinate.App) -> procrastinate.App:
    app.import_paths = ("no.such.module",)
    return app


@pytest.mark.parametrize("why", DYING)
async def test_a_worker_that_dies_at_once_in_a_task_says_why(
    caplog: pytest.LogCaptureFixture, why: str
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector())
    task = asyncio.create_task(DYING[why](app))
    with silent_loop():
        await asyncio.wait([task])
        (line,) = errors_of(caplog)
        assert str(task.exception()) in line
        assert type(task.exception()).__name__ in line


async def test_a_worker_without_tables_says_why_in_its_task(
    procrastinate_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        task = asyncio.create_task(app.run_worker_async())
        await asyncio.wait([task])
        assert isinstance(task.exception(), errors.SchemaNotApplied)
        assert ["SchemaNotApplied" in line for line in errors_of(caplog)] == [True]


async def test_a_worker_that_dies_later_in_a_task_says_why_with_its_traceback(
    app: procrastinate.App, deaths: Deaths, caplog: pytest.LogCaptureFixture
) -> None:
    async with app.open_async():
        worker = app.worker(name="guest")
        task = asyncio.create_task(worker.run())
        while not worker.is_alive or deaths.killing is None:
            await asyncio.sleep(0)
        deaths.kill()
        await asyncio.wait([task], timeout=10)
        assert task.exception() is worker.failure
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.getMessage() == "worker guest has ended: Planned: the worker dies"
    assert record.exc_text is not None
    assert "Traceback" in record.exc_text


PARTS = {"writer": Writer, "housekeeping": Housekeeping}


@pytest.mark.parametrize("part", PARTS)
async def test_a_worker_that_ends_because_a_part_of_it_died_is_started_again(
    app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    part: str,
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
    alive = PARTS[part].run
    dies = asyncio.Event()

    async def run(self: Any) -> None:
        living = asyncio.create_task(alive(self))
        dying = asyncio.create_task(dies.wait())
        try:
            await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
            if dies.is_set():
                dies.clear()
                raise MemoryError
        finally:
            living.cancel()
            dying.cancel()

    monkeypatch.setattr(PARTS[part], "run", run)
    async with app.open_async(), app.worker(name="guest") as worker:
        dies.set()
        await until(lambda: "runs again" in caplog.text)
        assert (worker.is_alive, worker.failure) == (True, None)
        await runs_jobs(app, until)
    assert errors_of(caplog) == [
        f"the {part} of worker guest has died: it ends",
        f"worker guest ended because its {part} died; it is started again in 0.001 s",
    ]


async def test_a_worker_that_is_cancelled_has_not_failed(
    app: procrastinate.App, caplog: pytest.LogCaptureFixture
) -> None:
    async with app.open_async():
        worker = app.worker()
        task = asyncio.create_task(worker.run())
        while not worker.is_alive:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
    assert (worker.failure, errors_of(caplog)) == (None, [])
