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
from collections.abc import Callable
from typing import Any, ClassVar

from procrastinate.connector import ListeningConnector
from procrastinate.drive import Step, run_steps_async
from procrastinate.errors import ConnectorException, WorkerFailed
from procrastinate.storage.periodic import defer_due_in_steps
from procrastinate.storage.workers import Beat
from procrastinate.worker.claiming.claiming import CALL_MAY_TAKE, LAST_CALL_MAY_TAKE, Claiming
from procrastinate.worker.companions.blocking import LoopSight
from procrastinate.worker.companions.companion import Companion
from procrastinate.worker.companions.companions import Companions
from procrastinate.worker.companions.heartbeat import Heartbeat
from procrastinate.worker.companions.ticker import Ticker, log_settled
from procrastinate.worker.database.backoff import reason_of
from procrastinate.worker.helpers.helpers import Helpers
from procrastinate.worker.log import logger
from procrastinate.worker.shift.crew import Crew
from procrastinate.worker.shift.ending import Ending
from procrastinate.worker.shift.health import Health
from procrastinate.worker.shift.news import News
from procrastinate.worker.shift.terms import Terms

TICK = 0.25  # seconds between signs that the loop turns
WRITER = "writer"


class Shift:
    """One run of a worker, from its registration to its leave; made by `Worker.run`."""

    _claiming_type: ClassVar[type[Claiming]] = Claiming

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._name = terms.worker.name
        self._options = terms.options
        self._stop = terms.stop
        self._loop = asyncio.get_running_loop()
        self._crew = Crew(terms, self._claiming_type)
        self._news = News(terms, self._crew)
        self._helpers = Helpers(on_death=self._died)
        self._companions = Companions(
            terms.gateway.async_connector(),
            terms.gateway.statements,
            self._name,
            on_giving_up=self._companion_gave_up,
        )
        #: Why it could not work, also for other threads.
        self.health = Health(self._crew, self._companions, self._stop)
        self._ending = Ending(
            terms,
            self._crew,
            self._helpers,
            self._companions,
            on_death=self._died,
            writer_lives=lambda: self._writer_lives,
        )
        self._ticker: Companion | None = None
        self._deaths: dict[str, BaseException] = {}
        self._writer_lives = True

    async def run(self) -> None:
        """Work until told to stop or, with ``wait=False``, until no job is ready.

        Raises `WorkerFailed` if a part of it died.
        """
        try:
            await self._work()
        finally:
            self._crew.telling.worker_stopped()

    async def _work(self) -> None:
        try:
            self._say_start()
            self._start_parts()
            await self._begin()
            await self._crew.claiming.until_stopped(
                self._crew.backlog,
                self._crew.writer,
                self._crew.housekeeping.look_for_aborts,
                self._crew.abort,
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

    def _say_start(self) -> None:
        logger.info(
            "worker %s starts: queues %s, concurrency %d",
            self._name,
            ", ".join(self._options.queues or ["(all)"]),
            self._options.concurrency,
            extra=self._terms.log_fields("start_worker"),
        )
        self._crew.telling.worker_started(self._options.queues, self._options.concurrency)

    async def _end(self) -> None:
        """End in the order of rule 2."""
        if self._ticker is not None:
            self._ticker.let_go()
        await self._ending.run()

    async def _begin(self) -> None:
        """Do once what a worker that does not wait has no time to do later."""
        if self._options.wait:
            return
        if self._crew.minutes is not None:
            self._crew.minutes.take_turn()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                await self._crew.housekeeping.recover(2 * self._options.stalled_worker_timeout)
                settled = await run_steps_async(
                    defer_due_in_steps(self._terms.periodics, self._crew.partitions), self._run_step
                )
            log_settled(settled)
            self._crew.telling.ticks_settled(settled)
        except (ConnectorException, TimeoutError) as exc:
            reason = reason_of(exc)
            logger.warning("dead workers' jobs or periodic tasks have to wait: %s", reason)

    async def _run_step(self, step: Step) -> Any:
        return await self._crew.calls.run_async(
            step.flow, transaction=step.transaction, limit=step.limit
        )

    # Its parts

    def _start_parts(self) -> None:
        """Start what runs beside the claiming: helpers on the loop, companions beside it."""
        self._start_helpers()
        self._start_listener()
        self._start_companions()

    def _start_helpers(self) -> None:
        self._helpers.start(WRITER, self._crew.writer.run)
        self._helpers.start("tick", self._tick)
        self._helpers.start("housekeeping", self._crew.housekeeping.run)
        self._helpers.start("progress", self._crew.reports.run)
        if self._crew.minutes is not None:
            self._helpers.start("minutes", self._crew.minutes.run)
        self._helpers.start("pausing", self._crew.pausing.run)
        if (sweeper := self._crew.claiming.sweeper) is not None:
            sweeper.room = self._crew.backlog.free
            self._helpers.start("sweeper", sweeper.run)
            self._helpers.start("outages", self._crew.outages.run)

    def _start_listener(self) -> None:
        connector = self._crew.calls.connector
        if self._options.listen_notify and isinstance(connector, ListeningConnector):
            self._helpers.start("listener", functools.partial(self._news.listen, connector))
        else:
            self._terms.on_listening(None)

    def _start_companions(self) -> None:
        heartbeat = Heartbeat(
            self._terms.worker_id,
            self._name,
            self._options,
            about=self._terms.about,
            vitals=self._crew.vitals,
            on_beat=self._beat_in_thread,
            seconds_since_loop_turned=self.health.silence,
            busy=lambda: len(self._crew.slots),
            what_blocks=LoopSight(lambda: self._crew.slots.running).look,
        )
        self._companions.start(heartbeat, longest_wait=1.0)
        if self._options.wait and self._terms.periodics:
            ticker = Ticker(self._terms.periodics, self._crew.telling.ticks_settled)
            self._ticker = self._companions.start(ticker, longest_wait=5.0)

    def _beat_in_thread(self, beat: Beat) -> None:
        self._on_loop(self._news.beaten, beat)

    async def _tick(self) -> None:
        while True:
            self.health.turned()
            self._crew.telling.tick()
            self._crew.telling.busy(len(self._crew.slots), self._options.concurrency)
            self._news.say_trust()
            for name in self._companions.newly_dead():
                self._died(name, WorkerFailed(f"the thread of {name} is gone"))
            await asyncio.sleep(TICK)

    # Deaths

    def _died(self, name: str, exc: BaseException) -> None:
        """Note that a part is dead, and let the shift end."""
        again = name in self._deaths
        self._deaths.setdefault(name, exc)
        logger.error("the %s of worker %s has died: it ends", name, self._name, exc_info=exc)
        if name == WRITER and not again:
            self._helpers.start(WRITER, self._crew.writer.run)  # for the endings that are left
        if name == WRITER and again:
            self._writer_lives = False
        if not self._stop.gracefully.is_set():
            self._stop.request()
        self._terms.wake.set()

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
