"""A shift: all parts of a worker's run, and the order in which they start and end.

Rules

1. Connections: two of the pool for claiming, writing and housekeeping, one to listen, one for the
   heartbeat, and one for periodic tasks if there are any, whatever the concurrency.
2. The end, in this order: claim no more; hand back what waits; let running jobs end, or abort them
   when time is up; write every ending; only then stop the heartbeat and leave.
3. A request to stop ends the shift, and so does the death of a part that it needs: of a helper, of
   the claiming itself, of a companion that died too often. Then it ends in the same order, as far
   as the other parts can, and raises `WorkerFailed`.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from procrastinate.connector import ListeningConnector
from procrastinate.drive import Step, run_steps_async
from procrastinate.errors import ConnectorException, ProcrastinateException, WorkerFailed
from procrastinate.gateway import Gateway
from procrastinate.model.ahead import Ahead
from procrastinate.model.job import Job
from procrastinate.model.judging import has_turn
from procrastinate.model.periodic import Periodic
from procrastinate.model.printable import counted
from procrastinate.model.task import TaskRegistry
from procrastinate.model.unknown_tasks import UnknownTasks
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.observing.observers import Observers
from procrastinate.storage import workers as flows
from procrastinate.storage.periodic import defer_due_in_steps
from procrastinate.storage.workers import About, Beat
from procrastinate.threads import in_thread
from procrastinate.worker import job_log
from procrastinate.worker.backlog.backlog import Backlog
from procrastinate.worker.claiming.claiming import CALL_MAY_TAKE, LAST_CALL_MAY_TAKE, Claiming
from procrastinate.worker.companions.blocking import LoopSight
from procrastinate.worker.companions.companion import Companion
from procrastinate.worker.companions.companions import Companions
from procrastinate.worker.companions.heartbeat import Heartbeat
from procrastinate.worker.companions.ticker import Ticker, log_settled
from procrastinate.worker.companions.vitals import Vitals
from procrastinate.worker.context import RunningApp, RunningWorker
from procrastinate.worker.database.calls import Calls, reason_of
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.helpers import Helpers
from procrastinate.worker.helpers.housekeeping import Housekeeping
from procrastinate.worker.helpers.listener import Listener
from procrastinate.worker.helpers.minutes import Minutes
from procrastinate.worker.helpers.pausing import Paused, Pausing
from procrastinate.worker.log import logger
from procrastinate.worker.process.probes import BLOCKED_AFTER, STUCK_AFTER
from procrastinate.worker.running.past_errors import PastErrors
from procrastinate.worker.running.progress import Reports
from procrastinate.worker.running.slots import Slots
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.telling import Telling
from procrastinate.worker.writing.writer import Writer

TICK = 0.25  # seconds between signs that the loop turns
ABORTED_TASKS_MAY_TAKE = 2.0  # seconds to end once aborted by the worker's shutdown
LAST_WRITES_MAY_TAKE = 10.0  # seconds, while the database is away, before a stopped worker gives up
WRITER = "writer"


class Shift:
    """One run of a worker, from its registration to its leave; made by `Worker.run`."""

    _claiming_type: ClassVar[type[Claiming]] = Claiming

    def __init__(
        self,
        *,
        app: RunningApp,
        worker: RunningWorker,
        worker_id: int,
        registered_at: float,
        about: About,
        gateway: Gateway,
        observers: Observers,
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
        self._calls = Calls(gateway)
        self._partitions = partitions = gateway.statements.partitions
        places = Places(partitions)
        self._outages = Outages(self._calls, partitions)
        self._name = worker.name
        self._worker_id = worker_id
        self._about = about
        self._options = options
        self._periodics = periodics
        self._stop = stop
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._loop_turned = time.monotonic()
        self._ahead = Ahead(random.Random())
        keep = options.keep_throughput
        self._minutes = Minutes(self._calls, keep=keep) if keep else None
        self._telling = telling = Telling(
            *(observers, worker.name, worker_id, options.log_jobs),
            counting=self._minutes,
        )
        self._vitals = Vitals(worker.name, options, registered_at=registered_at)
        self._paused = Paused()
        # A job of an unknown task can wait for other workers only if there may be any (not in
        # memory), and if this worker stays to see it.
        waits_for_others = options.wait and self._calls.connector.runs_sql
        unknown = UnknownTasks() if waits_for_others else None
        self._claiming = self._claiming_type(
            self._calls,
            worker_id,
            options,
            stop=stop,
            wake=wake,
            trusted=self._vitals.trusted,
            ahead=self._ahead,
            unknown=unknown,
            places=places,
            outages=self._outages,
            paused=self._paused,
            keeps=registry.keeps_results,
        )
        self._writer = Writer(
            self._calls,
            worker_id,
            options.delete_jobs,
            places,
            self._outages,
            on_written=self._claiming.something_ended,
            on_requeued=self._claiming.look_at,
            on_released=self._claiming.went_back,
            hand_over=self._claiming.hand_over,
            echoes=self._claiming.echoes,
            on_lost=lambda: self._housekeeping.look_for_losses(),
            keeps=registry.keeps_results,
            telling=telling,
        )
        self._reports = Reports(
            self._calls,
            worker_id,
            places,
            self._outages,
            running=lambda: self._slots.all(),
        )
        self._slots = Slots(
            app=app,
            registry=registry,
            writer=self._writer,
            options=options,
            worker=worker,
            ahead=self._ahead,
            read_errors=PastErrors(gateway),
            is_doubtful=self._vitals.doubtful,
            trust=self._vitals.trust,
            say=self._reports.say,
            partitions=partitions,
            unknown=unknown,
            on_ended=on_ended,
            threads=threads,
            telling=telling,
        )
        self._backlog = Backlog(
            self._slots,
            self._writer,
            concurrency=options.concurrency,
            ahead=self._ahead,
            trust=self._vitals.trust,
            on_change=self._claiming.something_ended,
            on_look=self._wake.set,
            paused=self._paused,
            telling=telling,
        )
        self._pausing = Pausing(
            self._calls,
            self._paused,
            options.queues,
            interval=options.fetch_job_polling_interval,
            on_paused=self._backlog.give_back_paused,
            on_resumed=self._claiming.look_at_everything,
            telling=telling,
        )
        self._housekeeping = Housekeeping(
            self._calls,
            worker_id,
            options,
            keeps=registry.keeps_results,
            partitions=partitions,
            outages=self._outages,
            leases=self._backlog.leases,
            may_judge=self._vitals.may_judge,
            on_aborts=self._abort,
            on_lost=self._backlog.lose,
            telling=telling,
        )
        self._helpers = Helpers(on_death=self._died)
        self._companions = Companions(
            gateway.async_connector(),
            gateway.statements,
            worker.name,
            on_giving_up=self._companion_gave_up,
        )
        self._ticker: Companion | None = None
        self._deaths: dict[str, BaseException] = {}
        self._writer_lives = True

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready.

        Raises `WorkerFailed` if a part of it died.
        """
        logger.info(
            "worker %s starts: queues %s, concurrency %d",
            self._name,
            ", ".join(self._options.queues or ["(all)"]),
            self._options.concurrency,
            extra=self._fields("start_worker"),
        )
        self._telling.worker_started(self._options.queues, self._options.concurrency)
        try:
            await self._work()
        finally:
            self._telling.worker_stopped()

    # Asked from other threads

    def sicknesses(self) -> list[str]:
        """Return why only a restart can help; nothing if it is well."""
        found = [f"the thread of {name} is dead" for name in self._companions.dead()]
        silence = self._silence()
        if silence >= STUCK_AFTER:
            found.append(f"the event loop has not turned for {silence:.0f} s")
        return found

    def hindrances(self) -> list[str]:
        """Return why no job could be started now."""
        found = []
        if self._stop.gracefully.is_set():
            found.append("the worker stops")
        if not self._vitals.answered:
            found.append("the database does not answer")
        if not self._vitals.trusted():
            found.append("no sign of life has been confirmed in time")
        if not self._paused.is_known:
            found.append("it was not read yet which queues are paused")
        if BLOCKED_AFTER <= (silence := self._silence()) < STUCK_AFTER:
            found.append(f"the event loop has not turned for {silence:.0f} s")
        return found

    def _silence(self) -> float:
        return time.monotonic() - self._loop_turned

    async def _work(self) -> None:
        try:
            self._start_parts()
            await self._begin()
            await self._claiming.until_stopped(
                self._backlog, self._writer, self._housekeeping.look_for_aborts, self._abort
            )
        except asyncio.CancelledError:  # by other code on the loop, or because the loop ends
            self._stop.request_now()
            await self._end()
            raise
        except BaseException as exc:
            self._died("fetching", exc)
        await self._end()
        for name, cause in self._deaths.items():
            raise WorkerFailed(f"worker {self._name} ended because its {name} died") from cause

    def _fields(self, action: str) -> dict[str, object]:
        return {"action": action, "worker_name": self._name, "worker_id": self._worker_id}

    def _start_parts(self) -> None:
        """Start what runs beside the fetching: helpers on the loop, companions beside it."""
        self._helpers.start(WRITER, self._writer.run)
        self._helpers.start("tick", self._tick)
        self._helpers.start("housekeeping", self._housekeeping.run)
        self._helpers.start("progress", self._reports.run)
        if self._minutes is not None:
            self._helpers.start("minutes", self._minutes.run)
        self._helpers.start("pausing", self._pausing.run)
        if (sweeper := self._claiming.sweeper) is not None:
            sweeper.room = self._backlog.free
            self._helpers.start("sweeper", sweeper.run)
            self._helpers.start("outages", self._outages.run)
        connector = self._calls.connector
        if self._options.listen_notify and isinstance(connector, ListeningConnector):
            self._helpers.start("listener", functools.partial(self._listen, connector))
        else:
            self._on_listening(None)
        heartbeat = Heartbeat(
            self._worker_id,
            self._name,
            self._options,
            about=self._about,
            vitals=self._vitals,
            on_beat=self._beat_in_thread,
            seconds_since_loop_turned=self._silence,
            busy=lambda: len(self._slots),
            what_blocks=LoopSight(lambda: self._slots.running).look,
        )
        self._companions.start(heartbeat, longest_wait=1.0)
        if self._options.wait and self._periodics:
            ticker = Ticker(self._periodics, self._telling.ticks_settled)
            self._ticker = self._companions.start(ticker, longest_wait=5.0)

    # Deaths

    def _died(self, name: str, exc: BaseException) -> None:
        """Note that a part is dead, and let the shift end."""
        again = name in self._deaths
        self._deaths.setdefault(name, exc)
        logger.error("the %s of worker %s has died: it ends", name, self._name, exc_info=exc)
        if name == WRITER and not again:
            self._helpers.start(WRITER, self._writer.run)  # for the endings that are left
        if name == WRITER and again:
            self._writer_lives = False
        if not self._stop.gracefully.is_set():
            self._stop.request()
        self._wake.set()

    def _companion_gave_up(self, name: str, exc: BaseException) -> None:
        self._on_loop(self._died, name, exc)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Let a companion's thread have something done on the loop."""
        try:
            self._loop.call_soon_threadsafe(self._seen_to_its_end, function, *args)
        except RuntimeError:
            pass  # the loop is closed: the shift has ended

    def _seen_to_its_end(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; what a callback of the loop raises would go unseen, or end the loop."""
        try:
            function(*args)
        except BaseException as exc:
            self._died("news from a companion", exc)

    # Signs of life

    def _beat_in_thread(self, beat: Beat) -> None:
        self._on_loop(self._beaten, beat)

    def _beaten(self, beat: Beat) -> None:
        """Act on the database's answer to a sign of life."""
        if self._vitals.say():
            self._claiming.look_at_everything()
        if beat.reborn:
            logger.warning(
                "worker %s had been taken for dead; jobs that it held may run elsewhere too",
                self._name,
            )
            self._housekeeping.look_for_losses()
        if self._claiming.sweeper is not None:
            self._claiming.sweeper.beaten(beat)
        interval = self._options.update_heartbeat_interval
        its_turn = has_turn(beat.now, interval=interval, rank=beat.rank, live=beat.live)
        if its_turn:
            self._housekeeping.take_turn()
        if self._minutes is not None:
            self._minutes.beaten(beat.now, its_turn=its_turn)

    async def _begin(self) -> None:
        """Do once what a worker that does not wait has no time to do later."""
        if self._options.wait:
            return
        if self._minutes is not None:
            self._minutes.take_turn()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                await self._housekeeping.recover(2 * self._options.stalled_worker_timeout)
                settled = await run_steps_async(
                    defer_due_in_steps(self._periodics, self._partitions), self._run_step
                )
            log_settled(settled)
            self._telling.ticks_settled(settled)
        except (ConnectorException, TimeoutError) as exc:
            reason = reason_of(exc)
            logger.warning("dead workers' jobs or periodic tasks have to wait: %s", reason)

    async def _run_step(self, step: Step) -> Any:
        return await self._calls.run_async(
            step.flow, transaction=step.transaction, limit=step.limit
        )

    # Being woken

    async def _listen(self, connector: ListeningConnector) -> None:
        listener = Listener(
            connector,
            self._calls,
            self._worker_id,
            on_queue=self._claiming.heard_of,
            on_schedule=self._claiming.schedule_changed,
            on_abort=lambda job_id: self._abort({job_id}),
            on_pause=self._pausing.look_now,
            on_listening=self._listening,
            on_failed=self._not_listening,
        )
        self._calls.on_loss = listener.doubt
        try:
            await listener.run()
        except ProcrastinateException as exc:  # for instance a pool with one connection
            self._not_listening(exc)
            logger.error("cannot listen to the database, jobs are found by polling alone: %s", exc)
            await asyncio.Event().wait()

    def _abort(self, ids: set[int]) -> None:
        """Abort jobs, also those whose claim is being answered: they are not known here yet."""
        self._backlog.abort(ids)
        self._claiming.heard_of_aborts(ids)

    def _not_listening(self, exc: Exception) -> None:
        self._pausing.listening(False)
        if self._claiming.sweeper is not None:
            self._claiming.sweeper.listens = False
        self._on_listening(exc)

    def _listening(self) -> None:
        """Look at all that may have been announced before LISTEN was in force."""
        self._on_listening(None)
        self._pausing.listening(True)
        if self._claiming.sweeper is not None:
            self._claiming.sweeper.listens = True
        self._claiming.look_at_everything()
        self._housekeeping.look_for_aborts()

    async def _tick(self) -> None:
        while True:
            self._loop_turned = time.monotonic()
            self._telling.tick()
            self._telling.busy(len(self._slots), self._options.concurrency)
            if self._vitals.say():
                self._claiming.look_at_everything()
            for name in self._companions.newly_dead():
                self._died(name, WorkerFailed(f"the thread of {name} is gone"))
            await asyncio.sleep(TICK)

    # Ending

    async def _end(self) -> None:
        """End in the order of rule 2; no step keeps the following ones from being taken."""
        if self._ticker is not None:
            self._ticker.let_go()
        await self._step("end", self._finish_what_runs)
        await self._step("leave", self._leave)

    async def _step(self, name: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take one step of the end, also if it is cancelled: then it is taken faster."""
        try:
            await step()
        except asyncio.CancelledError:
            self._stop.request_now()
            await self._step(name, step)
        except BaseException as exc:
            self._died(name, exc)

    async def _finish_what_runs(self) -> None:
        self._backlog.give_back()
        if self._backlog.busy:
            job_log.waiting_for([each.job for each in self._slots.running])
        await self._until_idle(self._options.shutdown_graceful_timeout, or_told=True)
        if self._backlog.busy:
            self._slots.abort_all()
            await self._until_idle(ABORTED_TASKS_MAY_TAKE, or_told=False)
            self._slots.give_back()

    async def _until_idle(self, timeout: float | None, *, or_told: bool) -> None:
        """Wait until no job runs, for ``timeout`` seconds, or until told to end now."""
        try:
            async with asyncio.timeout(timeout):
                while self._backlog.busy and not (or_told and self._stop.now.is_set()):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass

    async def _leave(self) -> None:
        await self._write_the_rest()
        await self._helpers.stop()
        self._slots.close()
        await in_thread(self._companions.stop)
        try:
            async with asyncio.timeout(LAST_CALL_MAY_TAKE) as patience:
                await self._reports.leave()
                await self._claiming.settle(known=self._backlog)
                await self._calls.run_async(flows.unregister_worker(self._worker_id))
        except (ConnectorException, TimeoutError) as exc:
            reason = reason_of(exc)
            logger.warning(
                "worker %s could not remove its row from procrastinate_workers; other workers will,"
                " and recover what it holds: %s",
                self._name,
                reason,
            )
        else:
            await self._add_up_the_rest(patience.when())
        logger.info("worker %s has stopped", self._name, extra=self._fields("stop_worker"))

    async def _add_up_the_rest(self, until: float | None) -> None:
        """Write the counts of this minute. It comes last, because nothing depends on it."""
        if self._minutes is None:
            return
        try:
            async with asyncio.timeout_at(until):
                await self._minutes.leave()
        except TimeoutError:
            logger.info("worker %s left before its counts were added up", self._name)

    async def _write_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WRITES_MAY_TAKE):
                while len(self._writer) and self._writer_lives:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass
        if len(self._writer):
            unwritten = counted(len(self._writer), "result")
            logger.error("could not write %s: each such job will run again", unwritten)
