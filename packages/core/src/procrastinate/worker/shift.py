"""A shift: one loop that fetches, and the order in which everything starts and ends.

Rules

1. One fetch loop for all slots. It claims as many jobs as there are slots free, and some ahead
   for slots that will soon be free (`procrastinate.model.ahead`).
2. Connections: one to fetch, one to write, one to listen, one for housekeeping, and one for
   periodic tasks where there are any, whatever the concurrency.
3. Nothing but a request to stop ends the loop. While the database is away, running jobs run on,
   their endings wait, and the loop tries again.
4. The end, in this order: fetch no more; hand back what waits; let running jobs end, or abort them
   when time is up; write every ending; only then stop the heartbeat and leave.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway, in_thread
from procrastinate.model.ahead import Ahead
from procrastinate.model.alarm import Alarm
from procrastinate.model.job import Job
from procrastinate.model.periodic import Periodic
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.periodic import defer_due
from procrastinate.worker import listener
from procrastinate.worker.backlog import Backlog
from procrastinate.worker.backoff import Backoff
from procrastinate.worker.companion import Companion, Duty, Line
from procrastinate.worker.context import RunningApp, RunningWorker
from procrastinate.worker.fetcher import Fetcher
from procrastinate.worker.housekeeping import Housekeeping
from procrastinate.worker.log import logger
from procrastinate.worker.past_errors import PastErrors
from procrastinate.worker.slots import Slots
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.threads import TaskThreads
from procrastinate.worker.ticker import Ticker, log_settled
from procrastinate.worker.writer import Writer

TICK = 0.25  # seconds between signs that the loop turns
ABORTED_TASKS_MAY_TAKE = 2.0  # seconds to end once aborted by the worker's shutdown
LAST_WRITES_MAY_TAKE = 10.0  # seconds, while the database is away, before a stopped worker gives up
LAST_CALL_MAY_TAKE = 5.0  # seconds for any other call of a stopping worker, for the same reason
CALL_MAY_TAKE = 60.0  # seconds until a call is given up, as the network seems to swallow it


class Shift:
    """One run of a worker, from its registration to its leave; made by `Worker.run`."""

    def __init__(
        self,
        *,
        app: RunningApp,
        worker: RunningWorker,
        worker_id: int,
        gateway: Gateway,
        registry: TaskRegistry,
        options: WorkerOptions,
        periodics: Sequence[Periodic],
        stop: StopRequests,
        wake: asyncio.Event,
        on_ended: Callable[[Job, BaseException | None], None] | None,
        threads: TaskThreads | None,
        on_listening: Callable[[Exception | None], None],
    ) -> None:
        self._on_listening = on_listening  # hears of each LISTEN: in force (None), or why it failed
        self._gateway = gateway
        self._name = worker.name
        self._worker_id = worker_id
        self._options = options
        self._periodics = periodics
        self._stop = stop
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._loop_turned = time.monotonic()
        self._aborts_heard: set[int] | None = None
        self._claim = Alarm()  # the next claim
        self._poll_due = -math.inf  # after waiting until then, the next claim looks at everything
        self._writer = Writer(
            gateway,
            worker_id,
            options.delete_jobs,
            on_written=self._job_ended,
            on_requeued=self._look_at_everything,
            on_released=self._look_now,
        )
        self._ahead = Ahead(random.Random())
        self._slots = Slots(
            app=app,
            registry=registry,
            writer=self._writer,
            options=options,
            worker=worker,
            ahead=self._ahead,
            read_errors=PastErrors(gateway),
            on_ended=on_ended,
            threads=threads,
        )
        self._backlog = Backlog(
            self._slots,
            self._writer,
            concurrency=options.concurrency,
            ahead=self._ahead,
            on_change=self._job_ended,
            on_look=self._wake.set,
        )
        self._fetcher = Fetcher(
            gateway, worker_id, options.queues, delete_ended=options.delete_jobs == "always"
        )
        self._housekeeping = Housekeeping(
            gateway.sql,
            worker_id,
            worker.name,
            options,
            on_aborts=self._abort_from_thread,
            seconds_since_loop_turned=lambda: time.monotonic() - self._loop_turned,
        )
        self._housekeeper = self._companion(self._housekeeping, Backoff(1.0, 1.0))
        self._ticker = self._companion(Ticker(gateway.sql, periodics), Backoff())

    def _companion(self, duty: Duty, backoff: Backoff) -> Companion:
        line = Line(self._gateway.async_connector().sync_connector())
        return Companion(duty, line, worker_name=self._name, backoff=backoff)

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready."""
        logger.info(
            "worker %s starts: queues %s, concurrency %d",
            self._name,
            ", ".join(self._options.queues or ["(all)"]),
            self._options.concurrency,
            extra={"action": "start_worker", "worker_id": self._worker_id},
        )
        helpers = [asyncio.create_task(each) for each in self._helpers()]
        self._housekeeper.start()
        try:
            await self._start_ticking()
            await self._fetch_until_stopped()
            self._ticker.let_go()
            await self._finish_what_runs()
        finally:
            await self._leave(helpers)

    def _helpers(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs on the loop beside the fetching."""
        helpers = [self._writer.run(), self._tick()]
        connector = self._gateway.connector
        if self._options.listen_notify and isinstance(connector, ListeningConnector):
            helpers.append(self._listen(connector))
        else:
            self._on_listening(None)
        return helpers

    # Periodic tasks

    async def _start_ticking(self) -> None:
        """Start the ticker; a worker that does not wait defers what is due now, once."""
        if self._options.wait:
            if self._periodics:
                self._ticker.start()
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
            if self._backlog.wants_look:
                await self._look_behind()
            room = self._backlog.room()
            if room == 0 or not self._claim.due(time.monotonic()):
                await self._sleep(room)
                continue
            self._claim.begin()
            was_idle = not (self._backlog.busy or len(self._writer))
            try:
                found = await self._fetch(room)
            except (ConnectorException, TimeoutError) as exc:
                self._claim.ring()
                await self._wait_for_database(backoff, exc)
                continue
            backoff.reset()
            if was_idle and not found and not self._options.wait and not self._fetcher.unsure:
                return
            if found == room:
                self._claim.ring()
                continue
            now = time.monotonic()
            self._poll_due = now + self._options.fetch_job_polling_interval
            self._claim.end(min(self._poll_due, now + self._fetcher.seconds_to_next_look))

    async def _fetch(self, room: int) -> int:
        began = time.monotonic()
        heard = self._aborts_heard = set()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                claim = await self._fetcher.claim(room, known=self._backlog)
        finally:
            self._aborts_heard = None
        if claim.jobs:
            self._ahead.claim_took(time.monotonic() - began)
        self._backlog.take(claim, asked=room)
        if any(job.id in heard for job in claim.jobs):
            # A request overtook the claim's answer; or it was for another worker that had the job.
            self._look_for_aborts()
        return len(claim.jobs)

    async def _sleep(self, room: int) -> None:
        """Wait for a slot, a notification, a written ending, or the time of the next look."""
        now = time.monotonic()
        until = max(self._claim.at, self._backlog.room_from if room == 0 else now)
        alarm = None if until == math.inf else self._loop.call_later(until - now, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        # Not for what the fetcher knows of.
        if room and now < self._poll_due <= time.monotonic():
            self._fetcher.look_at_everything()

    async def _look_behind(self) -> None:
        """Ask whether more jobs are ready than were claimed."""
        began = time.monotonic()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                found = await self._fetcher.is_anything_ready()
        except (ConnectorException, TimeoutError):
            found = False  # if nothing is known, another worker may be idle
        self._backlog.looked(found, time.monotonic() - began)

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
                connector,
                on_notification=self._heard,
                on_listening=self._listening,
                on_failed=self._on_listening,
            )
        except Exception as exc:  # a connector set up in a way that cannot listen, for instance
            self._on_listening(exc)
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

    def _abort_from_thread(self, ids: set[int]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._abort, ids)
        except RuntimeError:
            pass  # the loop is closed: the shift has ended

    def _look_for_aborts(self) -> None:
        self._housekeeping.look_for_aborts()
        self._housekeeper.hurry()

    def _job_ended(self) -> None:
        if not self._options.wait:
            self._claim.ring()  # a worker that does not wait looks again before it ends
        self._wake.set()

    def _listening(self) -> None:
        """Look at all that may have been announced while nobody listened."""
        self._on_listening(None)
        self._look_at_everything()
        self._look_for_aborts()

    def _look_at_everything(self) -> None:
        self._fetcher.look_at_everything()
        self._look_now()

    def _look_now(self) -> None:
        self._claim.ring()
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            self._loop_turned = time.monotonic()
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
        await in_thread(self._ticker.stop)
        await in_thread(self._housekeeper.stop)
        try:
            async with asyncio.timeout(LAST_CALL_MAY_TAKE):
                await self._fetcher.settle(known=self._backlog)
                await self._gateway.run_async(
                    flows.unregister_worker(self._gateway.sql, self._worker_id)
                )
        except (ConnectorException, TimeoutError) as exc:
            reason = str(exc) or "the database does not answer"
            logger.warning("worker %s could not say goodbye: %s", self._name, reason)
        logger.info("worker %s has stopped", self._name, extra={"action": "stop_worker"})

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
