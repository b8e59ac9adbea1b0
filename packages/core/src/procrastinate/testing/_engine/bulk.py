"""The statements about many jobs."""

from __future__ import annotations

from collections.abc import Iterable

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.storage.jobs import ENDED_BADLY
from procrastinate.testing._engine.jobs import matches
from procrastinate.testing._engine.values import JobRow, interval, status
from procrastinate.testing._engine.view import Function, Params, View


def grip_any(view: View, p: Params) -> Rows:
    return _grip(view, p, view.jobs())


def grip_ended(view: View, p: Params) -> Rows:
    wanted = {status(each) for each in p["statuses"]} & set(ENDED_BADLY)
    return _grip(view, p, [job for job in view.jobs() if job.status in wanted])


def grip_ids(view: View, p: Params) -> Rows:
    return _grip(view, p, _of_ids(view, p))


def grip_ids_when_free(view: View, p: Params) -> Rows:
    return _grip(view, p, _of_ids(view, p), wait=True)


def _of_ids(view: View, p: Params) -> list[JobRow]:
    return [job for job in view.jobs() if job.id in p["ids"]]


def _grip(view: View, p: Params, jobs: Iterable[JobRow], *, wait: bool = False) -> Rows:
    walk = [job for job in jobs if job.id > p["after_id"]][: p["scanned"]]
    matching = [job for job in walk if matches(job, p)][: p["limit"]]
    gripped = matching if wait else view.unlocked(matching)
    for job in gripped:
        view.write_job(job)
    last_id = _last_id(matching, p["limit"]) or _last_id(walk, p["scanned"])
    return [(last_id, job.id, int(job in gripped)) for job in matching] or [(last_id, None, 0)]


def _last_id(jobs: list[JobRow], limit: int) -> int | None:
    """The last job's id, if these are as many as there may be."""
    return jobs[-1].id if len(jobs) == limit else None


def delete_old_jobs(view: View, p: Params) -> Rows:
    ages = zip(p["statuses"], p["ages_us"], strict=True)
    since = {status(name): view.now - interval(age_us) for name, age_us in ages}
    walk = [job for job in view.jobs() if job.id > p["after_id"]][: p["scanned"]]
    old = [
        job
        for job in view.unlocked(walk)
        if job.status not in (Status.TODO, Status.DOING)
        and job.status in since
        and (p["queue_name"] is None or p["queue_name"] == job.queue_name)
        and job.finished_at is not None
        and job.finished_at < since[job.status]
    ]
    for job in old:
        view.delete_job(job)
    goes_on = len(walk) == p["scanned"] and walk[-1].deferred_at < max(since.values())
    return [(len(old), walk[-1].id if goes_on else None)]


_FUNCTIONS: tuple[Function, ...] = (
    grip_any,
    grip_ended,
    grip_ids,
    grip_ids_when_free,
    delete_old_jobs,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
