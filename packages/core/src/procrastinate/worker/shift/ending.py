"""The end of a run, in the order of rule 2 of `procrastinate.worker.shift.shift`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from procrastinate.errors import ConnectorException
from procrastinate.storage import workers as flows
from procrastinate.worker import job_log
from procrastinate.worker.claiming.claiming import LAST_CALL_MAY_TAKE
from procrastinate.worker.companions.companions import Companions
from procrastinate.worker.database.backoff import reason_of
from procrastinate.worker.database.tries import with_tries
from procrastinate.worker.helpers.helpers import Helpers
from procrastinate.worker.log import logger
from procrastinate.worker.shift.crew import Crew
from procrastinate.worker.shift.terms import Terms

ABORTED_TASKS_MAY_TAKE = 2.0  # seconds to end once aborted by the worker's shutdown
COMPANIONS_MAY_TAKE = 5.0  # seconds to end, until those that do not are left to themselves
LOOK_AT_COMPANIONS_EVERY = 0.005  # seconds
LAST_WRITES_MAY_TAKE = 10.0  # seconds, while the database is away, before a stopped worker gives up


class Ending:
    """Ends the parts of a run.

    ``on_death`` hears which step raised, and ``writer_lives`` says whether endings can be written.
    """

    def __init__(
        self,
        terms: Terms,
        crew: Crew,
        helpers: Helpers,
        companions: Companions,
        *,
        on_death: Callable[[str, BaseException], None],
        writer_lives: Callable[[], bool],
    ) -> None:
        self._terms = terms
        self._stop = terms.stop
        self._wake = terms.wake
        self._crew = crew
        self._helpers = helpers
        self._companions = companions
        self._on_death = on_death
        self._writer_lives = writer_lives

    async def run(self) -> None:
        """Take all steps; none keeps the following ones from being taken."""
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
            self._on_death(name, exc)

    async def _finish_what_runs(self) -> None:
        self._crew.backlog.give_back()
        if self._crew.backlog.busy:
            job_log.waiting_for([each.job for each in self._crew.slots.running])
        await self._until_idle(self._terms.options.shutdown_graceful_timeout, or_told=True)
        if self._crew.backlog.busy:
            self._crew.slots.abort_all()
            await self._until_idle(ABORTED_TASKS_MAY_TAKE, or_told=False)
            self._crew.slots.give_back()

    async def _until_idle(self, timeout: float | None, *, or_told: bool) -> None:
        """Wait until no job runs, for ``timeout`` seconds, or until told to end now."""
        try:
            async with asyncio.timeout(timeout):
                while self._crew.backlog.busy and not (or_told and self._stop.now.is_set()):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass

    async def _stop_companions(self) -> None:
        """Wait for their threads here. A job may have taken all threads that could do so."""
        self._companions.let_go()
        for _ in range(round(COMPANIONS_MAY_TAKE / LOOK_AT_COMPANIONS_EVERY)):
            if not self._companions.are_running:
                break
            await asyncio.sleep(LOOK_AT_COMPANIONS_EVERY)
        self._companions.leave_alone()

    async def _leave(self) -> None:
        await self._write_the_rest()
        await self._helpers.stop()
        self._crew.slots.close()
        await self._stop_companions()
        try:
            async with asyncio.timeout(LAST_CALL_MAY_TAKE) as patience:
                await with_tries(
                    lambda: self._crew.claiming.hand_back_lost(known=self._crew.backlog)
                )
                await with_tries(
                    lambda: self._crew.calls.run_async(
                        flows.unregister_worker(self._terms.worker_id)
                    )
                )
        except (ConnectorException, TimeoutError) as exc:
            reason = reason_of(exc)
            logger.warning(
                "worker %s could not remove its row from procrastinate_workers; other workers will,"
                " and recover what it holds: %s",
                self._terms.worker.name,
                reason,
            )
        else:
            await self._tidy_up(patience.when())
        logger.info(
            "worker %s has stopped",
            self._terms.worker.name,
            extra=self._terms.log_fields("stop_worker"),
        )

    async def _tidy_up(self, until: float | None) -> None:
        """Write the counts of this minute, and forget what jobs have reported.

        It comes last, because nothing depends on it. Reports that are left others remove.
        """
        try:
            async with asyncio.timeout_at(until):
                if self._crew.minutes is not None:
                    await self._crew.minutes.leave()
                await self._crew.reports.leave()
        except TimeoutError:
            name = self._terms.worker.name
            logger.info("worker %s left before its counts and reports were settled", name)

    async def _write_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WRITES_MAY_TAKE):
                while len(self._crew.writer) and self._writer_lives():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass
        if unwritten := self._crew.writer.unwritten:
            job_log.unwritten([entry.job for entry in unwritten.values()])
