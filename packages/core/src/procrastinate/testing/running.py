"""Running in a test what is waiting: a real worker, which ends when nothing is left to do.

Rules

1. It is the worker of `App.run_worker`: its claims, its slots and its writer. It hears no signals
   and no notifications, and keeps the jobs that it has run.
2. `run_jobs` runs plain tasks in the thread that called it, so that what belongs to a thread (the
   session of a database, its open transaction) is the test's own; the worker's loop is in another.
3. `run_jobs_async` runs plain tasks in the worker's threads, as outside of tests, because what may
   block must not be on a loop. So does `run_jobs` if a loop runs in the calling thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from procrastinate.app.app import App
from procrastinate.connector import AsyncConnector
from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate.model.job import Job, Status
from procrastinate.model.worker_options import WorkerOptions, renamed, worker_options
from procrastinate.testing.base import KeepsJobs
from procrastinate.worker.claiming.claiming import Claiming
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.shift.shift import Shift
from procrastinate.worker.worker import Worker

#: What a test has no use for; an option given here by the caller is an error.
FIXED = {
    "wait": False,
    "listen_notify": False,
    "install_signal_handlers": False,
    "delete_jobs": "never",
}
STOP_MAY_TAKE = 5.0  # seconds, after an interruption


def run_jobs(
    app: App,
    *,
    queues: Iterable[str] | None = None,
    limit: int | None = None,
    raise_errors: bool = True,
    **options: Any,
) -> list[Job]:
    """Run the jobs that are due, and those that become so meanwhile; return them as they end up.

    They are in the order in which they ended first. ``limit`` is how many attempts may begin;
    ``queues`` and further ``options`` are a worker's. With ``raise_errors``, once all have run, the
    exception is raised of the first job whose last attempt here failed, also if it waits for a
    retry; not that of an aborted one.

    Plain tasks run in this thread; where an event loop runs in it, in others. Raises
    `ConfigurationError` unless the app is on an `InMemoryConnector`, and `InvalidOption`.
    """
    threads = None if _a_loop_runs_here() else CallersThread()
    worker = TestWorker(app, queues, limit, options, threads)
    _run_in_another_thread(worker, threads)
    return worker.ended_jobs(raise_errors=raise_errors)


async def run_jobs_async(
    app: App,
    *,
    queues: Iterable[str] | None = None,
    limit: int | None = None,
    raise_errors: bool = True,
    **options: Any,
) -> list[Job]:
    """Run the jobs that are due on the running loop, plain tasks in threads; see `run_jobs`."""
    worker = TestWorker(app, queues, limit, options)
    await worker.run()
    return worker.ended_jobs(raise_errors=raise_errors)


class CallersThread(TaskThreads):
    """Lets one thread that was there before make the calls: by `serve`, until it is closed."""

    def __init__(self) -> None:
        super().__init__(1, "")

    def close(self) -> None:
        self._let_one_end()

    def _start_thread(self) -> None:
        pass


class LimitedClaiming(Claiming):
    """Claims for a limited number of attempts, and ends the worker after them."""

    left: int | None = None  # attempts that may still begin; None: any number

    async def _fetch(self, room: int) -> int:
        if self.left is None:
            return await super()._fetch(room)
        if not self.left:
            if not self._backlog.busy:
                self._stop.request()
            return 0
        found = await super()._fetch(min(room, self.left))
        self.left -= found
        return found


class LimitedShift(Shift):
    """A shift that claims for a limited number of attempts."""

    _claiming_type = LimitedClaiming

    def limit(self, left: int | None) -> None:
        """Say for how many; None is any number."""
        assert isinstance(self._crew.claiming, LimitedClaiming)
        self._crew.claiming.left = left


class TestWorker(Worker):
    """A worker that begins a limited number of attempts and knows what they raised."""

    _shift_type = LimitedShift

    __test__ = False  # for pytest: its name is no test's

    def __init__(
        self,
        app: App,
        queues: Iterable[str] | None,
        limit: int | None,
        options: dict[str, Any],
        threads: TaskThreads | None = None,
    ) -> None:
        self._in_memory = _in_memory_connector(app)
        self._left = _checked_limit(limit)
        self._raised: dict[int, BaseException | None] = {}
        app.perform_import_paths()
        super().__init__(
            app=app,
            gateway=app._gateway,
            registry=app._registry,
            options=_options(app, queues, options),
            periodics=app._periodics_to_defer(),
            on_ended=self._note,
            threads=threads,
        )

    def _note(self, job: Job, exception: BaseException | None) -> None:
        self._raised[job.id] = exception
        if isinstance(exception, KeyboardInterrupt):
            self.stop()

    def _new_shift(self, *run: Any) -> Shift:
        shift = super()._new_shift(*run)
        assert isinstance(shift, LimitedShift)
        shift.limit(self._left)
        return shift

    def ended_jobs(self, *, raise_errors: bool) -> list[Job]:
        """Return the jobs that were run, or raise what one of them raised."""
        jobs = {job.id: job for job in self._in_memory.jobs}
        ended = [jobs[job_id] for job_id in self._raised if job_id in jobs]
        for job in ended:
            exception = self._raised[job.id]
            failed = raise_errors and job.status in (Status.FAILED, Status.TODO)
            interrupted = isinstance(exception, KeyboardInterrupt)
            if exception is not None and (failed or interrupted):
                exception.add_note(f"raised by {job.call_string}, which is now {job.status}")
                raise exception
        return ended


def _in_memory_connector(app: App) -> KeepsJobs:
    if not isinstance(app, App):
        raise InvalidOption(f"app must be an App, not {app!r}")
    connector = app.connector
    if isinstance(connector, KeepsJobs) and isinstance(connector, AsyncConnector):
        return connector
    raise ConfigurationError(
        f"the app's jobs are not in memory, but where its {type(app.connector).__name__} leads:"
        " use procrastinate.testing.in_memory(app), or the fixture procrastinate_in_memory"
    )


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise InvalidOption(f"limit must be an int of 1 or more, or None, not {limit!r}")
    return limit


def _options(app: App, queues: Iterable[str] | None, given: dict[str, Any]) -> WorkerOptions:
    """Return what is asked for here, and else what the app says, but for queues and concurrency."""
    for name in FIXED.keys() & given.keys():
        raise InvalidOption(f"{name} is not for run_jobs: it is always {FIXED[name]!r} there")
    defaults = {**app.worker_defaults, "concurrency": 1}
    return worker_options(**{**defaults, **renamed(given), **FIXED, "queues": queues})


def _a_loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_another_thread(worker: TestWorker, threads: CallersThread | None) -> None:
    """Run a worker on a loop in a thread of its own; make its calls here, if that was wanted."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            done.set_result(asyncio.run(worker.run()))
        except BaseException as exc:
            done.set_exception(exc)
        finally:
            if threads is not None:
                threads.close()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=[work], name="run_jobs", daemon=True)
    thread.start()
    try:
        if threads is not None:
            threads.serve()
        done.result()
    except BaseException:
        worker.stop_now()
        raise
    finally:
        thread.join(STOP_MAY_TAKE)
