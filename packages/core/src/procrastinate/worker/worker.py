"""The worker as its users see it: a name, a way to stop it, `run`, and ``async with``.

What happens while it runs is a `Shift`, made anew for each run.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, ClassVar

from procrastinate.errors import ConfigurationError, InvalidOption, WorkerFailed
from procrastinate.former import HasFormerNames
from procrastinate.gateway import Gateway
from procrastinate.model.job import Job
from procrastinate.model.liveness.guests import OnFailure, for_block
from procrastinate.model.periodic import Periodic
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.observing.exposing import exposed
from procrastinate.observing.observers import Observers
from procrastinate.storage.workers import About
from procrastinate.worker.claiming.claiming import LAST_CALL_MAY_TAKE
from procrastinate.worker.context import RunningApp
from procrastinate.worker.log import logger
from procrastinate.worker.process import forks, heap, probes
from procrastinate.worker.process.keeping import Keeper, log_end
from procrastinate.worker.process.last_resort import LastResort
from procrastinate.worker.process.own_loop import own_task
from procrastinate.worker.process.signals import Taking, asking, kept
from procrastinate.worker.registration import Registered, about_worker, register, take_back
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.shift.shift import Shift
from procrastinate.worker.shift.terms import Terms
from procrastinate.worker.stopping import StopRequests

GRACEFULLY, NOW = 1, 2  # how a stop was asked for

# Makes the task that works. A program that ends cancels all of its tasks, and with them a guest's
# work. In a process of the worker's own only a job could do so, hence `own_task`.
NewTask = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Worker(HasFormerNames):
    """Runs the jobs of one app until it is told to stop; made by `App.worker`.

    ``name`` is its name in logs, and ``options`` are its `WorkerOptions`. Await `run`, or keep it
    running for the length of a block::

        async with app.worker(concurrency=10):
            ...

    Entering returns once the worker is registered and listening. It raises what prevents that:
    `SchemaError`, `ConnectorException`, `AppNotOpen`, `InvalidOption`. In a block the worker
    handles no signals. Leaving stops it gracefully: running jobs may take
    ``shutdown_graceful_timeout``, by default 25 seconds. If the worker ends by itself in between,
    it logs why at ERROR, and ``on_failure`` decides what follows (`App.worker`).

    It runs once at a time, and may run again after its end.
    """

    _shift_type: ClassVar[type[Shift]] = Shift

    def __init__(
        self,
        *,
        app: RunningApp,
        gateway: Gateway,
        registry: TaskRegistry,
        options: WorkerOptions,
        given: Collection[str] = (),
        on_failure: OnFailure | None = None,
        periodics: Sequence[Periodic] = (),
        on_ended: Callable[[Job, BaseException | None], None] | None = None,
        threads: TaskThreads | None = None,
    ) -> None:
        self._app = app
        self._gateway = gateway
        self._registry = registry
        self.options = options
        self._given = given
        self._on_failure = on_failure
        self._periodics = periodics
        self._connector = gateway.async_connector()
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._on_ended = on_ended
        self._threads = threads
        self._failure: BaseException | None = None
        self._keeper: Keeper | None = None  # while in a block
        self._taken = False  # by a run, or by a block
        self._is_alive = False
        self._shift: Shift | None = None  # while it works
        #: Whether its jobs are counted for an HTTP port.
        self.is_exposed = options.http_port is not None
        self._asked = 0  # or GRACEFULLY, or NOW; also before it runs
        self._over = False
        self._owns_process = False
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        for name in registry:  # raises `InvalidOption` before anything begins
            registry[name].layers(options.middleware)

    # What it is

    @property
    def is_alive(self) -> bool:
        """Whether it runs. While a block's worker waits to be started again, it does not."""
        return self._is_alive

    @property
    def failure(self) -> BaseException | None:
        """The exception that ended it, or None while it runs, or if it was told to stop."""
        return self._failure if self._keeper is None else self._keeper.failure

    # Stopping

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, and has not ended yet."""
        return self._asked > 0

    def stop(self) -> None:
        """Ask for a graceful end, from any thread. Asking again changes nothing.

        A worker that has not begun yet ends as soon as it begins. After its end nothing changes.
        """
        self._ask(GRACEFULLY)

    def stop_now(self) -> None:
        """Ask for an end now, from any thread: running jobs are aborted or handed back."""
        self._ask(NOW)

    def _signalled(self) -> None:
        is_second = self._asked or self._stop.gracefully.is_set()  # by whatever the first was
        self._ask(NOW if is_second else GRACEFULLY)

    def _ask(self, how: int) -> None:
        # Without a lock, because a signal handler may call it in the middle of `_run`, which sets
        # the loop before it reads the number: one of the two sees what the other wrote.
        if self._over:
            return
        self._asked = max(self._asked, how)
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._obey)
                if how >= NOW and self._owns_process:
                    LastResort(self._loop, lambda: self._over).watch()
        except RuntimeError:
            pass  # the loop is closed: it has ended

    def _obey(self) -> None:
        if self._asked >= GRACEFULLY and not self._stop.gracefully.is_set():
            self._stop.request()
        if self._asked >= NOW and not self._stop.now.is_set():
            self._stop.request()

    # Running

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready.

        Cancelling stops it gracefully first. Raises `SchemaError` and `ConnectorException` while
        it starts; afterwards no failure of the database ends it. If it raises, it logs why.

        Signals stop it if nothing else in the process handles them; see `App.run_worker_async`.
        """
        try:
            await self._run_once(Taking.FREE)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            log_end(self.name, exc)
            raise

    async def run_as_program(self) -> None:
        """Work as `run` does, in a process of its own, for a caller that reports what it raises.

        Signals stop it, whatever handled them before. If it is told to stop now while a task
        blocks the event loop, the process ends with exit code 1.
        """
        self._owns_process = True
        with heap.spared(), forks.owned():
            await self._run_once(Taking.BOTH, new_task=own_task)

    async def _run_once(self, taking: Taking, new_task: NewTask = asyncio.create_task) -> None:
        if self._on_failure is not None:
            raise InvalidOption(
                "on_failure is for `async with app.worker(...)`: run() raises what ended the worker"
            )
        if not self.options.install_signal_handlers:
            taking = Taking.NONE
        with self._in_use():
            try:
                await self._run(self.options, taking, new_task=new_task)
            except asyncio.CancelledError:
                raise
            except BaseException as exc:
                self._failure = exc
                raise

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._let_go()

    def _take(self) -> None:
        if self._taken:
            raise ConfigurationError(
                f"worker {self.name} runs already: for a second one, call app.worker() again"
            )
        self._taken, self._over, self._failure = True, False, None

    def _let_go(self) -> None:
        self._taken, self._over, self._asked = False, True, 0

    async def _run(
        self,
        options: WorkerOptions,
        taking: Taking,
        on_listening: Callable[[Exception | None], None] = lambda _: None,
        new_task: NewTask = asyncio.create_task,
    ) -> None:
        self._wake = asyncio.Event()
        self._stop = StopRequests(on_request=self._wake.set)
        self._loop, self._is_alive = asyncio.get_running_loop(), True
        try:
            self._obey()
            with (
                asking(self._signalled, taking) as take_back,
                kept(take_back) if self._owns_process else nullcontext(),
                probes.answering(self, options.http_host, options.http_port),
            ):
                await self._to_its_end(new_task(self._work(options, on_listening)))
        finally:
            self._loop, self._is_alive = None, False

    async def _to_its_end(self, working: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await self._stopped(working)
            task = asyncio.current_task()
            if working.cancelled() and not (task and task.cancelling()):
                raise WorkerFailed(
                    f"worker {self.name} ended because something cancelled its task"
                ) from None
            raise

    async def _stopped(self, working: asyncio.Task[None]) -> None:
        """See a cancelled run to its graceful end; a second cancellation makes it end now."""
        while not working.done():
            self._stop.request()
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                continue

    async def _work(
        self, options: WorkerOptions, on_listening: Callable[[Exception | None], None]
    ) -> None:
        if self._stop.gracefully.is_set():
            return
        # What may raise comes before there is a row.
        observers, about = self._observers(), about_worker(self.options, self._registry)
        try:
            async with self._stop.limit(None, stopping=LAST_CALL_MAY_TAKE):
                self._connector.check_for_worker()
                registered = await register(self._gateway, self.name, about, self._stop)
        except TimeoutError:
            if not self._stop.gracefully.is_set():
                raise
            logger.warning("worker %s was stopped before it was heard by the database", self.name)
            return
        try:
            self._shift = self._new_shift(registered, about, options, observers, on_listening)
        except BaseException:
            await take_back(self._gateway, self.name, registered.worker_id, self._stop)
            raise
        try:
            await self._shift.run()
        finally:
            self._shift = None

    def _new_shift(
        self,
        registered: Registered,
        about: About,
        options: WorkerOptions,
        observers: Observers,
        on_listening: Callable[[Exception | None], None],
    ) -> Shift:
        terms = Terms(
            app=self._app,
            worker=self,
            worker_id=registered.worker_id,
            registered_at=registered.at,
            about=about,
            gateway=self._gateway,
            observers=observers,
            registry=self._registry,
            options=options,
            periodics=self._periodics,
            stop=self._stop,
            wake=self._wake,
            on_ended=self._on_ended,
            threads=self._threads,
            on_listening=on_listening,
        )
        return self._shift_type(terms)

    def _observers(self) -> Observers:
        return exposed(self._gateway.observers) if self.is_exposed else self._gateway.observers

    # Asked from other threads

    def sicknesses(self) -> Sequence[str]:
        """Return why only a restart can help, as ``/healthz`` says; nothing if it is well."""
        return () if (shift := self._shift) is None else shift.health.sicknesses()

    def hindrances(self) -> Sequence[str]:
        """Return why no job could be started now, as ``/readyz`` says beside that."""
        if (shift := self._shift) is None:
            return ("the worker is not registered",)
        return shift.health.hindrances()

    # In a block

    async def __aenter__(self) -> Worker:
        options = for_block(self.options, self._given)
        self._take()
        self._keeper = Keeper(
            worker=self,
            run=lambda on_listening: self._run(options, Taking.NONE, on_listening),
            was_told_to_stop=lambda: self.is_stopping,
            on_failure=self._on_failure or "restart",
        )
        try:
            await self._keeper.enter()
        except BaseException as exc:
            self._end_block(exc)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._keeper is not None
        try:
            await self._keeper.leave(exc)
        finally:
            self._end_block(self._keeper.failure)

    def _end_block(self, failure: BaseException | None) -> None:
        self._failure, self._keeper = failure, None
        self._let_go()
