"""The worker as its users see it: a name, a way to stop it, and `run`.

What happens while it runs is a `Shift`, made anew for each run.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import ClassVar

from procrastinate.gateway import Gateway
from procrastinate.model.job import Job
from procrastinate.model.periodic import Periodic
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.schema import check_schema
from procrastinate.worker.context import RunningApp
from procrastinate.worker.log import logger
from procrastinate.worker.shift import LAST_CALL_MAY_TAKE, Shift
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.threads import TaskThreads

GRACEFULLY, NOW = 1, 2  # how a stop was asked for


class Worker:
    """Runs the jobs of one app until it is told to stop; made by ``App.run_worker``."""

    _shift_type: ClassVar[type[Shift]] = Shift

    def __init__(
        self,
        *,
        app: RunningApp,
        gateway: Gateway,
        registry: TaskRegistry,
        options: WorkerOptions,
        periodics: Sequence[Periodic] = (),
        on_ended: Callable[[Job, BaseException | None], None] | None = None,
        threads: TaskThreads | None = None,
    ) -> None:
        self._app = app
        self._gateway = gateway
        self._registry = registry
        self._options = options
        self._periodics = periodics
        self._connector = gateway.async_connector()
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._on_ended = on_ended
        self._threads = threads
        self._asked = 0  # or GRACEFULLY, or NOW
        self._loop: asyncio.AbstractEventLoop | None = None  # until it runs
        self._wake = asyncio.Event()
        self._stop = StopRequests(on_request=self._wake.set)
        for name in registry:  # raises `InvalidOption` before anything begins
            registry[name].layers(options.middleware)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked > 0

    def stop(self) -> None:
        """Ask for a graceful end, from any thread, also before it runs.

        Asking again changes nothing.
        """
        self._ask(GRACEFULLY)

    def stop_now(self) -> None:
        """Ask for an end now, from any thread: running jobs are aborted or handed back."""
        self._ask(NOW)

    def _ask(self, how: int) -> None:
        self._asked = max(self._asked, how)
        try:
            if self._loop is not None:  # else `run` sees what was asked
                self._loop.call_soon_threadsafe(self._obey)
        except RuntimeError:
            pass  # the loop is closed: it has ended

    def _obey(self) -> None:
        if self._asked >= GRACEFULLY and not self._stop.gracefully.is_set():
            self._stop.request()
        if self._asked >= NOW and not self._stop.now.is_set():
            self._stop.request()

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready.

        Cancelling stops it gracefully first. Raises `SchemaError` and `ConnectorException` while
        it starts; afterwards no failure of the database ends it.
        """
        self._loop = asyncio.get_running_loop()
        self._obey()
        with self._stop.on_signals(install=self._options.install_signal_handlers):
            working = asyncio.create_task(self._work())
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                await self._stopped(working)
                raise

    async def _stopped(self, working: asyncio.Task[None]) -> None:
        """See a cancelled run to its graceful end; a second cancellation makes it end now."""
        while not working.done():
            self._stop.request()
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                continue

    async def _work(self) -> None:
        if self._stop.gracefully.is_set():
            return
        try:
            async with self._stop.limit(None, stopping=LAST_CALL_MAY_TAKE):
                worker_id = await self._register()
        except TimeoutError:
            logger.warning("worker %s was stopped before it was heard by the database", self.name)
            return
        await self._new_shift(worker_id).run()

    async def _register(self) -> int:
        await self._gateway.run_async(check_schema(self._gateway.sql))
        return await self._gateway.run_async(flows.register_worker(self._gateway.sql, self.name))

    def _new_shift(self, worker_id: int) -> Shift:
        return self._shift_type(
            app=self._app,
            worker=self,
            worker_id=worker_id,
            gateway=self._gateway,
            registry=self._registry,
            options=self._options,
            periodics=self._periodics,
            stop=self._stop,
            wake=self._wake,
            on_ended=self._on_ended,
            threads=self._threads,
        )
