"""Flows about what ended in each minute: see `procrastinate.model.minutes`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from procrastinate.connector import Row, Value
from procrastinate.drive import Flow, Request
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.minutes import Durations, Kind, Spread, Tally, Throughput, durations

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
    """Add what was counted in the minute of so many seconds ago, by the server's clock."""
    kinds, found = list(tallies), list(tallies.values())
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
    rows = yield Request(
        "list_minutes",
        since=since,
        until=until,
        step=step,
        queue_name=queue,
        task_name=task,
        by_queue=int("queue" in by),
        by_task=int("task" in by),
    )
    return [_throughput(row) for row in sorted(rows, key=_order)]


def _order(row: Row) -> tuple[int, int, str, str]:
    return row[0], row[1], row[2] or "", row[3] or ""


def _throughput(row: Row) -> Throughput:
    begins, seconds, queue, task, *counts, ran, waited, run_buckets, waited_buckets = row
    return Throughput(
        datetime.fromtimestamp(begins, UTC),
        seconds,
        queue,
        task,
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
