"""What the database tells a run: notifications, and the answers to its signs of life."""

from __future__ import annotations

import asyncio

from procrastinate.connector import ListeningConnector
from procrastinate.errors import ProcrastinateException
from procrastinate.model.liveness.judging import has_turn
from procrastinate.storage.workers import Beat
from procrastinate.worker.helpers.listener import Listener
from procrastinate.worker.log import logger
from procrastinate.worker.shift.crew import Crew
from procrastinate.worker.shift.terms import Terms


class News:
    """Passes news on to the parts that they are for."""

    def __init__(self, terms: Terms, crew: Crew) -> None:
        self._terms = terms
        self._crew = crew

    async def listen(self, connector: ListeningConnector) -> None:
        """Listen until cancelled. A connector that cannot do so leaves it to polling."""
        listener = Listener(
            connector,
            self._crew.calls,
            self._terms.worker_id,
            on_queue=self._crew.claiming.heard_of,
            on_schedule=self._crew.claiming.schedule_changed,
            on_abort=lambda job_id: self._crew.abort({job_id}),
            on_pause=self._crew.pausing.look_now,
            on_listening=self._listening,
            on_failed=self._not_listening,
        )
        self._crew.calls.on_loss = listener.doubt
        try:
            await listener.run()
        except ProcrastinateException as exc:  # for instance a pool with one connection
            self._not_listening(exc)
            logger.error("cannot listen to the database, jobs are found by polling alone: %s", exc)
            await asyncio.Event().wait()

    def _not_listening(self, exc: Exception) -> None:
        self._crew.pausing.listening(False)
        if self._crew.claiming.sweeper is not None:
            self._crew.claiming.sweeper.listens = False
        self._terms.on_listening(exc)

    def _listening(self) -> None:
        """Look at all that may have been announced before LISTEN was in force."""
        self._terms.on_listening(None)
        self._crew.pausing.listening(True)
        if self._crew.claiming.sweeper is not None:
            self._crew.claiming.sweeper.listens = True
        self._crew.claiming.look_at_everything()
        self._crew.housekeeping.look_for_aborts()

    def beaten(self, beat: Beat) -> None:
        """Act on the database's answer to a sign of life."""
        self.say_trust()
        if beat.reborn:
            logger.warning(
                "worker %s had been taken for dead; jobs that it held may run elsewhere too",
                self._terms.worker.name,
            )
            self._crew.housekeeping.look_for_losses()
        if self._crew.claiming.sweeper is not None:
            self._crew.claiming.sweeper.beaten(beat)
        interval = self._terms.options.update_heartbeat_interval
        its_turn = has_turn(beat.now, interval=interval, rank=beat.rank, live=beat.live)
        if its_turn:
            self._crew.housekeeping.take_turn()
        if self._crew.minutes is not None:
            self._crew.minutes.beaten(beat.now, its_turn=its_turn)

    def say_trust(self) -> None:
        """Log if the trust in this worker was lost or is back, and look for jobs if it is back."""
        if self._crew.vitals.say():
            self._crew.claiming.look_at_everything()
