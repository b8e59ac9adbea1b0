"""Flows that change many jobs, one bounded batch at a time.

Rules

- A batch reads up to `SCANNED` jobs above an id and changes up to `BATCH` of them. So nothing
  depends on how the planner sees the table, and all batches together read each job once.
- A batch does not wait: it passes over the jobs that another session has in hand, and says which
  they are. While it works on the others, which takes milliseconds, claims pass over them in turn.
- The filter is applied again to the locked jobs: what has changed meanwhile is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from procrastinate.drive import Flow, Request
from procrastinate.model.job import Status
from procrastinate.storage.jobs import ENDED_BADLY, JobFilter, filter_params
from procrastinate.storage.places import Change

BATCH = 1_000  # jobs changed by one transaction
SCANNED = 10_000  # jobs looked at by one statement


@dataclass(frozen=True, slots=True)
class Batch:
    """What was changed, what was passed over, and after which id to go on (None: the end)."""

    changed: set[int]
    busy: list[int]
    last_id: int | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many were deleted, and after which id to go on (None: the end)."""

    count: int
    last_id: int | None


def parts(which: JobFilter) -> Iterator[JobFilter]:
    """Split a filter that names many ids."""
    if which.ids is None:
        yield which
        return
    ids = sorted(set(which.ids))
    for start in range(0, len(ids), BATCH):
        yield replace(which, ids=ids[start : start + BATCH])


def change_batch(which: JobFilter, change: Change, *, after_id: int, limit: int) -> Flow[Batch]:
    """Change up to ``limit`` matching jobs with ids above ``after_id``. Needs a transaction."""
    if which.ids is not None:
        statement = "grip_ids"
    elif which.statuses is not None and set(which.statuses) <= set(ENDED_BADLY):
        statement = "grip_ended"
    else:
        statement = "grip_any"
    return (yield from _changed(_grip(statement, which, after_id, limit), change))


def change_when_free(which: JobFilter, change: Change) -> Flow[Batch]:
    """Change the jobs of these few ids, once no other session has them. Needs a transaction."""
    request = _grip("grip_ids_when_free", which, 0, BATCH)
    return (yield from _changed(request, change))


def _grip(statement: str, which: JobFilter, after_id: int, limit: int) -> Request:
    return Request(
        statement,
        **({} if which.ids is None else {"ids": list(which.ids)}),
        **filter_params(which),
        after_id=after_id,
        limit=limit,
        scanned=SCANNED,
    )


def _changed(request: Request, change: Change) -> Flow[Batch]:
    rows = yield request
    gripped = [int(row[1]) for row in rows if row[1] is not None and row[2]]
    busy = [int(row[1]) for row in rows if row[1] is not None and not row[2]]
    changed = (yield from change(gripped)) if gripped else set()
    return Batch(changed, busy, rows[0][0])


def delete_old(ages_us: Mapping[Status, int], *, queue: str | None, after_id: int) -> Flow[Deleted]:
    """Delete the jobs of a batch that ended longer ago than these ages in microseconds, by status.

    The batch is the next `SCANNED` ids, and the walk ends at the first jobs that were deferred too
    lately to be that old.
    """
    rows = yield Request(
        "delete_old_jobs",
        statuses=[status.value for status in ages_us],
        ages_us=list(ages_us.values()),
        queue_name=queue,
        after_id=after_id,
        scanned=SCANNED,
    )
    return Deleted(int(rows[0][0]), rows[0][1])
