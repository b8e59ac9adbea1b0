"""A worker's signs of life: the duty of a companion whose connection nothing else uses.

A statement that is slow, or waits for a lock, must not make a living worker look dead. So this
connection carries beats alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from procrastinate.drive import Limit
from procrastinate.model.liveness.alarm import Alarm
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.observing.job_log import about
from procrastinate.storage import workers as flows
from procrastinate.storage.workers import About, Beat, Condition
from procrastinate.worker.clock import since_boot
from procrastinate.worker.companions.blocking import Blocking
from procrastinate.worker.companions.vitals import Vitals
from procrastinate.worker.database import line as lines
from procrastinate.worker.database.line import Line
from procrastinate.worker.log import logger

LOOK_AT_LOOP_EVERY = 1.0  # seconds
LOOP_BLOCKED_AFTER = 5.0  # seconds without a turn of the event loop that are worth a warning
SERVER_SHARE = 0.8  # of the time that a beat may take


class Heartbeat:
    """Says that a worker is alive; and notices if its event loop is not."""

    name = "heartbeat"
    undone = "no sign of life can be given"

    def __init__(
        self,
        worker_id: int,
        worker_name: str,
        options: WorkerOptions,
        *,
        about: About,
        vitals: Vitals,
        on_beat: Callable[[Beat], None],
        seconds_since_loop_turned: Callable[[], float],
        busy: Callable[[], int],
        what_blocks: Callable[[], Blocking],
    ) -> None:
        self._worker_id = worker_id
        self._worker_name = worker_name
        self._interval = options.update_heartbeat_interval
        self._timeout_us = int(options.stalled_worker_timeout * 1e6)
        self._limit = limit_of_beat(self._interval)
        self._about = about
        self._vitals = vitals
        self._on_beat = on_beat
        self._seconds_since_loop_turned = seconds_since_loop_turned
        self._busy = busy  # returns how many slots have a job
        self._what_blocks = what_blocks  # what the loop runs, if it does not turn
        self._beat = Alarm()
        self._blocked = False  # as the log says

    def failed(self) -> None:
        """Note that a beat has failed; it is still due."""
        self._vitals.answered = False

    def round(self, line: Line) -> float:
        """Give a sign of life if it is due, and return the seconds until the next round."""
        if self._beat.due(time.monotonic()):
            began = time.monotonic()
            self._give_sign_of_life(line)
            self._beat.set(began + self._interval)
        self._watch_loop()
        return max(0.0, min(LOOK_AT_LOOP_EVERY, self._beat.at - time.monotonic()))

    def _give_sign_of_life(self, line: Line) -> None:
        sent = since_boot()
        flow = flows.heartbeat(
            self._worker_id,
            self._worker_name,
            timeout_us=self._timeout_us,
            condition=self._condition(),
        )
        beat = line.run(flow, limit=self._limit)
        self._vitals.confirmed(sent)
        if beat.reborn:
            again = flows.describe_worker(self._worker_id, self._about)
            line.run(again, limit=self._limit)
        self._on_beat(beat)

    def _condition(self) -> Condition:
        silence = self._seconds_since_loop_turned()
        return Condition(
            busy=self._busy(),
            blocked_for=silence if silence >= LOOP_BLOCKED_AFTER else None,
            trusted=self._vitals.trusted(),
        )

    def _watch_loop(self) -> None:
        """Warn once of an event loop that does not turn, and of what it runs instead."""
        seconds = self._seconds_since_loop_turned()
        was_blocked, self._blocked = self._blocked, seconds >= LOOP_BLOCKED_AFTER
        if self._blocked and not was_blocked:
            blocking = self._what_blocks()
            logger.warning(
                "the event loop has been blocked for %.0f s by %s: what takes long should be in a"
                " plain function, or in a thread",
                seconds,
                blocking.text,
                extra={
                    **({} if blocking.job is None else about(blocking.job, "")),
                    "action": "loop_blocked",
                    "worker_name": self._worker_name,
                    "worker_id": self._worker_id,
                },
            )


def limit_of_beat(interval: float) -> Limit:
    """Return how long a beat may take: it has failed when the next one is due."""
    client = min(lines.CALL.client, interval)
    return Limit(server=min(lines.CALL.server, SERVER_SHARE * client), client=client)
