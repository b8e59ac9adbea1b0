"""The flow that groups failures."""

from __future__ import annotations

from procrastinate.connector import Row
from procrastinate.drive import Flow, Request, at
from procrastinate.model.monitoring.failures import FailureGroup, grouped, normalised
from procrastinate.model.monitoring.search import Count
from procrastinate.model.partitions import Partitions
from procrastinate.storage.jobs import JobFilter, filter_params
from procrastinate.storage.rows import in_utc


def list_failures(
    which: JobFilter, *, budget: int, partitions: Partitions
) -> Flow[list[FailureGroup]]:
    """Return the groups of the failed jobs that a budget of rows shows, the latest first."""
    scanned = max(budget // len(partitions.values), 1)
    found: list[FailureGroup] = []
    for partition in partitions.values:
        found += yield from at(partition, _here(which, scanned))
    return grouped(found)


def _here(which: JobFilter, scanned: int) -> Flow[list[FailureGroup]]:
    rows = yield Request("list_failures", **filter_params(which), scanned=scanned)
    is_complete = rows[0][0] < scanned
    return [_group(row, is_complete) for row in rows if row[1] is not None]


def _group(row: Row, is_complete: bool) -> FailureGroup:
    _, task_name, error_type, message, count, first_at, last_at, last_id = row
    return FailureGroup(
        task_name,
        error_type,
        normalised(message),
        Count(int(count), is_complete),
        in_utc(first_at),
        in_utc(last_at),
        int(last_id),
    )
