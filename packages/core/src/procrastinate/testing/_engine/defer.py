"""The statements that insert jobs, and those that set savepoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from procrastinate.connector import Rows
from procrastinate.testing._engine.values import (
    JobRow,
    interval,
    jsonb_texts,
    new_jobs_of,
    timestamp,
)
from procrastinate.testing._engine.view import Function, Params, View

NOTIFIED_AHEAD = timedelta(seconds=60)


def hold_until(due: datetime | None, view: View) -> str | None:
    """Return the hold of a job that is due then."""
    return "schedule" if due is not None and due > view.now else None


def announce(view: View, job: JobRow) -> str | None:
    """Wake workers for a job that is ready or soon due; returns the column that tells of it."""
    if job.hold is None:
        return view.notify("procrastinate_jobs", job.queue_name)
    if job.hold == "lock":
        return None
    if job.scheduled_at is not None and job.scheduled_at < view.now + NOTIFIED_AHEAD:
        return view.notify("procrastinate_schedule", job.queue_name)
    return None


def in_claim_order(jobs: Iterable[JobRow]) -> list[JobRow]:
    """Return jobs as claims take them."""
    return sorted(jobs, key=rank)


def rank(job: JobRow) -> tuple[int, int]:
    """Return a job's place in the order of claims."""
    return (-job.priority, job.id)


# --- defer ---------------------------------------------------------------------------------------


def defer_job(view: View, p: Params) -> Rows:
    if view.conflicts(p["queueing_lock"]):
        view.next_job_id()  # the INSERT has drawn it
        return [(None,)]
    job = _insert(view, **p)
    announce(view, job)
    return [(job.id,)]


def defer_job_in(view: View, p: Params) -> Rows:
    return defer_job(view, p)


def defer_job_with_key(view: View, p: Params) -> Rows:
    return defer_job(view, p)


def set_savepoint(view: View, p: Params) -> Rows:
    view.transaction.set_savepoint()
    return []


def drop_savepoint(view: View, p: Params) -> Rows:
    view.transaction.drop_savepoint()
    return []


def return_to_savepoint(view: View, p: Params) -> Rows:
    view.transaction.return_to_savepoint()
    return []


def defer_jobs(view: View, p: Params) -> Rows:
    common = _common(p)
    batch = [_new({**common, **given}) for given in new_jobs_of(p["jobs"])]
    clash = _clash(view, [new["queueing_lock"] for new in batch])
    if clash is not None:
        return [(None, clash)]
    for new in batch:
        new["id"] = view.next_job_id()
    by_lock = sorted(batch, key=lambda new: (new["queueing_lock"] or "", new["id"]))
    jobs = _parked(view, [_insert(view, **new) for new in by_lock])
    for job in sorted(jobs, key=lambda job: job.queue_name):
        announce(view, job)
    return [(job.id, None) for job in jobs]


def defer_alike(view: View, p: Params) -> Rows:
    common = _common(p)
    batch = [_new({**common, "args": args}) for args in jsonb_texts(p["all_args"])]
    jobs = _parked(view, [_insert(view, **new) for new in batch])
    if jobs:
        announce(view, jobs[0])
    ids = ",".join(str(job.id) for job in jobs)
    return [(f"{{{ids}}}" if jobs else None,)]


def _parked(view: View, jobs: Sequence[JobRow]) -> list[JobRow]:
    """Park all but the first ready job of each line and queue, and return the jobs."""
    firsts: dict[tuple[str | None, str], int] = {}
    for job in in_claim_order(jobs):
        if job.hold is None:
            firsts.setdefault((job.lock, job.queue_name), job.id)

    def parked(job: JobRow) -> JobRow:
        if job.lock is None or job.hold or firsts[job.lock, job.queue_name] == job.id:
            return job
        return view.write_job(replace(job, hold="lock"))

    return [parked(job) for job in jobs]


_DEFAULTS: Mapping[str, Any] = {
    "args": "{}",
    "queue_name": "default",
    "priority": 0,
    "lock": None,
    "queueing_lock": None,
    "scheduled_at": None,
    "schedule_in_us": None,
    "meta": None,
}


def _common(p: Params) -> dict[str, Any]:
    (given,) = new_jobs_of(f"[{p['common']}]")
    return {**_DEFAULTS, **given}


def _new(given: Mapping[str, Any]) -> dict[str, Any]:
    scheduled_at = given["scheduled_at"]
    return {
        **given,
        "scheduled_at": None if scheduled_at is None else timestamp(scheduled_at),
    }


def _clash(view: View, queueing_locks: Sequence[str | None]) -> str | None:
    seen = set()
    for queueing_lock in queueing_locks:
        if queueing_lock is None:
            continue
        if queueing_lock in seen or view.has_twin(queueing_lock):
            return queueing_lock
        seen.add(queueing_lock)
    return None


def _insert(
    view: View,
    *,
    scheduled_at: datetime | None,
    schedule_in_us: int | None = None,
    id: int | None = None,
    partition_key: str | None = None,  # here all jobs are together
    **columns: Any,
) -> JobRow:
    due = due_at(view, scheduled_at, schedule_in_us)
    return view.write_job(
        JobRow(
            id=id or view.next_job_id(),
            deferred_at=view.now,
            scheduled_at=due,
            hold=hold_until(due, view),
            **columns,
        )
    )


def due_at(view: View, at: datetime | None, in_us: int | None) -> datetime | None:
    if at is not None or in_us is None:
        return at
    return view.now + interval(in_us)


def changes(job: JobRow, p: Params) -> dict[str, Any]:
    """Return the columns that a retry may change; a null leaves a column as it is."""
    names = ("priority", "queue_name", "lock")
    return {name: getattr(job, name) if p[name] is None else p[name] for name in names}


_FUNCTIONS: tuple[Function, ...] = (
    defer_job,
    defer_job_in,
    defer_job_with_key,
    set_savepoint,
    drop_savepoint,
    return_to_savepoint,
    defer_jobs,
    defer_alike,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
