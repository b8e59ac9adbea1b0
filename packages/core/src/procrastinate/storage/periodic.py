"""Flows that defer the jobs of periodic tasks, each tick once."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from procrastinate.connector import Row, Rows, Value
from procrastinate.drive import Flow, Limit, NoAnswer, Request, Step, Steps, at
from procrastinate.errors import (
    AlreadyEnqueued,
    ConnectorException,
    InvalidArguments,
    InvalidData,
    InvalidOption,
    ProcrastinateException,
)
from procrastinate.model.job import NewJob, Status
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.periodic import DueTick, Key, Periodic, Timetable
from procrastinate.storage.defer import defer_job
from procrastinate.storage.nodes import may_be_node, partitions_away
from procrastinate.storage.places import grouped
from procrastinate.storage.savepoints import undoable
from procrastinate.storage.waits import look_at_jobs

S = TypeVar("S")

#: Why no job of a schedule can be inserted: its arguments, or locks of different partitions.
Refusal: TypeAlias = InvalidData | InvalidArguments | InvalidOption
#: For the schedules of a distributed database together. If a node is silent, all wait for it.
TOGETHER = Limit(server=3.0, client=4.0)
#: For a schedule by itself, because its node may be silent: the others wait for it meanwhile. The
#: client's limit is for all of its ticks.
APART = Limit(server=2.0, client=15.0)


class Outcome(enum.Enum):
    """What became of a tick that was due."""

    DEFERRED = "its job was inserted"
    WAITING = "a job with its queueing lock is waiting already"
    PAUSED = "its queue is paused, and a job of its schedule is waiting already"
    GIVEN_UP = "it was missed, with others, for longer than max_delay"
    ELSEWHERE = "another worker was first"
    EARLY = "its time has not come by the server's clock"
    REFUSED = "the database refuses its arguments or its locks"
    AWAY = "the part of the database that its job belongs to does not answer: it has to wait"


@dataclass(frozen=True)
class Settled:
    """A due tick, and what became of it."""

    due: DueTick
    outcome: Outcome
    job_id: int | None = None
    reason: Refusal | ConnectorException | None = None


@dataclass(frozen=True)
class Round:
    """What one call settled, and the server's time (None: the server gave none)."""

    settled: Sequence[Settled]
    now: datetime | None


def defer_due(periodics: Iterable[Periodic]) -> Flow[list[Settled]]:
    """Defer all that is due by the server's clock, and return what became of each tick.

    Schedules that the database does not know yet are entered, and start now. Every statement may
    be committed by itself. It is for a database with one partition.
    """
    return (yield from _all_due(Timetable(periodics), look, defer_ticks))


def defer_due_in_steps(
    periodics: Iterable[Periodic], partitions: Partitions
) -> Steps[list[Settled]]:
    """Defer all that is due, as `defer_due` does, also on a distributed database."""

    def look_first(timetable: Timetable) -> Steps[datetime]:
        now: datetime = yield Step(look(timetable))
        return now

    def defer(timetable: Timetable, due: Sequence[DueTick]) -> Steps[Round]:
        return defer_in_steps(timetable, due, partitions)

    return (yield from _all_due(Timetable(periodics), look_first, defer))


def _all_due(
    timetable: Timetable,
    look_first: Callable[[Timetable], Generator[S, Any, datetime]],
    defer: Callable[[Timetable, Sequence[DueTick]], Generator[S, Any, Round]],
) -> Generator[S, Any, list[Settled]]:
    settled: list[Settled] = []
    if not timetable.periodics:
        return settled
    now = yield from look_first(timetable)
    while due := timetable.due(now):
        result = yield from defer(timetable, due)
        settled += result.settled
        now = result.now or now
    return settled


def look(timetable: Timetable) -> Flow[datetime]:
    """Tell the timetable what is settled, enter new schedules, and return the server's time.

    Once a day it notes which schedules are still in use, and at once what has changed of them.
    """
    periodics = list(timetable.periodics.values())
    noted = False
    while True:
        rows = yield _about("look_at_periodics", periodics)
        stale = [each for each, (_, is_stale, _) in zip(periodics, rows, strict=True) if is_stale]
        if stale and not noted:  # once: another transaction may have one in hand
            noted = True
            yield _about("note_periodics", stale)
            continue
        new = []
        for each, (done_until, _, _) in zip(periodics, rows, strict=True):
            if done_until is None:
                timetable.forget(each.key)
                new.append(each)
            else:
                timetable.settled(each.key, done_until.astimezone(UTC))
        if timetable.complete:
            now: datetime = rows[0][2]
            return now.astimezone(UTC)
        yield _about("enter_periodics", new)


def _about(statement: str, periodics: Sequence[Periodic]) -> Request:
    return Request(
        statement,
        task_names=[each.task_name for each in periodics],
        periodic_ids=[each.periodic_id for each in periodics],
        crons=[each.schedule.cron for each in periodics],
        timezones=[str(each.schedule.zone) for each in periodics],
        queue_names=[each.queue for each in periodics],
    )


def defer_in_steps(
    timetable: Timetable,
    due: Sequence[DueTick],
    partitions: Partitions,
    limit: Limit | None = None,
) -> Steps[Round]:
    """Defer the due ticks, as `defer_ticks` does, without those whose node is away if that fails.

    These schedules are put off, and hold up no other. None of their ticks is settled. If it is not
    known which schedules these are, each is deferred by itself.
    """
    flow = defer_ticks(timetable, due, partitions)
    result: Round
    if not partitions.are_many:
        result = yield Step(flow, limit=limit)
        return result
    try:
        result = yield Step(flow, transaction=True, limit=limit or TOGETHER)
        return result
    except ConnectorException as exc:
        if not may_be_node(exc):
            raise
        failure = exc
    away = yield from partitions_away()
    waiting, rest = list[list[DueTick]](), list[list[DueTick]]()
    for some in _by_schedule(due):
        (waiting if _place(some[0], partitions) in away else rest).append(some)
    if not waiting and len(rest) == 1:
        if isinstance(failure, NoAnswer):
            raise failure
        waiting, rest = rest, []
    parts = [[each for some in rest for each in some]] if waiting and rest else rest
    rounds = [_put_off(timetable, some, failure) for some in waiting]
    for part in parts:
        limit = TOGETHER if waiting else APART
        rounds.append((yield from defer_in_steps(timetable, part, partitions, limit)))
    return _joined(rounds)


def _place(due: DueTick, partitions: Partitions) -> int | None:
    """Return the partition of a schedule's jobs; None if they have no key."""
    key = None if due.job is None else due.job.key
    return None if key is None else partitions.of_key(key)


def _put_off(timetable: Timetable, due: Sequence[DueTick], exc: ConnectorException) -> Round:
    """Let the ticks of one schedule wait."""
    timetable.put_off(due[0].periodic.key)
    return Round([Settled(each, Outcome.AWAY, reason=exc) for each in due], None)


def _by_schedule(due: Sequence[DueTick]) -> list[list[DueTick]]:
    of_each: dict[Key, list[DueTick]] = {}
    for each in due:
        of_each.setdefault(each.periodic.key, []).append(each)
    return list(of_each.values())


def _joined(rounds: Sequence[Round]) -> Round:
    times = [each.now for each in rounds if each.now is not None]
    return Round([one for each in rounds for one in each.settled], max(times, default=None))


def defer_ticks(
    timetable: Timetable, due: Sequence[DueTick], partitions: Partitions = ONE
) -> Flow[Round]:
    """Defer the due ticks that no worker has deferred, and tell the timetable.

    That is one statement. If the partitions are many, it is some for each tick, which need a
    transaction.
    """
    try:
        if partitions.are_many:
            rows = yield from undoable(lambda: _one_by_one(due, partitions), autocommit=_refused)
        else:
            rows = yield Request("defer_ticks", **_params(due))
    except (InvalidData, InvalidArguments, InvalidOption) as exc:
        return (yield from _defer_apart(timetable, due, exc, partitions))
    settled = [_settled(each, row) for each, row in zip(due, rows, strict=True)]
    _learn(timetable, due, rows)
    return Round(settled, rows[0][3].astimezone(UTC))


def _refused() -> Flow[Rows]:
    raise ProcrastinateException("the ticks of a distributed database need a transaction")
    yield


def _one_by_one(due: Sequence[DueTick], partitions: Partitions) -> Flow[Rows]:
    """Do what the statement defer_ticks does, by others, and return its rows.

    Jobs with queueing locks come in the order in which batches are inserted: by partition, then by
    queueing lock. So no two transactions wait for each other in a circle. All others come in the
    order of their ticks.
    """

    def turn(place: int) -> tuple[int, str]:
        job = due[place].job
        if job is None or job.queueing_lock is None:
            return -1, ""
        return partitions.of_key(job.key or ""), job.queueing_lock

    rows = yield Request("grip_ticks", **_ticks(due), queue_names=_queues(due))
    ids: list[int | None] = [None] * len(due)
    mine = [place for place, row in enumerate(rows) if row[0]]
    left_out = yield from _left_out(due, rows, mine, partitions)
    for place in sorted(mine, key=turn):
        job = due[place].job
        if job is not None and place not in left_out:
            with contextlib.suppress(AlreadyEnqueued):
                ids[place] = yield from defer_job(job)
    if mine:
        ticks = _ticks([due[place] for place in mine])
        yield Request("settle_ticks", **ticks, job_ids=[ids[place] for place in mine])
    return [
        (row[0], job_id, row[1], row[2], 0, int(place in left_out))
        for place, (row, job_id) in enumerate(zip(rows, ids, strict=True))
    ]


def _left_out(
    due: Sequence[DueTick], rows: Rows, mine: Sequence[int], partitions: Partitions
) -> Flow[set[int]]:
    """Return the places of the ticks whose jobs a paused queue does not get.

    That is all but the last one of each schedule, and that one too if the last job still waits.
    """
    paused = [place for place in mine if rows[place][3] and due[place].job is not None]
    last = {due[place].periodic.key: place for place in sorted(paused, key=lambda n: due[n].tick)}
    waiting = set[int]()
    for place in last.values():
        job_id = rows[place][4]
        if job_id is not None and (yield from _waits(job_id, partitions)):
            waiting.add(place)
    return {place for place in paused if place not in last.values()} | waiting


def _waits(job_id: int, partitions: Partitions) -> Flow[bool]:
    """Return whether a job is there and waits."""
    for partition, ids in (yield from grouped([job_id], partitions)).items():
        found = yield from at(partition, look_at_jobs(ids))
        return found.get(job_id) is Status.TODO
    return False


def _defer_apart(
    timetable: Timetable,
    due: Sequence[DueTick],
    exc: Refusal,
    partitions: Partitions,
) -> Flow[Round]:
    """Find the schedule whose arguments the database refuses, and defer the others."""
    schedules = _by_schedule(due)
    if len(schedules) == 1:
        timetable.settled(due[0].periodic.key, due[-1].tick)
        return Round([Settled(each, Outcome.REFUSED, reason=exc) for each in due], None)
    rounds = []
    for some in schedules:
        rounds.append((yield from defer_ticks(timetable, some, partitions)))
    return _joined(rounds)


def _params(due: Sequence[DueTick]) -> dict[str, Value]:
    def of_jobs(value: Callable[[NewJob], Any]) -> list[Any]:
        return [None if each.job is None else value(each.job) for each in due]

    return {
        **_ticks(due),
        "queue_names": _queues(due),
        "priorities": of_jobs(lambda job: job.priority),
        "locks": of_jobs(lambda job: job.lock),
        "queueing_locks": of_jobs(lambda job: job.queueing_lock),
        "args": of_jobs(lambda job: job.args),
    }


def _queues(due: Sequence[DueTick]) -> list[str | None]:
    """Return the queue of each tick's job; None if a tick asks for no job."""
    return [None if each.job is None else each.job.queue for each in due]


def _ticks(due: Sequence[DueTick]) -> dict[str, Value]:
    return {
        "task_names": [each.periodic.task_name for each in due],
        "periodic_ids": [each.periodic.periodic_id for each in due],
        "ticks": [each.tick.isoformat() for each in due],
    }


def _settled(due: DueTick, row: Row) -> Settled:
    is_mine, job_id, _, now, _, is_left_out = row
    if not is_mine:
        return Settled(due, Outcome.EARLY if due.tick > now else Outcome.ELSEWHERE)
    if due.job is None:
        return Settled(due, Outcome.GIVEN_UP)
    if is_left_out:
        return Settled(due, Outcome.PAUSED)
    return Settled(due, Outcome.WAITING if job_id is None else Outcome.DEFERRED, job_id)


def _learn(timetable: Timetable, due: Sequence[DueTick], rows: Rows) -> None:
    """Tell the timetable up to where each of these schedules is settled now."""
    done: dict[Key, datetime | None] = {}
    for each, (_, _, done_until, now, _, _) in zip(due, rows, strict=True):
        key = each.periodic.key
        if done_until is None:  # the schedule's row was deleted
            done[key] = None
        elif each.tick <= now:
            done[key] = max(each.tick, done_until.astimezone(UTC), done.get(key) or each.tick)
    for key, until in done.items():
        if until is None:
            timetable.forget(key)
        else:
            timetable.settled(key, until)
