"""The statements about what ended in each minute."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from procrastinate.connector import Row, Rows
from procrastinate.model.monitoring.minutes import ALL, BUCKETS, HOUR, MINUTE
from procrastinate.testing._engine.values import MinuteRow, interval
from procrastinate.testing._engine.view import Function, Params, View

_DAY = timedelta(days=1)
_COUNTS = ("succeeded", "failed", "cancelled", "aborted", "retried")


def _begin(moment: datetime, seconds: int) -> datetime:
    epoch = int(moment.timestamp())
    return datetime.fromtimestamp(epoch - epoch % seconds, UTC)


def _sums(buckets: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip_longest(*buckets, fillvalue=0)))


def _together(rows: Sequence[MinuteRow]) -> MinuteRow:
    """Return one row for several, with the key of the first."""
    return replace(
        rows[0],
        counts=_sums(row.counts for row in rows),
        run=sum(row.run for row in rows),
        waited=sum(row.waited for row in rows),
        run_buckets=_sums(row.run_buckets for row in rows),
        waited_buckets=_sums(row.waited_buckets for row in rows),
    )


def _add(view: View, row: MinuteRow) -> None:
    before = view.minute(row.key)
    view.write_minute(row if before is None else _together([before, row]))


def add_to_minute(view: View, p: Params) -> Rows:
    begins_at = _begin(view.now - interval(p["age_us"]), MINUTE)
    for _, *said in _said(p):
        _add(view, _row(begins_at, MINUTE, said))
    return []


def add_to_hours(view: View, p: Params) -> Rows:
    for hour, *said in _said(p):
        _add(view, _row(datetime.fromtimestamp(hour, UTC), HOUR, said))
    return []


def _said(p: Params) -> Iterable[Sequence[Any]]:
    counts = (p[name] for name in _COUNTS)
    times = (p["run_us"], p["waited_us"], p["run_buckets"], p["waited_buckets"])
    return zip(p["hours"], p["queue_names"], p["task_names"], *counts, *times, strict=True)


def _row(begins_at: datetime, seconds: int, said: Sequence[Any]) -> MinuteRow:
    queue, task, *counts, run_us, waited_us, run_buckets, waited_buckets = said
    buckets = _numbers(run_buckets), _numbers(waited_buckets)
    times = run_us / 1e6, waited_us / 1e6
    return MinuteRow(begins_at, seconds, queue, task, tuple(counts), *times, *buckets)


def _numbers(array: str) -> tuple[int, ...]:
    return tuple(json.loads(f"[{array[1:-1]}]"))


def sum_minutes(view: View, p: Params) -> Rows:
    names = (p["queue_name"], p["task_name"])
    return _of_steps(view, p, lambda row: (row.queue_name, row.task_name) == names)


def list_minutes(view: View, p: Params) -> Rows:
    kind = (p["of_queues"], p["of_tasks"])

    def wanted(row: MinuteRow) -> bool:
        of = (row.queue_name != ALL, row.task_name != ALL)
        return (
            of in (kind, (False, False))
            and p["queue_name"] in (None, row.queue_name)
            and p["task_name"] in (None, row.task_name)
        )

    return _of_steps(view, p, wanted)


def _of_steps(view: View, p: Params, wanted: Callable[[MinuteRow], bool]) -> Rows:
    steps: defaultdict[tuple[int, int, str, str], list[MinuteRow]] = defaultdict(list)
    for row in view.minutes():
        in_time = p["since"] <= row.begins_at and (p["until"] is None or row.begins_at < p["until"])
        if in_time and wanted(row):
            seconds = max(row.seconds, p["step"])
            begins = int(row.begins_at.timestamp()) // seconds * seconds
            steps[begins, seconds, row.queue_name, row.task_name].append(row)
    return [(*key, *_columns(_together(rows))) for key, rows in steps.items()]


def _columns(row: MinuteRow) -> tuple[object, ...]:
    buckets = (row.run_buckets, row.waited_buckets)
    return (*row.counts, row.run, row.waited, *(json.dumps(each[:BUCKETS]) for each in buckets))


def take_old_minutes(view: View, p: Params) -> Rows:
    before = _begin(view.now, HOUR) - _DAY
    old = [row for row in view.minutes() if row.seconds == MINUTE and row.begins_at < before]
    hours: defaultdict[tuple[datetime, str, str], list[MinuteRow]] = defaultdict(list)
    for row in sorted(old, key=lambda row: row.key)[: p["limit"]]:
        view.delete_minute(row.key)
        hours[_begin(row.begins_at, HOUR), row.queue_name, row.task_name].append(row)
    return [_taken(hour, rows) for (hour, _, _), rows in hours.items()]


def _taken(hour: datetime, rows: Sequence[MinuteRow]) -> Row:
    row = _together(rows)
    times = int(row.run * 1e6), int(row.waited * 1e6)
    buckets = [f"{{{','.join(map(str, each))}}}" for each in (row.run_buckets, row.waited_buckets)]
    names = (row.queue_name, row.task_name)
    return (len(rows), int(hour.timestamp()), *names, *row.counts, *times, *buckets)


def prune_minutes(view: View, p: Params) -> Rows:
    before = view.now - interval(p["keep_us"])
    for row in view.minutes():
        if row.begins_at < before:
            view.delete_minute(row.key)
    return []


_FUNCTIONS: tuple[Function, ...] = (
    add_to_minute,
    add_to_hours,
    sum_minutes,
    list_minutes,
    take_old_minutes,
    prune_minutes,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
