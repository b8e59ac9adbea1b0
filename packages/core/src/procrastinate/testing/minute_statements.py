"""The statements about what ended in each minute, in Python: see `queue_statements`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from procrastinate.connector import Rows
from procrastinate.model.minutes import BUCKETS, HOUR, MINUTE
from procrastinate.testing.queue_statements import Function, Params
from procrastinate.testing.values import MinuteRow, interval
from procrastinate.testing.view import View

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
    for queue, task, *counts, run_us, waited_us, run_buckets, waited_buckets in zip(
        p["queue_names"],
        p["task_names"],
        *(p[name] for name in _COUNTS),
        p["run_us"],
        p["waited_us"],
        p["run_buckets"],
        p["waited_buckets"],
        strict=True,
    ):
        buckets = _numbers(run_buckets), _numbers(waited_buckets)
        row = MinuteRow(
            begins_at, MINUTE, queue, task, tuple(counts), run_us / 1e6, waited_us / 1e6, *buckets
        )
        _add(view, row)
    return []


def _numbers(array: str) -> tuple[int, ...]:
    return tuple(json.loads(f"[{array[1:-1]}]"))


def list_minutes(view: View, p: Params) -> Rows:
    groups: defaultdict[tuple[int, int, str | None, str | None], list[MinuteRow]]
    groups = defaultdict(list)
    for row in view.minutes():
        if (
            p["since"] <= row.begins_at
            and (p["until"] is None or row.begins_at < p["until"])
            and p["queue_name"] in (None, row.queue_name)
            and p["task_name"] in (None, row.task_name)
        ):
            seconds = max(row.seconds, p["step"])
            begins = int(row.begins_at.timestamp()) // seconds * seconds
            queue = row.queue_name if p["by_queue"] else None
            task = row.task_name if p["by_task"] else None
            groups[begins, seconds, queue, task].append(row)
    return [(*key, *_columns(_together(rows))) for key, rows in groups.items()]


def _columns(row: MinuteRow) -> tuple[object, ...]:
    buckets = (row.run_buckets, row.waited_buckets)
    return (*row.counts, row.run, row.waited, *(json.dumps(each[:BUCKETS]) for each in buckets))


def roll_up_minutes(view: View, p: Params) -> Rows:
    before = _begin(view.now, HOUR) - _DAY
    old = [row for row in view.minutes() if row.seconds == MINUTE and row.begins_at < before]
    taken = sorted(old, key=lambda row: row.key)[: p["limit"]]
    for row in taken:
        view.delete_minute(row.key)
        _add(view, replace(row, begins_at=_begin(row.begins_at, HOUR), seconds=HOUR))
    return [(len(taken),)]


def prune_minutes(view: View, p: Params) -> Rows:
    before = view.now - interval(p["keep_us"])
    for row in view.minutes():
        if row.begins_at < before:
            view.delete_minute(row.key)
    return []


_FUNCTIONS: tuple[Function, ...] = (add_to_minute, list_minutes, roll_up_minutes, prune_minutes)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
