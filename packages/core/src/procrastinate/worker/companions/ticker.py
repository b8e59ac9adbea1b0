"""The ticker: it inserts the jobs of periodic tasks when their time comes.

Rules

1. It is the duty of a companion: a busy event loop, or a pool that the tasks have exhausted, delays
   no tick. A worker without periodic tasks has none.
2. Every worker defers, and the database decides which was first. So it does not matter which of
   them are alive.
3. The server's clock decides. What the ticker knows of it is an interval, from statements that it
   runs anyway. It takes the early end: it is late by a round trip at most, and never early.
4. It sleeps until the next tick. It looks at the tables again once a minute, if it seems to have
   slept for longer than it wanted, and if the clock was set.
5. A schedule whose jobs cannot be inserted holds up no other. It is told in one line. If a node of
   a distributed database is away, its ticks wait, and one of the schedules that wait is tried again
   about once a second, or less often if its node is silent. If that works, the next one is tried at
   once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from procrastinate.drive import run_steps
from procrastinate.model.liveness.alarm import Alarm
from procrastinate.model.periodic import COUNTED, Key, Periodic, Timetable
from procrastinate.model.text.printable import counted
from procrastinate.storage import periodic as flows
from procrastinate.storage.periodic import Outcome, Settled
from procrastinate.worker.database.line import Line
from procrastinate.worker.log import logger

LOOK_EVERY = 60.0  # seconds
LONGEST_SLEEP = 1.0  # seconds, after which it looks at the clock: a machine may have stood still
TRY_AGAIN_EVERY = 1.0  # seconds, while a node is away
PAUSE = 4  # times as long as a try took passes until the next one: all ticks wait for it
JUMP = 1.0  # seconds by which the clocks have to part to say so
#: What became of a tick whose job could not be inserted.
FAILURES = (Outcome.REFUSED, Outcome.AWAY)


class Ticker:
    """The duty of one worker's companion: it defers periodic tasks."""

    name = "ticker"
    undone = "all periodic tasks have to wait"

    def __init__(
        self,
        periodics: Iterable[Periodic],
        on_settled: Callable[[Sequence[Settled]], None] = lambda _: None,
    ) -> None:
        self._on_settled = on_settled  # hears of each round, in this thread; it must not raise
        self._timetable = Timetable(periodics)
        self._clock = ServerClock()
        self._look = Alarm()
        self._again = Alarm()
        self._told: dict[Key, Outcome] = {}

    def failed(self) -> None:
        """Look at the tables again before the next tick: what became of the last is unknown."""
        self._look.ring()

    def round(self, line: Line) -> float:
        """Defer what is due, and return the seconds to sleep."""
        if self._clock.jumped() or not self._timetable.complete:
            self._look.ring()
        if self._look.due(time.monotonic()):
            self._look_at_tables(line)
        limit = None
        due = self._timetable.due(self._clock.now())
        if not due and self._again.due(time.monotonic()):
            limit = flows.APART
            due = self._timetable.due_again(self._clock.now())
        if not due:
            return self._seconds_to_sleep()
        sent = time.monotonic()
        result = run_steps(
            flows.defer_in_steps(self._timetable, due, line.partitions, limit),
            lambda step: line.run(step.flow, transaction=step.transaction, limit=step.limit),
        )
        if result.now is not None:
            self._clock.learn(result.now, sent=sent, received=time.monotonic())
        if any(each.outcome is Outcome.AWAY for each in result.settled):
            now = time.monotonic()
            self._again.set(now + max(TRY_AGAIN_EVERY, PAUSE * (now - sent)))
        log_settled(result.settled, self._told)
        self._on_settled(result.settled)
        return 0.0

    def _look_at_tables(self, line: Line) -> None:
        sent = time.monotonic()
        now = line.run(flows.look(self._timetable))
        received = time.monotonic()
        self._clock.learn(now, sent=sent, received=received)
        self._look.set(received + LOOK_EVERY)

    def _seconds_to_sleep(self) -> float:
        sleep = min(LONGEST_SLEEP, self._look.at - time.monotonic())
        next_due = self._timetable.next_due()
        if next_due is not None:
            sleep = min(sleep, (next_due - self._clock.now()).total_seconds())
        return max(0.0, sleep)


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


def log_settled(settled: Sequence[Settled], told: dict[Key, Outcome] | None = None) -> None:
    """Say what was deferred, and what was not although its time came.

    ``told`` remembers of which schedules it was said that they fail. It is said once, until one of
    their jobs can be inserted.
    """
    told = {} if told is None else told
    waiting = []
    for each in settled:
        key = each.due.periodic.key
        if each.outcome not in FAILURES:
            told.pop(key, None)
            _log(each)
        elif told.get(key) is not each.outcome:
            told[key] = each.outcome
            if each.outcome is Outcome.AWAY:
                waiting.append(each)
            else:
                logger.error("periodic task %s cannot be deferred: %s", _name(each), each.reason)
    if waiting:
        logger.warning(
            "a part of the database does not answer, these periodic tasks have to wait: %s (%s)",
            ", ".join(map(_name, waiting)),
            waiting[0].reason,
            extra={"action": "partition_away"},
        )


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
    elif settled.outcome is Outcome.PAUSED:
        logger.info(
            "periodic task %s of %s is left out: its queue is paused, and a job of it is waiting",
            name,
            tick,
            extra=extra,
        )
    elif settled.outcome is Outcome.GIVEN_UP:
        count = settled.due.given_up
        logger.warning(
            "periodic task %s has missed %s for longer than max_delay (%g s): left out",
            name,
            f"{count:,} or more ticks" if count == COUNTED else counted(count, "tick"),
            settled.due.periodic.max_delay.total_seconds(),
            extra=extra,
        )


def _name(settled: Settled) -> str:
    task_name, periodic_id = settled.due.periodic.key
    return f"{task_name} ({periodic_id})" if periodic_id else task_name
