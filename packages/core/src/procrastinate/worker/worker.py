"""The worker: one loop that fetches, and the order in which everything starts and ends.

Rules

1. One fetch loop for all slots. It claims as many jobs as there are slots free, and some ahead
   while jobs are short (`procrastinate.model.prefetch`).
2. Connections: one to fetch, one to write, one to listen, one for housekeeping, and one for
   periodic tasks where there are any, whatever the concurrency.
3. Nothing but a request to stop ends the loop. While the database is away, running jobs run on,
   their endings wait, and the loop tries again.
4. The end, in this order: fetch no more; hand back what waits; let running jobs end, or abort them
   when time is up; write every ending; only then stop the heartbeat and leave.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway, in_thread
from procrastinate.model.job import Job
from procrastinate.model.options import WorkerOptions
from procrastinate.model.periodic import Periodic
from procrastinate.model.prefetch import Prefetch
from procrastinate.model.task import TaskRegistry
from procrastinate.storage import workers as flows
from procrastinate.storage.periodic import defer_due
from procrastinate.storage.schema import check_schema
from procrastinate.worker import listener
from procrastinate.worker.backlog import Backlog
from procrastinate.worker.backoff import Backoff
from procrastinate.worker.context import RunningApp
from procrastinate.worker.deferrer import Deferrer, log_settled
from procrastinate.worker.fetcher import Fetcher
from procrastinate.worker.housekeeping import Housekeeping
from procrastinate.worker.slots import Slots
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.threads import TaskThreads
from procrastinate.worker.writer import Writer

logger = logging.getLogger("procrastinate.worker")

TICK = 0.25  # seconds between looks at jobs claimed ahead
ABORTED_TASKS_MAY_TAKE = 2.0  # seconds to end once aborted by the worker's shutdown
LAST_WRITES_MAY_TAKE = 10.0  # seconds, while the database is away, before a stopped worker gives up
LAST_CALL_MAY_TAKE = 5.0  # seconds for any other call of a stopping worker, for the same reason
CALL_MAY_TAKE = 60.0  # seconds until a call is given up, as the network seems to swallow it


class Worker:
    """Runs the jobs of one app until it is told to stop; made by ``App.run_worker``."""

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
        self._loop: asyncio.AbstractEventLoop | None = None  # until it runs
        self._loop_turned = time.monotonic()
        self._aborts_heard: set[int] | None = None
        for name in registry:  # raises `InvalidOption` before anything begins
            registry[name].layers(options.middleware)

    def stop(self) -> None:
        """Ask for a graceful end, from any thread. Asking again changes nothing."""
        self._call_on_loop(self._stop_gracefully)

    def stop_now(self) -> None:
        """Ask for an end now, from any thread: running jobs are aborted or handed back."""
        self._call_on_loop(self._stop_at_once)

    def _call_on_loop(self, function: Callable[[], None]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: it has ended

    def _stop_gracefully(self) -> None:
        if not self._stop.gracefully.is_set():
            self._stop.request()

    def _stop_at_once(self) -> None:
        self._stop_gracefully()
        if not self._stop.now.is_set():
            self._stop.request()

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready.

        Cancelling stops it gracefully first. Raises `SchemaError` and `ConnectorException` while
        it starts; afterwards no failure of the database ends it.
        """
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stop = StopRequests(on_request=self._wake.set)
        self._fetch_due = self._poll_due = 0.0
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
        try:
            async with self._stop.limit(None, stopping=LAST_CALL_MAY_TAKE):
                await self._register()
        except TimeoutError:
            logger.warning("worker %s was stopped before it was heard by the database", self.name)
            return
        self._set_up()
        logger.info(
            "worker %s starts: queues %s, concurrency %d",
            self.name,
            ", ".join(self._options.queues or ["(all)"]),
            self._options.concurrency,
            extra={"action": "start_worker", "worker_id": self._worker_id},
        )
        helpers = [asyncio.create_task(each) for each in (self._writer.run(), self._tick())]
        if self._options.listen_notify and isinstance(self._connector, ListeningConnector):
            helpers.append(asyncio.create_task(self._listen(self._connector)))
        self._housekeeping.start()
        try:
            await self._start_deferring()
            await self._fetch_until_stopped()
            self._deferrer.defer_no_more()
            await self._finish_what_runs()
        finally:
            await self._leave(helpers)

    async def _register(self) -> None:
        await self._gateway.run_async(check_schema(self._gateway.sql))
        register = flows.register_worker(self._gateway.sql, self.name)
        self._worker_id = await self._gateway.run_async(register)

    def _set_up(self) -> None:
        self._writer = Writer(
            self._gateway,
            self._worker_id,
            self._options.delete_jobs,
            on_written=self._job_ended,
            on_requeued=self._look_at_everything,
            on_released=self._look_now,
        )
        self._prefetch = Prefetch(self._options.concurrency)
        self._slots = Slots(
            app=self._app,
            registry=self._registry,
            writer=self._writer,
            options=self._options,
            worker=self,
            prefetch=self._prefetch,
            on_change=self._job_ended,
            on_ended=self._on_ended,
            threads=self._threads,
        )
        self._backlog = Backlog(
            self._slots,
            self._writer,
            concurrency=self._options.concurrency,
            prefetch=self._prefetch,
            on_change=self._job_ended,
        )
        self._fetcher = Fetcher(
            self._gateway,
            self._worker_id,
            self._options.queues,
            delete_ended=self._options.delete_jobs == "always",
        )

        def abort(ids: set[int]) -> None:
            self._call_on_loop(functools.partial(self._abort, ids))

        self._housekeeping = Housekeeping(
            self._connector.sync_connector(),
            self._gateway.sql,
            self._worker_id,
            self.name,
            self._options,
            on_aborts=abort,
            seconds_since_loop_turned=lambda: time.monotonic() - self._loop_turned,
        )

        self._deferrer = Deferrer(
            self._connector.sync_connector(),
            self._gateway.sql,
            self._periodics,
            worker_name=self.name,
        )

    # Periodic tasks

    async def _start_deferring(self) -> None:
        """Let the deferrer begin; a worker that does not wait defers what is due now, once."""
        if self._options.wait:
            self._deferrer.start()
            return
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                log_settled(
                    await self._gateway.run_async(defer_due(self._gateway.sql, self._periodics))
                )
        except (ConnectorException, TimeoutError) as exc:
            reason = str(exc) or "the database does not answer"
            logger.warning("periodic tasks could not be deferred: %s", reason)

    # Fetching

    async def _fetch_until_stopped(self) -> None:
        backoff = Backoff()
        while not self._stop.gracefully.is_set():
            self._wake.clear()
            room = self._backlog.room()
            if room == 0 or time.monotonic() < self._fetch_due:
                await self._sleep(room)
                continue
            self._fetch_due = math.inf  # news meanwhile make it 0 again
            was_idle = not (self._backlog.busy or len(self._writer))
            try:
                found = await self._fetch(room)
            except (ConnectorException, TimeoutError) as exc:
                self._fetch_due = 0.0
                await self._wait_for_database(backoff, exc)
                continue
            backoff.reset()
            if was_idle and not found and not self._options.wait and not self._fetcher.unsure:
                return
            if found == room:
                self._fetch_due = 0.0
            elif self._fetch_due:
                now = time.monotonic()
                self._poll_due = now + self._options.fetch_job_polling_interval
                self._fetch_due = min(self._poll_due, now + self._fetcher.seconds_to_next_look)

    async def _fetch(self, room: int) -> int:
        began = time.monotonic()
        heard = self._aborts_heard = set()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                claim = await self._fetcher.claim(room, known=self._backlog)
        finally:
            self._aborts_heard = None
        self._prefetch.claim_took(time.monotonic() - began)
        self._backlog.take(claim)
        if any(job.id in heard for job in claim.jobs):
            # A request overtook the claim's answer; or it was for another worker that had the job.
            self._housekeeping.look_for_aborts()
        return len(claim.jobs)

    async def _sleep(self, room: int) -> None:
        """Wait for a slot, a notification, a written ending, or the time of the next look."""
        timeout = None if room == 0 else max(0.0, self._fetch_due - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            if time.monotonic() >= self._poll_due:  # and not for what the fetcher knows of
                self._fetcher.look_at_everything()

    async def _wait_for_database(self, backoff: Backoff, exc: Exception) -> None:
        if not backoff.failing:
            logger.warning("no jobs can be fetched: %s", str(exc) or "the database does not answer")
        try:
            async with asyncio.timeout(backoff.next_wait()):
                await self._stop.gracefully.wait()
        except TimeoutError:
            pass

    # Being woken

    async def _listen(self, connector: ListeningConnector) -> None:
        try:
            await listener.listen(
                connector, on_notification=self._heard, on_listening=self._listening
            )
        except Exception:  # a connector set up in a way that cannot listen, for instance
            logger.exception("cannot listen to the database: jobs are found by polling alone")

    def _heard(self, notification: Notification) -> None:
        if notification.channel == listener.ABORTS:
            if notification.payload.isdecimal():
                self._abort({int(notification.payload)})
        elif notification.channel == listener.SCHEDULE:
            self._fetcher.schedule_changed()
            self._look_now()
        elif self._fetcher.serves(notification.payload):
            self._fetcher.heard_of(notification.payload)
            self._look_now()

    def _abort(self, ids: set[int]) -> None:
        """Abort jobs, also those whose claim is being answered: they are not known here yet."""
        self._slots.abort(ids)
        self._backlog.abort(ids)
        if self._aborts_heard is not None:
            self._aborts_heard |= ids

    def _job_ended(self) -> None:
        if not self._options.wait:
            self._fetch_due = 0.0  # a worker that does not wait looks again before it ends
        self._wake.set()

    def _listening(self) -> None:
        """Look at all that may have been announced while nobody listened."""
        self._look_at_everything()
        self._housekeeping.look_for_aborts()

    def _look_at_everything(self) -> None:
        self._fetcher.look_at_everything()
        self._look_now()

    def _look_now(self) -> None:
        self._fetch_due = 0.0
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            self._loop_turned = time.monotonic()
            self._backlog.give_back_impatient()
            await asyncio.sleep(TICK)

    # Ending

    async def _finish_what_runs(self) -> None:
        self._backlog.give_back()
        if self._backlog.busy:
            logger.info("waiting for %d running jobs", len(self._slots.running))
        await self._until_idle(self._options.shutdown_graceful_timeout, or_told=True)
        if self._backlog.busy:
            self._slots.abort_all()
            await self._until_idle(ABORTED_TASKS_MAY_TAKE, or_told=False)
            self._slots.give_back()

    async def _until_idle(self, timeout: float | None, *, or_told: bool) -> None:
        """Wait until no job runs; no longer than so many seconds, nor than told to end now."""
        try:
            async with asyncio.timeout(timeout):
                while self._backlog.busy and not (or_told and self._stop.now.is_set()):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass

    async def _leave(self, helpers: list[asyncio.Task[None]]) -> None:
        await self._write_the_rest()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        self._slots.close()
        await in_thread(self._deferrer.stop)
        await in_thread(self._housekeeping.stop)
        try:
            async with asyncio.timeout(LAST_CALL_MAY_TAKE):
                await self._fetcher.settle(known=self._backlog)
                await self._gateway.run_async(
                    flows.unregister_worker(self._gateway.sql, self._worker_id)
                )
        except (ConnectorException, TimeoutError) as exc:
            reason = str(exc) or "the database does not answer"
            logger.warning("worker %s could not say goodbye: %s", self.name, reason)
        logger.info("worker %s has stopped", self.name, extra={"action": "stop_worker"})

    async def _write_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WRITES_MAY_TAKE):
                while len(self._writer):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            logger.error(
                "%d results could not be written; their jobs will run again", len(self._writer)
            )
