"""Flows about what ended in each minute: see `procrastinate.model.monitoring.minutes`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain

from procrastinate.connector import Row, Rows, Value
from procrastinate.drive import Flow, Request
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.monitoring.minutes import (
    ALL,
    Durations,
    Kind,
    Spread,
    Tally,
    Throughput,
    durations,
    with_sums,
)

#: What is counted, and the column of each.
COLUMNS = {
    Status.SUCCEEDED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.ABORTED: "aborted",
    Status.TODO: "retried",
}
#: The columns of `take_old_minutes` behind the first, as `add_to_hours` calls them.
_OF_AN_HOUR = (
    *("hours", "queue_names", "task_names", *COLUMNS.values(), "run_us", "waited_us"),
    *("run_buckets", "waited_buckets"),
)
ROLLED_UP_AT_ONCE = 2_000  # rows: a quarter of a second


def add(tallies: Mapping[Kind, Tally], *, age: float) -> Flow[None]:
    """Add what was counted in the minute that was ``age`` seconds ago, by the server's clock."""
    sums = with_sums(tallies)
    kinds, found = list(sums), list(sums.values())
    counts: dict[str, Value] = {
        column: [tally.counts[status] for tally in found] for status, column in COLUMNS.items()
    }
    yield Request(
        "add_to_minute",
        age_us=int(age * 1e6),
        hours=[0] * len(found),
        queue_names=[queue for queue, _ in kinds],
        task_names=[task for _, task in kinds],
        run_us=[int(tally.run.seconds * 1e6) for tally in found],
        waited_us=[int(tally.waited.seconds * 1e6) for tally in found],
        run_buckets=[_array(tally.run) for tally in found],
        waited_buckets=[_array(tally.waited) for tally in found],
        **counts,
    )


def _array(spread: Spread) -> str:
    return f"{{{','.join(map(str, spread.buckets))}}}"


def throughput(
    *,
    since: datetime,
    until: datetime | None,
    step: int,
    queue: str | None,
    task: str | None,
    by: Sequence[str],
) -> Flow[list[Throughput]]:
    """Return what ended in a time, in steps of so many seconds, in order."""
    chosen = {"queue": queue, "task": task}
    span: dict[str, Value] = {"since": since, "until": until, "step": step}
    if all(chosen[each] is not None for each in by):  # one kind of rows says it all
        rows = yield Request("sum_minutes", **span, queue_name=queue or ALL, task_name=task or ALL)
    else:
        rows = yield Request(
            "list_minutes",
            **span,
            queue_name=queue,
            task_name=task,
            of_queues=int("queue" in by or queue is not None),
            of_tasks=int("task" in by or task is not None),
        )
        rows = _apart(rows)
    return [_throughput(row, by) for row in sorted(rows, key=_key)]


def _key(row: Row) -> tuple[int, int, str, str]:
    return row[0], row[1], row[2], row[3]


def _apart(rows: Rows) -> Rows:
    """Take what was counted apart from the sums of all: what is left of these was not."""
    totals: dict[Row, Row] = {}
    parts: defaultdict[Row, list[Row]] = defaultdict(list)
    for row in rows:
        step, names = row[:2], row[2:4]
        if names == (ALL, ALL):
            totals[step] = row
        else:
            parts[step].append(row)
    rest = (_less(total, parts[step]) for step, total in totals.items())
    return [*chain.from_iterable(parts.values()), *filter(None, rest)]


_COUNTS = slice(4, 4 + len(COLUMNS))
_TIMES = slice(4 + len(COLUMNS), 4 + len(COLUMNS) + 2)
_BUCKETS = slice(4 + len(COLUMNS) + 2, None)


def _less(total: Row, parts: Sequence[Row]) -> Row | None:
    """Return what is left of a row without others. While hours are made, these may be more."""
    counts = _differences(total[_COUNTS], [part[_COUNTS] for part in parts])
    if not any(counts):
        return None  # as nearly always: to read all buckets takes as long as all else
    times = _differences(total[_TIMES], [part[_TIMES] for part in parts])
    buckets = zip(total[_BUCKETS], *(part[_BUCKETS] for part in parts), strict=True)
    return (*total[: _COUNTS.start], *counts, *times, *(_less_buckets(*each) for each in buckets))


def _less_buckets(total: str, *parts: str) -> str:
    return json.dumps(_differences(json.loads(total), [json.loads(part) for part in parts]))


def _differences(total: Sequence[float], parts: Iterable[Sequence[float]]) -> list[float]:
    return [max(0, all_ - sum(some)) for all_, *some in zip(total, *parts, strict=True)]


def _throughput(row: Row, by: Sequence[str]) -> Throughput:
    begins, seconds, queue, task, *counts, ran, waited, run_buckets, waited_buckets = row
    return Throughput(
        datetime.fromtimestamp(begins, UTC),
        seconds,
        queue if "queue" in by else None,
        task if "task" in by else None,
        **dict(zip(COLUMNS.values(), counts, strict=True)),
        run=_durations(ran, run_buckets),
        waited=_durations(waited, waited_buckets),
    )


def _durations(seconds: float | None, buckets: str) -> Durations:
    return durations(seconds, json.loads(buckets))


def tidy(*, keep: float) -> Flow[bool]:
    """Make hours of old minutes, and remove what is older than ``keep`` seconds.

    Returns whether there may be more to do. Needs a transaction.
    """
    rows = yield Request("take_old_minutes", limit=ROLLED_UP_AT_ONCE)
    if rows:
        columns: dict[str, Value] = {
            name: list(column)
            for name, column in zip(_OF_AN_HOUR, list(zip(*rows, strict=True))[1:], strict=True)
        }
        yield Request("add_to_hours", **columns)
    yield Request("prune_minutes", keep_us=checks.microseconds(timedelta(seconds=keep)))
    return sum(int(row[0]) for row in rows) == ROLLED_UP_AT_ONCE
