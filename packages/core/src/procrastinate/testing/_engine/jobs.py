"""The job manager's statements."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.model.text.failure import headline
from procrastinate.testing._engine.defer import announce, changes, hold_until, rank
from procrastinate.testing._engine.values import (
    JobRow,
    errors_column,
    job_columns,
    job_moment,
    last_error,
    status,
)
from procrastinate.testing._engine.view import Function, Params, View


def _matches(wanted: object, value: object) -> bool:
    """Whether a filter lets a value pass; a null one lets everything."""
    return wanted is None or wanted == value


def get_job(view: View, p: Params) -> Rows:
    job = view.job(p["id"])
    return [] if job is None else [job_columns(job)]


def read_jobs(view: View, p: Params) -> Rows:
    found = [job for each in p["ids"] if (job := view.job(each)) is not None]
    return [(job.id, job.status.value, *job_columns(job)) for job in found]


def look_at_jobs(view: View, p: Params) -> Rows:
    return [row[:2] for row in read_jobs(view, p)]


def get_errors(view: View, p: Params) -> Rows:
    job = view.job(p["id"])
    return [] if job is None else [(errors_column(job),)]


def locate_jobs(view: View, p: Params) -> Rows:
    return [(job.id, 0) for job in view.jobs() if job.id in set(p["ids"])]


def list_jobs(view: View, p: Params) -> Rows:
    return [job_columns(job) for job in _listed(view, p)][: p["limit"]]


def list_newest_jobs(view: View, p: Params) -> Rows:
    return [job_columns(job) for job in reversed(_listed(view, p))][: p["limit"]]


def _listed(view: View, p: Params) -> list[JobRow]:
    ids = None if p["ids"] is None else set(p["ids"])
    before_id = math.inf if p["before_id"] is None else p["before_id"]
    return [
        job
        for job in view.jobs()
        if p["after_id"] < job.id < before_id and (ids is None or job.id in ids) and matches(job, p)
    ]


def matches(job: JobRow, p: Params) -> bool:
    """Whether the filters let a job pass."""
    statuses = None if p["statuses"] is None else {status(each) for each in p["statuses"]}
    return (
        (statuses is None or job.status in statuses)
        and _matches(p["queue_name"], job.queue_name)
        and _matches(p["task_name"], job.task_name)
        and _matches(p["lock"], job.lock)
        and _matches(p["queueing_lock"], job.queueing_lock)
        and _matches(p["worker_id"], job.worker_id)
        and _may_have_hold(job, p["holds"])
        and (p["since"] is None or job_moment(job) >= p["since"])
        and (p["through"] is None or job_moment(job) <= p["through"])
        and (p["error"] is None or _like(p["error"], headline(*last_error(job))))
    )


def _may_have_hold(job: JobRow, holds: Sequence[str] | None) -> bool:
    return holds is None or job.status is not Status.TODO or (job.hold or "") in holds


def _like(pattern: str, text: str) -> bool:
    """What SQL's LIKE says of two texts in lower case."""
    parts = re.findall(r"\\.|%|[^\\%]+", pattern.lower(), re.DOTALL)
    regex = "".join(".*" if part == "%" else re.escape(part.removeprefix("\\")) for part in parts)
    return re.fullmatch(regex, text.lower(), re.DOTALL) is not None


def list_queues(view: View, p: Params) -> Rows:
    return _counts(view, p, lambda job: job.queue_name)


def list_tasks(view: View, p: Params) -> Rows:
    return _counts(view, p, lambda job: job.task_name)


def list_locks(view: View, p: Params) -> Rows:
    return _counts(view, p, lambda job: job.lock)


def _counts(view: View, p: Params, name_of: Callable[[JobRow], str | None]) -> Rows:
    groups: dict[str, list[Status]] = {}
    for job in view.jobs():
        name = name_of(job)
        if (
            name is not None
            and _matches(p["queue_name"], job.queue_name)
            and _matches(p["task_name"], job.task_name)
            and _matches(p["lock"], job.lock)
        ):
            groups.setdefault(name, []).append(job.status)
    return [
        (name, len(found), *(found.count(each) for each in Status))
        for name, found in sorted(groups.items())
    ]


def cancel_todo(view: View, p: Params) -> Rows:
    waiting = list(_jobs_of(view, p, Status.TODO))
    for job in waiting:
        view.write_job(replace(job, status=Status.CANCELLED, hold=None, finished_at=view.now))
    return [(job.id, job.lock) for job in waiting]


def delete_todo(view: View, p: Params) -> Rows:
    waiting = list(_jobs_of(view, p, Status.TODO))
    for job in waiting:
        view.delete_job(job)
    return [(job.id, job.lock) for job in waiting]


def request_abort(view: View, p: Params) -> Rows:
    running = list(_jobs_of(view, p, Status.DOING))
    for job in running:
        view.write_job(replace(job, abort_requested=True))
    return [(job.id, view.notify("procrastinate_aborts", str(job.id))) for job in running]


def retry_jobs_by_hand(view: View, p: Params) -> Rows:
    return _retry(view, p, list(_jobs_of(view, p, *_STARTABLE)))


def retry_unless_twin_waits(view: View, p: Params) -> Rows:
    chosen = list(_jobs_of(view, p, *_STARTABLE))
    first: dict[str, JobRow] = {}
    for job in sorted(chosen, key=lambda job: (job.status is not Status.TODO, *rank(job))):
        if job.queueing_lock is not None:
            first.setdefault(job.queueing_lock, job)
    free = [
        job
        for job in chosen
        if job.queueing_lock is None
        or (
            first[job.queueing_lock] is job and not view.has_twin(job.queueing_lock, besides=job.id)
        )
    ]
    return _retry(view, p, free)


_STARTABLE = (Status.TODO, Status.FAILED, Status.CANCELLED, Status.ABORTED)


def _retry(view: View, p: Params, chosen: list[JobRow]) -> Rows:
    at: datetime | None = p["retry_at"]
    rows = []
    for job in chosen:
        waiting = job.status is Status.TODO
        changed = view.write_job(
            replace(
                job,
                status=Status.TODO,
                abort_requested=False,
                crashes=0,
                bounces=None,
                unknown_since=None,
                worker_id=None,
                started_at=None,
                first_started_at=None,
                finished_at=None,
                result=None,
                result_error=None,
                attempts=job.attempts if waiting else 0,
                scheduled_at=view.now if at is None else at,
                hold=hold_until(at, view),
                **changes(job, p),
            )
        )
        rows.append((job.id, job.lock, announce(view, changed)))
    return rows


def _jobs_of(view: View, p: Params, *statuses: Status) -> Iterator[JobRow]:
    for job_id in sorted(set(p["ids"])):
        job = view.job(job_id)
        if job is not None and job.status in statuses:
            yield job


def list_stalled(view: View, p: Params) -> Rows:
    return [
        job_columns(job)
        for job in stalled_jobs(view, p)
        if _matches(p["queue_name"], job.queue_name) and _matches(p["task_name"], job.task_name)
    ]


def stalled_jobs(view: View, p: Params) -> list[JobRow]:
    """Return the jobs that run on these dead workers, or on none, in order of id."""
    running = view.active_jobs(Status.DOING)
    return [job for job in running if job.worker_id is None or job.worker_id in p["dead_ids"]]


_FUNCTIONS: tuple[Function, ...] = (
    get_job,
    read_jobs,
    look_at_jobs,
    get_errors,
    locate_jobs,
    list_jobs,
    list_newest_jobs,
    list_queues,
    list_tasks,
    list_locks,
    cancel_todo,
    delete_todo,
    request_abort,
    retry_jobs_by_hand,
    retry_unless_twin_waits,
    list_stalled,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
