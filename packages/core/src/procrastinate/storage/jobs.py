"""Flows of the job manager: reading and changing jobs by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from procrastinate.connector import Value
from procrastinate.drive import Flow, Request
from procrastinate.errors import AlreadyEnqueued, UniqueViolation
from procrastinate.former import WasMapping
from procrastinate.model.job import Error, Job, Status
from procrastinate.model.monitoring.failures import pattern
from procrastinate.storage import locks
from procrastinate.storage.defer import QUEUEING_LOCK_KEY
from procrastinate.storage.news import tell
from procrastinate.storage.rows import Loads, errors_from, jobs_from
from procrastinate.storage.savepoints import undoable
from procrastinate.storage.waking import wake
from procrastinate.storage.workers import dead_workers

INSTANT = timedelta(microseconds=1)  # the least that times in the database differ by
#: What may be retried by hand without being named.
ENDED_BADLY = (Status.FAILED, Status.CANCELLED, Status.ABORTED)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: None matches everything."""

    ids: Sequence[int] | None = None
    queue: str | None = None
    task: str | None = None
    statuses: Sequence[Status] | None = None
    lock: str | None = None
    queueing_lock: str | None = None
    worker_id: int | None = None
    holds: Sequence[str] | None = None  # of those that wait; "" is none
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None


def filter_params(which: JobFilter) -> dict[str, Value]:
    """Return the parameters of the fragment ``wanted``, which has no ids."""
    return {
        "queue_name": which.queue,
        "task_name": which.task,
        "statuses": None if which.statuses is None else [each.value for each in which.statuses],
        "lock": which.lock,
        "queueing_lock": which.queueing_lock,
        "worker_id": which.worker_id,
        "holds": None if which.holds is None else list(which.holds),
        "since": which.since,
        "through": None if which.until is None else which.until - INSTANT,
        "error": None if which.error is None else pattern(which.error),
    }


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: ids between two others, from which end, and how many jobs."""

    after_id: int = 0
    before_id: int | None = None
    newest_first: bool = False
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class Counts(WasMapping):
    """How many jobs a queue, task or lock has, in all and by status."""

    name: str
    jobs_count: int
    todo: int
    doing: int
    succeeded: int
    failed: int
    cancelled: int
    aborted: int


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a retry by hand changes; None leaves the value, ``retry_at`` None means at once."""

    retry_at: datetime | None = None
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None


def get_job(job_id: int, loads: Loads) -> Flow[Job | None]:
    """Return one job, or None."""
    rows = yield Request("get_job", id=job_id)
    return jobs_from(rows, loads)[0] if rows else None


def get_errors(job_id: int) -> Flow[list[Error]]:
    """Return the errors of a job; none if it is gone."""
    rows = yield Request("get_errors", id=job_id)
    return errors_from(rows[0][0]) if rows else []


def list_jobs(which: JobFilter, *, after_id: int, limit: int, loads: Loads) -> Flow[list[Job]]:
    """Return a page of jobs with ids above ``after_id``, in order of id."""
    return list_page(which, Page(after_id=after_id, limit=limit), loads)


def list_page(which: JobFilter, page: Page, loads: Loads) -> Flow[list[Job]]:
    """Return a page of jobs, in order of id or from the newest on."""
    rows = yield Request(
        "list_newest_jobs" if page.newest_first else "list_jobs",
        ids=None if which.ids is None else list(which.ids),
        **filter_params(which),
        after_id=page.after_id,
        before_id=page.before_id,
        limit=page.limit,
    )
    return jobs_from(rows, loads)


def list_counts(
    by: Literal["list_queues", "list_tasks", "list_locks"],
    *,
    queue: str | None,
    task: str | None,
    lock: str | None,
) -> Flow[list[Counts]]:
    """Return the number of jobs by queue, task or lock, and by status."""
    rows = yield Request(by, queue_name=queue, task_name=task, lock=lock)
    return [Counts(*row) for row in rows]


def cancel_jobs(
    ids: Sequence[int], *, abort: bool, delete: bool, noting: set[int] | None = None
) -> Flow[set[int]]:
    """Cancel (or delete) waiting jobs and, with ``abort``, ask for the end of running ones.

    Returns the ids of the jobs that were cancelled or asked. ``noting`` gets those that were asked.
    Needs a transaction.
    """
    # Running jobs first: the end of one may be waiting for the next of its line, and that for us.
    asked = (yield from _request_abort(ids)) if abort else set()
    waiting = sorted(set(ids) - asked)
    rows = (
        (yield Request("delete_todo" if delete else "cancel_todo", ids=waiting)) if waiting else []
    )
    over = [int(row[0]) for row in rows]
    yield from wake(over)
    yield from locks.pass_on(row[1] for row in rows)
    changed = asked | set(over)
    if abort:  # what was claimed between the two
        asked |= yield from _request_abort(sorted(set(ids) - changed))
    if noting is not None:
        noting |= asked
    return changed | asked


def _request_abort(ids: Sequence[int]) -> Flow[set[int]]:
    if not ids:
        return set()
    rows = yield Request("request_abort", ids=list(ids))
    yield from tell(rows, 2)
    return {int(row[0]) for row in rows}


def retry_by_hand(ids: Sequence[int], change: ByHand) -> Flow[set[int]]:
    """Make ended or waiting jobs due again and return their ids. Needs a transaction.

    Raises `AlreadyEnqueued` when a job with the same queueing lock is waiting.
    """
    try:
        return (yield from _retry("retry_jobs_by_hand", ids, change))
    except UniqueViolation as exc:
        if exc.constraint != QUEUEING_LOCK_KEY:
            raise
        raise AlreadyEnqueued("a job with the same queueing lock is waiting already") from exc


def retry_by_hand_for_caller(ids: Sequence[int], change: ByHand) -> Flow[set[int]]:
    """The same in the caller's transaction, which stays usable after `AlreadyEnqueued`."""

    def retry() -> Flow[set[int]]:
        return retry_by_hand(ids, change)

    return undoable(retry, autocommit=retry)


def retry_unless_twin_waits(ids: Sequence[int], change: ByHand) -> Flow[set[int]]:
    """The same, but leaves jobs as they are whose twin is waiting. Needs a transaction.

    A twin that is committed while the statement runs raises `UniqueViolation`; run the flow again
    then: it sees the twin.
    """
    return (yield from _retry("retry_unless_twin_waits", ids, change))


def _retry(statement: str, ids: Sequence[int], change: ByHand) -> Flow[set[int]]:
    rows = yield Request(
        statement,
        ids=list(ids),
        retry_at=change.retry_at,
        priority=change.priority,
        queue_name=change.queue,
        lock=change.lock,
    )
    yield from tell(rows, 3)
    yield from locks.pass_on(row[1] for row in rows)
    return {int(row[0]) for row in rows}


def stalled_jobs(
    *, timeout_us: int, queue: str | None, task: str | None, loads: Loads
) -> Flow[list[Job]]:
    """Return the jobs that run on workers not heard of for so long."""
    dead = yield from dead_workers(timeout_us=timeout_us)
    if dead is None:
        return []
    rows = yield Request("list_stalled", dead_ids=dead, queue_name=queue, task_name=task)
    return jobs_from(rows, loads)
