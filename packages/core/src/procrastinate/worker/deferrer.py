"""The worker's deferrer: it inserts the jobs of periodic tasks when their time comes.

Rules

1. It is a thread with a connection of its own, as housekeeping is: a busy event loop, or a pool
   that the tasks have exhausted, delays no tick. A worker without periodic tasks has none.
2. Every worker defers, and the database decides who was first. So it matters to nobody which of
   them are alive.
3. The server's clock decides. What the thread knows of it is an interval, from statements that it
   runs anyway; of that it takes the early end, so that it is late by a round trip at the most and
   never early.
4. It sleeps until the next tick. Once a minute, and when it seems to have slept for longer than it
   wanted, or the clock was set, it looks at the tables again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from procrastinate import drive
from procrastinate.connector import SyncConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.model.periodic import COUNTED, Periodic, Timetable
from procrastinate.storage import periodic as flows
from procrastinate.storage.periodic import Outcome, Settled
from procrastinate.storage.statements import Statements
from procrastinate.worker.backoff import Backoff

logger = logging.getLogger("procrastinate.worker")

LOOK_EVERY = 60.0  # seconds
LONGEST_SLEEP = 1.0  # seconds, after which it looks at the clock: a machine may have stood still
JUMP = 1.0  # seconds by which the clocks have to part to say so
STOP_MAY_TAKE = 5.0  # seconds


class Deferrer:
    """Defers the periodic tasks of one worker."""

    def __init__(
        self,
        connector: SyncConnector,
        sql: Statements,
        periodics: Iterable[Periodic],
        *,
        worker_name: str,
    ) -> None:
        self._connector = connector
        self._sql = sql
        self._timetable = Timetable(periodics)
        self._clock = ServerClock()
        self._look_due = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"{worker_name}-deferrer", daemon=True
        )

    def start(self) -> None:
        """Start the thread, where there is something to defer."""
        if self._timetable.periodics:
            self._thread.start()

    def defer_no_more(self) -> None:
        """Let the thread end, without waiting for it."""
        self._stop.set()

    def stop(self) -> None:
        """End the thread and wait for it; no longer than `STOP_MAY_TAKE`, if the database hangs."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_MAY_TAKE)

    def _run(self) -> None:
        backoff = Backoff()
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                self._connector.open()  # twice is harmless; the first may have failed
                wait = self._round()
                backoff.reset()
            except ConnectorException as exc:
                if not backoff.failing:
                    logger.warning("no periodic task can be deferred: %s", exc)
                wait = self._wait_after_failure(backoff)
            except Exception:
                logger.exception("deferring periodic tasks failed; it goes on")
                wait = self._wait_after_failure(backoff)
        self._connector.close()

    def _wait_after_failure(self, backoff: Backoff) -> float:
        self._look_due = 0.0
        return backoff.next_wait()

    def _round(self) -> float:
        """Do what is due, and return the seconds to sleep."""
        if self._clock.jumped() or not self._timetable.complete:
            self._look_due = 0.0
        if time.monotonic() >= self._look_due:
            self._look()
        due = self._timetable.due(self._clock.now())
        if not due:
            return self._seconds_to_sleep()
        sent = time.monotonic()
        result = self._do(flows.defer_ticks(self._sql, self._timetable, due))
        if result.now is not None:
            self._clock.learn(result.now, sent=sent, received=time.monotonic())
        log_settled(result.settled)
        return 0.0

    def _look(self) -> None:
        sent = time.monotonic()
        now = self._do(flows.look(self._sql, self._timetable))
        received = time.monotonic()
        self._clock.learn(now, sent=sent, received=received)
        self._look_due = received + LOOK_EVERY

    def _seconds_to_sleep(self) -> float:
        sleep = min(LONGEST_SLEEP, self._look_due - time.monotonic())
        next_due = self._timetable.next_due()
        if next_due is not None:
            sleep = min(sleep, (next_due - self._clock.now()).total_seconds())
        return max(0.0, sleep)

    def _do(self, flow: Flow[drive.T]) -> drive.T:
        with self._connector.session() as executor:
            return drive.run(flow, executor)


class ServerClock:
    """The server's time, as far as a client can know it: never later than it is."""

    def __init__(self) -> None:
        self._epoch: datetime | None = None  # the server's time when the monotonic clock was 0
        self._ahead = _seconds_ahead()

    def learn(self, server_time: datetime, *, sent: float, received: float) -> None:
        """Note what the server said between two times of the monotonic clock."""
        earliest = server_time.astimezone(UTC) - timedelta(seconds=received)
        latest = server_time.astimezone(UTC) - timedelta(seconds=sent)
        # What was known is kept where it fits: another answer may have taken less time to come.
        if self._epoch is None or not earliest <= self._epoch <= latest:
            self._epoch = earliest
        self._ahead = _seconds_ahead()

    def now(self) -> datetime:
        """Return the server's time, in UTC."""
        assert self._epoch is not None, "nothing was learnt yet"
        return self._epoch + timedelta(seconds=time.monotonic())

    def jumped(self) -> bool:
        """Whether this machine stood still, or its clock was set, since the server was heard."""
        return abs(_seconds_ahead() - self._ahead) > JUMP


def _seconds_ahead() -> float:
    return time.time() - time.monotonic()


def log_settled(settled: Sequence[Settled]) -> None:
    """Say what was deferred, and what was not although its time came."""
    for each in settled:
        if each.outcome is not Outcome.REFUSED:
            _log(each)
    refused = {_name(each): each.reason for each in settled if each.outcome is Outcome.REFUSED}
    for name, reason in refused.items():
        logger.error("periodic task %s cannot be deferred: %s", name, reason)


def _log(settled: Settled) -> None:
    tick, name = settled.due.tick.isoformat(), _name(settled)
    extra = {
        "action": "defer_periodic",
        "task_name": settled.due.periodic.task_name,
        "periodic_id": settled.due.periodic.periodic_id,
        "job_id": settled.job_id,
    }
    if settled.outcome is Outcome.DEFERRED:
        logger.info(
            "periodic task %s of %s: job %d is deferred", name, tick, settled.job_id, extra=extra
        )
    elif settled.outcome is Outcome.WAITING:
        logger.info(
            "periodic task %s of %s is left out: a job with its queueing lock is waiting",
            name,
            tick,
            extra=extra,
        )
    elif settled.outcome is Outcome.GIVEN_UP:
        count = settled.due.given_up
        logger.warning(
            "periodic task %s has missed %s ticks for longer than max_delay (%g s): left out",
            name,
            f"{count} or more" if count == COUNTED else count,
            settled.due.periodic.max_delay.total_seconds(),
            extra=extra,
        )


def _name(settled: Settled) -> str:
    task_name, periodic_id = settled.due.periodic.key
    return f"{task_name} ({periodic_id})" if periodic_id else task_name
