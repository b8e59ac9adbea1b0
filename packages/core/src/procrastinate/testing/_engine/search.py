"""The statements that search, count and explain with bounded effort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from procrastinate.connector import Row, Rows
from procrastinate.model.job import Status
from procrastinate.testing._engine.defer import in_claim_order, rank
from procrastinate.testing._engine.jobs import matches
from procrastinate.testing._engine.values import JobRow, job_columns, job_moment, last_error, status
from procrastinate.testing._engine.view import Function, Params, View

_NO_JOB = (None,) * len(job_columns(JobRow(0, "", "", "{}", datetime.min)))


def _page(
    view: View,
    p: Params,
    jobs: Iterable[JobRow],
    moment: Callable[[JobRow], datetime | None] = lambda job: None,
) -> Rows:
    """Return what a walk through these jobs gives: see ``page_of``."""
    every = list(jobs)
    walk = every[: p["scanned"]]
    found = [(n, job) for n, job in enumerate(walk, 1) if matches(job, p)][: p["limit"]]
    n = found[-1][0] if found and len(found) == p["limit"] else len(walk)
    at_end = int(n < p["scanned"] and n == len(walk))
    place: Row = (None,) * 5
    if n:
        last = walk[n - 1]
        place = (last.queue_name, last.priority, last.lock, moment(last), last.id)
    head = (n, at_end, *place, len(found))
    return [(*head, *job_columns(job)) for _, job in found[: p["shown"]]] or [(*head, *_NO_JOB)]


def search_newest(view: View, p: Params) -> Rows:
    return _page(view, p, _newest(view, p))


def search_newest_ended(view: View, p: Params) -> Rows:
    wanted = {status(each) for each in p["statuses"]}
    return _page(view, p, [job for job in _newest(view, p) if job.status in wanted])


def search_ids(view: View, p: Params) -> Rows:
    return _page(view, p, [job for job in _newest(view, p) if job.id in set(p["ids"])])


def _newest(view: View, p: Params) -> list[JobRow]:
    return [job for job in reversed(view.jobs()) if job.id < p["before_id"]]


def search_running(view: View, p: Params) -> Rows:
    return _in_time(view, p, view.active_jobs(Status.DOING), job_moment)


def search_scheduled(view: View, p: Params) -> Rows:
    return _in_time(view, p, _waiting(view, "schedule"), _due)


def _due(job: JobRow) -> datetime:
    assert job.scheduled_at is not None
    return job.scheduled_at


def _in_time(
    view: View, p: Params, jobs: Iterable[JobRow], moment: Callable[[JobRow], datetime]
) -> Rows:
    after = (p["after"], p["after_id"])
    keys = sorted((moment(job), job.id, job) for job in jobs if (moment(job), job.id) > after)
    return _page(view, p, [job for *_, job in keys], moment)


def search_ready(view: View, p: Params) -> Rows:
    after = (p["after_queue"], -p["after_priority"], p["after_id"])
    only = p["queue_name"]
    found = sorted(
        (job.queue_name, *rank(job), job)
        for job in _waiting(view, None)
        if only is None or job.queue_name == only
    )
    return _page(view, p, [job for *key, job in found if tuple(key) > after])


def search_behind_locks(view: View, p: Params) -> Rows:
    after = (p["after_lock"], p["after_queue"], -p["after_priority"], p["after_id"])
    only = p["lock"]
    found = sorted(
        (job.lock or "", job.queue_name, *rank(job), job)
        for job in _waiting(view, "lock")
        if only is None or job.lock == only
    )
    return _page(view, p, [job for *key, job in found if tuple(key) > after])


def _waiting(view: View, hold: str | None) -> list[JobRow]:
    return [job for job in view.active_jobs(Status.TODO) if job.hold == hold]


def place_of_job(view: View, p: Params) -> Rows:
    job = view.job(p["id"])
    if job is None:
        return []
    here = (-p["priority"], p["id"])
    before = [
        other
        for other in view.active_jobs(Status.TODO)
        if other.queue_name == p["queue_name"] and rank(other) < here
    ]
    ready = [other for other in before if other.hold is None]
    line = [other for other in before if other.hold == "lock" and other.lock == p["lock"]]
    rivals = [
        other
        for other in _waiting(view, None)
        if p["lock"] is not None and other.lock == p["lock"] and other.id != job.id
    ]
    first = min(rivals, key=lambda other: (other.queue_name, *rank(other)), default=None)
    return [
        (
            view.now,
            int(job.abort_requested),
            job.unknown_since,
            min(len(ready), p["counted"]),
            view.held_locks().get(p["lock"]),
            first and first.id,
            min(len(line), p["counted"]),
        )
    ]


def list_failures(view: View, p: Params) -> Rows:
    failed = [job for job in reversed(view.jobs()) if job.status is Status.FAILED][: p["scanned"]]
    groups: dict[tuple[str, str, str], list[JobRow]] = {}
    for job in failed:
        if matches(job, p):
            alike = _message(job).translate(_ZEROS)
            key = (job.task_name, last_error(job)[0] or "", alike)
            groups.setdefault(key, []).append(job)
    rows: list[Row] = [
        (len(failed), task, kind, min(map(_message, jobs)), len(jobs), *_ends(jobs), jobs[0].id)
        for (task, kind, _), jobs in groups.items()
    ]
    return rows or [(len(failed), *(None,) * 7)]


_ZEROS = str.maketrans("123456789", "000000000")


def _message(job: JobRow) -> str:
    return (last_error(job)[1] or "")[:200]


def _ends(jobs: Sequence[JobRow]) -> tuple[datetime | None, datetime | None]:
    ends = [job.finished_at for job in jobs if job.finished_at is not None]
    return min(ends, default=None), max(ends, default=None)


def glance_at_queues(view: View, p: Params) -> Rows:
    ready = _waiting(view, None)
    rows: list[Row] = [
        ("ready", name, *_ready_of(name, ready, p["share"])) for name in p["queue_names"]
    ]
    sorts: dict[str, list[JobRow]] = {
        "scheduled": sorted(_waiting(view, "schedule"), key=_due),
        "parked": _waiting(view, "lock"),
        "running": view.active_jobs(Status.DOING),
        "failed": [job for job in reversed(view.jobs()) if job.status is Status.FAILED],
    }
    for sort, jobs in sorts.items():
        counted = Counter(job.queue_name for job in jobs[: p["each"]])
        rows += [(sort, name, count, None) for name, count in sorted(counted.items())]
        rows.append((sort, None, counted.total(), None))
    return sorted(rows, key=lambda row: row[0])


def _ready_of(name: str, ready: Iterable[JobRow], share: int) -> tuple[int, datetime]:
    jobs = in_claim_order(job for job in ready if job.queue_name == name)
    last = min((job for job in jobs if job.priority == jobs[-1].priority), key=lambda job: job.id)
    counted = jobs[:share]
    return len(counted), min(_ready_since(job) for job in (*counted, last))


def _ready_since(job: JobRow) -> datetime:
    return max(job.deferred_at, job.scheduled_at or job.deferred_at)


_FUNCTIONS: tuple[Function, ...] = (
    search_newest,
    search_newest_ended,
    search_ids,
    search_running,
    search_scheduled,
    search_ready,
    search_behind_locks,
    place_of_job,
    list_failures,
    glance_at_queues,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
