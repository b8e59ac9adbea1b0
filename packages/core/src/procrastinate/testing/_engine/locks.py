"""The lines before locks: see ``sql/locks.sql``.

What a claim does at the gates, in the order of its statement; then releasing, passing on, mending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.model.queues import are_pauses_of
from procrastinate.testing._engine.defer import in_claim_order
from procrastinate.testing._engine.values import JobRow
from procrastinate.testing._engine.view import Function, Params, View


def is_ready(job: JobRow) -> bool:
    """Whether nothing holds a waiting job."""
    return job.hold is None


def heads(view: View, p: Params) -> dict[str, int]:
    """Return the id of the first job in each free lock's line, as far as the served queues go."""
    first = first_of_lines(view, p["served"], p)
    return {lock: job.id for lock, job in first.items() if not view.sees_holder(lock)}


def is_unpaused(job: JobRow, p: Params) -> bool:
    """Whether the queue of a job is none of the paused ones that a statement is told."""
    return not are_pauses_of(p.get("paused", ()), job.queue_name)


def first_of_lines(view: View, served: Sequence[str] | None, p: Params) -> dict[str, JobRow]:
    """Return the first job in the line of each lock, as far as the served queues go.

    A job of a paused queue is none.
    """
    first: dict[str, JobRow] = {}
    waiting = view.active_jobs(Status.TODO)
    for job in in_claim_order(job for job in waiting if job.hold != "schedule"):
        is_served = served is None or job.queue_name in served
        if job.lock is not None and is_served and is_unpaused(job, p):
            first.setdefault(job.lock, job)
    return first


def heads_elsewhere(
    view: View, p: Params, chosen: list[JobRow], heads: Mapping[str, int]
) -> list[JobRow]:
    """Return the ready first jobs of the chosen jobs' lines that the scan did not come to."""
    scanned = {job.id for job in chosen}
    locks = {job.lock for job in chosen if job.lock is not None}
    wanted = {heads.get(lock) for lock in locks} - scanned
    ready = filter(is_ready, view.active_jobs(Status.TODO))
    return [job for job in ready if job.id in wanted and job.queue_name in p["queue_names"]]


def admit(view: View, wanted: list[JobRow]) -> set[int]:
    """Take the locks that are free; return the ids of the jobs that got theirs."""
    acquired: set[int] = set()
    for job in sorted(wanted, key=lambda job: str(job.lock)):
        if job.lock is not None and view.holder(job.lock) is None:
            view.hold_lock(job.lock, job.id)
            acquired.add(job.id)
    return acquired


def blocked(view: View, chosen: list[JobRow], acquired: set[int]) -> list[JobRow]:
    """Return the jobs to park; behind a lock that is being given up, no job waits any more."""
    locks = {job.lock for job in chosen if job.lock is not None}
    taken = {lock for lock in locks if view.is_held_firmly(lock)}
    return [job for job in chosen if job.lock in taken and job.id not in acquired]


def park(view: View, jobs: Iterable[JobRow]) -> None:
    """Put jobs aside until they are passed on."""
    for job in jobs:
        view.write_job(replace(job, hold="lock"))


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
    first = _first_of_lines(parked)
    for job in first:
        view.write_job(replace(job, hold=None))
    queues = sorted({job.queue_name for job in first})
    return [(queue, view.notify("procrastinate_jobs", queue)) for queue in queues]


def _first_of_lines(jobs: Iterable[JobRow]) -> list[JobRow]:
    """Return the best of these jobs for each lock and queue."""
    first: dict[tuple[str | None, str], JobRow] = {}
    for job in in_claim_order(jobs):
        first.setdefault((job.lock, job.queue_name), job)
    return list(first.values())


def parked_partitions(view: View, p: Params) -> Rows:
    return [(0,)] if any(job.hold == "lock" for job in view.active_jobs(Status.TODO)) else []


def idle_lines(view: View, p: Params) -> Rows:
    waiting = [job for job in view.active_jobs(Status.TODO) if job.hold != "schedule"]
    parked = {job.lock for job in _first_of_lines(waiting) if job.lock and job.hold == "lock"}
    return [(lock,) for lock in sorted(parked - _running_locks(view))]


def drop_stale_locks(view: View, p: Params) -> Rows:
    stale = (view.held_locks().keys() & set(p["locks"])) - _running_locks(view)
    for lock in stale:
        view.release_lock(lock)
    return []


def _running_locks(view: View) -> set[str]:
    running = {job.id for job in view.active_jobs(Status.DOING)}
    return {lock for lock, job_id in view.held_locks().items() if job_id in running}


_FUNCTIONS: tuple[Function, ...] = (
    grip_locks,
    release_locks,
    pass_on_locks,
    parked_partitions,
    idle_lines,
    drop_stale_locks,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
