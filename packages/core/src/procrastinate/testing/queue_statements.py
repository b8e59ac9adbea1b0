"""The statements that insert and end jobs, in Python: one function for each, same name.

Each takes the view and the statement's parameters and returns rows with the columns of its SQL.
The SQL files say what they are for; here is only how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.testing.values import (
    JobRow,
    appended,
    elements_of,
    interval,
    jsonb,
    status,
    timestamp,
)
from procrastinate.testing.view import View

Params: TypeAlias = Mapping[str, Any]
Function: TypeAlias = Callable[[View, Params], Rows]

NOTIFIED_AHEAD = timedelta(seconds=60)


def hold_until(due: datetime | None, view: View) -> str | None:
    """Return the hold of a job that is due then."""
    return "schedule" if due is not None and due > view.now else None


def announce(view: View, job: JobRow) -> str | None:
    """Wake workers for a job that is ready or soon due; returns the column that tells of it."""
    if job.hold is None:
        return view.notify("procrastinate_jobs", job.queue_name)
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
        return [(None,)]
    job = _insert(view, **p)
    announce(view, job)
    return [(job.id,)]


def defer_alike(view: View, p: Params) -> Rows:
    columns = {name: value for name, value in p.items() if name != "args"}
    jobs = [
        _insert(view, queueing_lock=None, args=args, **columns) for args in elements_of(p["args"])
    ]
    if jobs:
        announce(view, jobs[0])
    return [(job.id,) for job in jobs]


def draw_job_ids(view: View, p: Params) -> Rows:
    return [(view.next_job_id(),) for _ in range(p["count"])]


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
    batch = [_new(*values) for values in zip(*(p[name] for name in _BATCH), strict=True)]
    clash = _clash(view, [new["queueing_lock"] for new in batch])
    if clash is not None:
        return [(None, clash)]
    for new in batch:
        new["id"] = new["id"] or view.next_job_id()
    by_lock = sorted(batch, key=lambda new: (new["queueing_lock"] or "", new["id"]))
    jobs = [_insert(view, **new) for new in by_lock]
    for job in sorted(jobs, key=lambda job: job.queue_name):
        announce(view, job)
    return [(job.id, None) for job in jobs]


_BATCH = (
    "queue_names",
    "task_names",
    "priorities",
    "locks",
    "queueing_locks",
    "args",
    "scheduled_ats",
    "schedule_in_us",
    "ids",
)


def _new(
    queue_name: str,
    task_name: str,
    priority: int,
    lock: str | None,
    queueing_lock: str | None,
    args: str,
    scheduled_at: str | None,
    schedule_in_us: int | None,
    id: int | None,
) -> dict[str, Any]:
    return {
        "id": id,
        "queue_name": queue_name,
        "task_name": task_name,
        "priority": priority,
        "lock": lock,
        "queueing_lock": queueing_lock,
        "args": jsonb(args),
        "scheduled_at": None if scheduled_at is None else timestamp(scheduled_at),
        "schedule_in_us": schedule_in_us,
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
    schedule_in_us: int | None,
    id: int | None = None,
    **columns: Any,
) -> JobRow:
    due = _due(view, scheduled_at, schedule_in_us)
    return view.write_job(
        JobRow(
            id=id or view.next_job_id(),
            deferred_at=view.now,
            scheduled_at=due,
            hold=hold_until(due, view),
            **columns,
        )
    )


def _due(view: View, at: datetime | None, in_us: int | None) -> datetime | None:
    if at is not None or in_us is None:
        return at
    return view.now + interval(in_us)


# --- finish --------------------------------------------------------------------------------------


def finish_jobs(view: View, p: Params) -> Rows:
    rows = []
    columns = ("statuses", "began_us", "ended_us", "errors")
    for job, to, began_us, ended_us, error in _held(view, p, *columns):
        changed = replace(
            job,
            status=status(to),
            started_at=view.now - interval(began_us),
            finished_at=view.now - interval(ended_us),
            errors=appended(job.errors, error),
        )
        rows.append((view.write_job(changed).id,))
    return rows


def delete_finished(view: View, p: Params) -> Rows:
    held = [job for (job,) in _held(view, p)]
    for job in held:
        view.delete_job(job)
    return [(job.id,) for job in held]


def delete_ended(view: View, p: Params) -> Rows:
    for job_id in sorted(set(p["ids"])):
        job = view.job(job_id)
        if job is not None and job.status.is_final:
            view.delete_job(job)
    return []


def retry_job(view: View, p: Params) -> Rows:
    due = _due(view, p["retry_at"], p["retry_in_us"])
    job = _still_held(view, p["id"], p["lease"], p["worker_id"])
    if job is None:
        return []
    verdict = requeued(job, superseded=view.has_twin(job.queueing_lock))
    waits = verdict is Status.TODO
    changed = replace(
        job,
        status=verdict,
        hold=hold_until(due, view) if waits else None,
        scheduled_at=due,
        worker_id=None if waits else job.worker_id,
        started_at=view.now - interval(p["began_us"]),
        finished_at=view.now - interval(p["ended_us"]),
        errors=appended(job.errors, p["error"]),
        **changes(job, p),
    )
    if verdict is Status.ABORTED:
        changed = replace(changed, errors=appended(changed.errors, why_aborted(view, job)))
    view.write_job(changed)
    return [(job.id, verdict.value, announce(view, changed) if waits else None)]


def requeued(job: JobRow, *, superseded: bool) -> Status:
    """Return what becomes of a running job that should go back to the queue."""
    if job.abort_requested:
        return Status.ABORTED
    return Status.CANCELLED if superseded else Status.TODO


def why_aborted(view: View, job: JobRow) -> str:
    """Return the entry in the errors of a job that somebody wants aborted, as JSON."""
    return json.dumps(
        {
            "attempt": job.attempts,
            "at": view.now.isoformat(timespec="microseconds"),
            "type": "procrastinate.errors.JobAborted",
            "message": "an abortion was asked for, so the job does not go back to the queue",
            "traceback": "",
        }
    )


def changes(job: JobRow, p: Params) -> dict[str, Any]:
    """Return the columns that a retry may change, where a null leaves them."""
    names = ("priority", "queue_name", "lock")
    return {name: getattr(job, name) if p[name] is None else p[name] for name in names}


def hand_back(view: View, p: Params) -> Rows:
    held = list(_held(view, p, "begun"))
    superseded = superseded_among(view, [job for job, _ in held if not job.abort_requested])
    changed = [
        _handed_back(view, job, requeued(job, superseded=job.id in superseded), begun=bool(begun))
        for job, begun in held
    ]
    for job in changed:
        view.write_job(job)
    view.wake(job.queue_name for job in changed if job.status is Status.TODO)
    return [(job.id, job.status.value) for job in changed]


def _handed_back(view: View, job: JobRow, verdict: Status, *, begun: bool) -> JobRow:
    changed = replace(
        job,
        status=verdict,
        worker_id=None,
        started_at=job.started_at if begun else None,
        finished_at=None if verdict is Status.TODO else view.now,
        attempts=job.attempts if begun else job.attempts - 1,
    )
    if verdict is not Status.ABORTED:
        return changed
    errors = appended(job.errors, why_aborted(view, job))
    return replace(changed, worker_id=job.worker_id, errors=errors)


def superseded_among(view: View, jobs: Iterable[JobRow]) -> set[int]:
    """Return which of these jobs may not wait: a twin waits, or comes before it among them."""
    superseded: set[int] = set()
    taken: set[str] = set()
    for job in sorted(jobs, key=lambda job: job.id):
        if job.queueing_lock is None:
            continue
        if job.queueing_lock in taken or view.has_twin(job.queueing_lock):
            superseded.add(job.id)
        taken.add(job.queueing_lock)
    return superseded


def _held(view: View, p: Params, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield (job, column...) for the jobs that the worker still holds, by these leases."""
    arrays = (p[column] for column in columns)
    for job_id, lease, *values in zip(p["ids"], p["leases"], *arrays, strict=True):
        job = _still_held(view, job_id, lease, p["worker_id"])
        if job is not None:
            yield (job, *values)


def _still_held(view: View, job_id: int, lease: int, worker_id: int) -> JobRow | None:
    job = view.job(job_id)
    if job is None or job.status is not Status.DOING:
        return None
    return job if (job.lease, job.worker_id) == (lease, worker_id) else None


# --- locks ---------------------------------------------------------------------------------------


def grip_locks(view: View, p: Params) -> Rows:
    gripped = sorted(lock for lock, job_id in view.held_locks().items() if job_id in p["ids"])
    for lock in gripped:
        view.grip_lock(lock)
    return [(lock,) for lock in gripped]


def release_locks(view: View, p: Params) -> Rows:
    rows = _pass_on(view, _parked_for(view, p["locks"]))
    for lock in p["locks"]:
        view.release_lock(lock)
    return rows


def pass_on_locks(view: View, p: Params) -> Rows:
    return _pass_on(view, view.unlocked(_parked_for(view, p["locks"])))


def _parked_for(view: View, locks: Sequence[str]) -> list[JobRow]:
    waiting = view.active_jobs(Status.TODO)
    return [job for job in waiting if job.hold == "lock" and job.lock in locks]


def _pass_on(view: View, parked: Iterable[JobRow]) -> Rows:
    first = first_of_lines(parked)
    for job in first:
        view.write_job(replace(job, hold=None))
    queues = sorted({job.queue_name for job in first})
    return [(queue, view.notify("procrastinate_jobs", queue)) for queue in queues]


def first_of_lines(jobs: Iterable[JobRow]) -> list[JobRow]:
    """Return the best of these jobs for each lock and queue."""
    first: dict[tuple[str | None, str], JobRow] = {}
    for job in in_claim_order(jobs):
        first.setdefault((job.lock, job.queue_name), job)
    return list(first.values())


_FUNCTIONS: tuple[Function, ...] = (
    defer_job,
    defer_alike,
    draw_job_ids,
    set_savepoint,
    drop_savepoint,
    return_to_savepoint,
    defer_jobs,
    finish_jobs,
    delete_finished,
    delete_ended,
    retry_job,
    hand_back,
    grip_locks,
    release_locks,
    pass_on_locks,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
