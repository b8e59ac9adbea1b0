"""The statements that write what became of attempts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from procrastinate.connector import Rows
from procrastinate.model.job import HELD, Status
from procrastinate.model.text import json_text
from procrastinate.testing._engine.defer import announce, changes, due_at, hold_until
from procrastinate.testing._engine.values import (
    JobRow,
    errors_after,
    interval,
    jsonb,
    status,
    timestamp,
)
from procrastinate.testing._engine.view import Function, Params, View

NOBODY_WAITS = None  # for what ends in memory: waiting runs what is due


def finish_jobs(view: View, p: Params) -> Rows:
    ended = [finish(view, *each) for each in held(view, p, *said_of_ended(p))]
    return [(job.id, NOBODY_WAITS) for job in ended]


def finish_jobs_that_returned_nothing(view: View, p: Params) -> Rows:
    nulls = json_text.joined(["null"] * len(p["ids"]))
    return finish_jobs(view, {**p, "results": nulls, "result_errors": None})


def said_of_ended(p: Params) -> tuple[str, ...]:
    """Return what is said of each job that has succeeded; not all statements tell its result."""
    ages = ("began_us", "ended_us")
    return (*ages, *_RESULTS) if "results" in p else ages


_RESULTS = ("results", "result_errors")


def finish(
    view: View,
    job: JobRow,
    began_us: int,
    ended_us: int,
    result: str | None = None,
    result_error: str | None = None,
) -> JobRow:
    """Write that a job has succeeded, and return it."""
    changed = replace(
        kept(job, result, result_error),
        status=Status.SUCCEEDED,
        started_at=view.now - interval(began_us),
        finished_at=view.now - interval(ended_us),
    )
    return view.write_job(changed)


def kept(job: JobRow, result: str | None, result_error: str | None) -> JobRow:
    """Return a job with what its task returned, or why that is not kept."""
    return replace(job, result=None if result is None else jsonb(result), result_error=result_error)


def delete_finished(view: View, p: Params) -> Rows:
    gone = [job for (job,) in held(view, p)]
    for job in gone:
        view.delete_job(job)
    return [(job.id, NOBODY_WAITS) for job in gone]


def delete_ended(view: View, p: Params) -> Rows:
    for job_id in sorted(set(p["ids"])):
        job = view.job(job_id)
        if job is not None and job.status.is_final:
            view.delete_job(job)
    return []


def wake_waiters(view: View, p: Params) -> Rows:
    return []


def settle_jobs(view: View, p: Params) -> Rows:
    said = (*_GIVEN, *_RESULTS) if "results" in p else _GIVEN
    leaving = [(job, _Given(*values)) for job, *values in held(view, p, *said)]
    status_of = verdicts(view, [(job, status(given.wanted)) for job, given in leaving])
    changed = [
        view.write_job(_settled(view, p, job, given, status_of[job.id])) for job, given in leaving
    ]
    for job in changed:
        if job.status is Status.TODO:
            announce(view, job)
    return [(job.id, job.status.value, NOBODY_WAITS) for job in changed]


class _Given(NamedTuple):
    """What settle_jobs is told of an attempt."""

    wanted: str
    begun: int
    unknown: int
    due_at: str | None
    delay_us: int | None
    priority: int | None
    queue_name: str | None
    lock: str | None
    began_us: int
    ended_us: int
    error: str | None
    result: str | None = None
    result_error: str | None = None


_GIVEN = (
    "wanted",
    "begun",
    "unknown",
    "due_ats",
    "delays_us",
    "priorities",
    "queue_names",
    "locks",
    "began_us",
    "ended_us",
    "errors",
)


def verdicts(view: View, leaving: Sequence[tuple[JobRow, Status]]) -> dict[int, Status]:
    """Return the new status, by id, of jobs that leave their worker as these want to."""
    becomes = {}
    for job, wanted in leaving:
        aborted = job.abort_requested and wanted is not Status.SUCCEEDED
        becomes[job.id] = Status.ABORTED if aborted else wanted
    waiting = [job for job, _ in leaving if becomes[job.id] is Status.TODO]
    return becomes | dict.fromkeys(_superseded_among(view, waiting), Status.CANCELLED)


def _superseded_among(view: View, jobs: Iterable[JobRow]) -> set[int]:
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


def _settled(view: View, p: Params, job: JobRow, given: _Given, verdict: Status) -> JobRow:
    added = [] if given.error is None else [given.error]
    if verdict is Status.ABORTED and given.wanted != verdict.value:
        added.append(entry(view, job, p["aborted_type"], p["why_aborted"]))
    waits = verdict is Status.TODO
    due = _due_after(view, p, job, given)
    changed = replace(
        kept(job, given.result, given.result_error),
        status=verdict,
        hold=hold_until(due, view) if waits else None,
        scheduled_at=job.scheduled_at if due is None else due,
        worker_id=None if waits else job.worker_id,
        errors=errors_after(job.errors, *added),
        **changes(job, given._asdict()),
    )
    if given.begun:
        return _after_an_attempt(view, changed, given)
    return replace(
        changed,
        attempts=max(job.attempts - 1, 0),
        started_at=None,
        finished_at=None if waits else view.now,
        bounces=job.bounces if given.delay_us is None else min((job.bounces or 0) + 1, 1000),
        unknown_since=_unknown_since(view, job, given),
    )


def _after_an_attempt(view: View, job: JobRow, given: _Given) -> JobRow:
    began = view.now - interval(given.began_us)
    comes_back = job.status is Status.TODO
    return replace(
        job,
        started_at=began,
        first_started_at=(job.first_started_at or began) if comes_back else job.first_started_at,
        finished_at=view.now - interval(given.ended_us),
        bounces=None,
        unknown_since=_unknown_since(view, job, given) if given.unknown else None,
    )


def _unknown_since(view: View, job: JobRow, given: _Given) -> datetime | None:
    return job.unknown_since or (view.now if given.unknown else None)


def _due_after(view: View, p: Params, job: JobRow, given: _Given) -> datetime | None:
    at = None if given.due_at is None else timestamp(given.due_at)
    delay_us = given.delay_us
    if delay_us is not None and not given.begun:
        delay_us = min(delay_us * 2 ** min(job.bounces or 0, 20), p["longest_bounce_us"])
    return due_at(view, at, delay_us)


def entry(view: View, job: JobRow, type_name: str, message: str) -> str:
    """Return an entry of a job's errors that no exception gave, as JSON."""
    return json.dumps(
        {
            "attempt": job.attempts,
            "at": view.now.isoformat(timespec="microseconds"),
            "type": type_name,
            "message": message,
            "traceback": "",
        }
    )


def job_standings(view: View, p: Params) -> Rows:
    found = [view.job(job_id) for job_id in sorted(set(p["ids"]))]
    return [
        (job.id, job.status.value, job.worker_id, job.lease, job.crashes)
        for job in found
        if job is not None
    ]


def held(view: View, p: Params, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield (job, column...) for the jobs that the worker still holds, by these leases.

    A column that is null instead of an array is null for each job, as ``unnest`` makes it.
    """
    nulls = [None] * len(p["ids"])
    arrays = (nulls if p[column] is None else _array(p, column) for column in columns)
    for job_id, lease, *values in zip(p["ids"], p["leases"], *arrays, strict=True):
        job = view.job(job_id)
        if job is None or job.status not in HELD:
            continue
        if (job.lease, job.worker_id) == (lease, p["worker_id"]):
            yield (job, *values)


def _array(p: Params, column: str) -> Sequence[Any]:
    return json_text.parted(p[column]) if column == "results" else p[column]


_FUNCTIONS: tuple[Function, ...] = (
    finish_jobs,
    finish_jobs_that_returned_nothing,
    delete_finished,
    delete_ended,
    settle_jobs,
    wake_waiters,
    job_standings,
)

STATEMENTS: dict[str, Function] = {
    **{function.__name__: function for function in _FUNCTIONS},
    "finish_jobs_with_results": finish_jobs,
    "settle_jobs_with_results": settle_jobs,
}
