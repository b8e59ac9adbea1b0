"""The statements of periodic tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from procrastinate.connector import Row, Rows
from procrastinate.model.job import Status
from procrastinate.testing._engine.values import JobRow, PeriodicRow, jsonb, timestamp
from procrastinate.testing._engine.view import Function, Params, View

SEEN_EVERY = timedelta(days=1)
#: How far ahead of the clock a time may lie before the clock counts as set back.
SET_BACK = timedelta(hours=3)


def look_at_periodics(view: View, p: Params) -> Rows:
    rows = [(view.periodic(*key), columns) for key, columns in _mine(p)]
    return [
        (
            None if row is None else row.done_until,
            row is not None and (_is_stale(view, row) or replace(row, **columns) != row),
            view.now,
        )
        for row, columns in rows
    ]


def _mine(p: Params) -> Iterable[tuple[tuple[str, str], dict[str, Any]]]:
    """Return the schedules' keys, each with the columns that say what it is."""
    columns = zip(p["crons"], p["timezones"], p["queue_names"], strict=True)
    for key, (cron, timezone, queue_name) in zip(_keys(p), columns, strict=True):
        yield key, {"cron": cron, "timezone": timezone, "queue_name": queue_name}


def _keys(p: Params) -> Iterable[tuple[str, str]]:
    return zip(p["task_names"], p["periodic_ids"], strict=True)


def enter_periodics(view: View, p: Params) -> Rows:
    for key, columns in _mine(p):
        # As ON CONFLICT DO NOTHING, which waits for a session that is entering the same.
        if view.settled_periodic(*key) is None:
            view.write_periodic(PeriodicRow(*key, done_until=view.now, seen_at=view.now, **columns))
    return []


def note_periodics(view: View, p: Params) -> Rows:
    for key, columns in _mine(p):
        row = view.periodic(*key)
        if row is not None and not view.is_locked_periodic(*key):
            ahead = row.done_until > view.now + SET_BACK
            done_until = view.now if ahead else row.done_until
            view.write_periodic(replace(row, seen_at=view.now, done_until=done_until, **columns))
    return []


def _is_stale(view: View, row: PeriodicRow) -> bool:
    in_time = view.now - SEEN_EVERY <= row.seen_at <= view.now + SET_BACK
    return not in_time or row.done_until > view.now + SET_BACK


@dataclass(frozen=True)
class _Due:
    """A tick that is due, as its statement gets it."""

    task_name: str
    periodic_id: str
    tick: datetime
    columns: dict[str, Any]  # of its job; the args are null if it asks for none

    @property
    def key(self) -> tuple[str, str]:
        return self.task_name, self.periodic_id


def defer_ticks(view: View, p: Params) -> Rows:
    due = _due(p)
    before = {each.key: view.periodic(*each.key) for each in due}
    held = _held(view, [each for each in due if each.tick <= view.now])
    claimed = [
        place
        for place, each in sorted(enumerate(due), key=lambda pair: (pair[1].tick, pair[0]))
        if each.key in held and held[each.key].done_until < each.tick <= view.now
    ]
    left_out = _left_out(view, due, claimed, held)
    jobs = {place: None if place in left_out else _insert(view, due[place]) for place in claimed}
    for place in claimed:
        _settle(view, due[place], jobs[place])
    queues = {job.queue_name for job in jobs.values() if job is not None}
    view.wake(queues)
    return [
        (
            *_row(view, before[each.key], place in jobs, jobs.get(place), len(queues)),
            int(place in left_out) if place in jobs else None,
        )
        for place, each in enumerate(due)
    ]


def _left_out(
    view: View, due: list[_Due], claimed: list[int], held: dict[tuple[str, str], PeriodicRow]
) -> set[int]:
    """Return the places of the ticks whose jobs a paused queue does not get."""
    paused = [place for place in claimed if view.is_paused(due[place].columns["queue_name"])]
    last = {due[place].key: place for place in paused if due[place].columns["args"] is not None}
    return {
        place
        for place in paused
        if due[place].tick < due[last.get(due[place].key, place)].tick
        or _waits(view, held[due[place].key].job_id)
    }


def _waits(view: View, job_id: int | None) -> bool:
    job = None if job_id is None else view.job(job_id)
    return job is not None and job.status is Status.TODO


def _due(p: Params) -> list[_Due]:
    names = ("task_names", "periodic_ids", "ticks", *_COLUMNS)
    rows = zip(*(p[name] for name in names), strict=True)
    return [_Due(name, id, timestamp(tick), _columns(rest)) for name, id, tick, *rest in rows]


#: The parameters that hold the jobs' columns, and the names of these.
_COLUMNS = {
    "queue_names": "queue_name",
    "priorities": "priority",
    "locks": "lock",
    "queueing_locks": "queueing_lock",
    "args": "args",
}


def _columns(values: list[Any]) -> dict[str, Any]:
    columns = dict(zip(_COLUMNS.values(), values, strict=True))
    args = columns["args"]
    return {**columns, "args": None if args is None else jsonb(args)}


def _held(view: View, due: Iterable[_Due]) -> dict[tuple[str, str], PeriodicRow]:
    """Return the rows of schedules, as transactions that settle their ticks will leave them."""
    latest: dict[tuple[str, str], datetime] = {}
    for each in due:
        latest[each.key] = max(each.tick, latest.get(each.key, each.tick))
    held = {}
    for key, tick in sorted(latest.items()):
        row = view.periodic(*key)
        if row is not None and row.done_until < tick:
            row = view.settled_periodic(*key)
        if row is not None and row.done_until < tick:
            held[key] = row
    return held


def _insert(view: View, due: _Due) -> JobRow | None:
    if due.columns["args"] is None:
        return None
    job_id = view.next_job_id()
    if view.conflicts(due.columns["queueing_lock"]):
        return None
    job = JobRow(id=job_id, task_name=due.task_name, deferred_at=view.now, **due.columns)
    return view.write_job(job)


def _settle(view: View, due: _Due, job: JobRow | None) -> None:
    row = view.periodic(*due.key)
    assert row is not None
    row = replace(row, done_until=due.tick, seen_at=view.now)
    if job is not None:
        row = replace(row, last_tick=due.tick, job_id=job.id)
    view.write_periodic(row)


def _row(
    view: View, before: PeriodicRow | None, is_mine: bool, job: JobRow | None, queues: int
) -> Row:
    done_until = None if before is None else before.done_until
    return (is_mine, None if job is None else job.id, done_until, view.now, queues)


def grip_ticks(view: View, p: Params) -> Rows:
    keys = list(_keys(p))
    ticks = [timestamp(tick) for tick in p["ticks"]]
    before = {key: view.periodic(*key) for key in keys}
    named = [
        _Due(*key, tick, {"queue_name": queue})
        for key, tick, queue in zip(keys, ticks, p["queue_names"], strict=True)
    ]
    held = _held(view, [each for each in named if each.tick <= view.now])
    for row in held.values():
        view.write_periodic(row)
    return [
        (
            each.key in held and held[each.key].done_until < each.tick <= view.now,
            None if known is None else known.done_until,
            view.now,
            int(view.is_paused(each.columns["queue_name"])),
            None if each.key not in held else held[each.key].job_id,
        )
        for each in named
        for known in [before[each.key]]
    ]


def settle_ticks(view: View, p: Params) -> Rows:
    told = zip(_keys(p), p["ticks"], p["job_ids"], strict=True)
    for key, at, job_id in sorted(told, key=lambda each: timestamp(each[1])):
        row = view.periodic(*key)
        assert row is not None
        tick = timestamp(at)
        row = replace(row, done_until=tick, seen_at=view.now)
        if job_id is not None:
            row = replace(row, last_tick=tick, job_id=job_id)
        view.write_periodic(row)
    return []


_FUNCTIONS: tuple[Function, ...] = (
    look_at_periodics,
    enter_periodics,
    note_periodics,
    defer_ticks,
    grip_ticks,
    settle_ticks,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
