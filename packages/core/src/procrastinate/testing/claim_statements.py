"""The statements by which workers get jobs, in Python: see `queue_statements`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.testing.queue_statements import Function, Params, in_claim_order
from procrastinate.testing.values import JobRow, claimed_columns
from procrastinate.testing.view import View

CLAIMED_COLUMNS = 12  # that a claim returns of a job


def ready_queues(view: View, p: Params) -> Rows:
    ready = {job.queue_name for job in view.active_jobs(Status.TODO) if job.hold is None}
    return [(name,) for name in sorted(ready)]


def claim_unlocked_full(view: View, p: Params) -> Rows:
    return _claim_unlocked(view, p, _scan_full)


def claim_unlocked_marked(view: View, p: Params) -> Rows:
    return _claim_unlocked(view, p, _scan_marked)


def claim_unlocked_full_of_one(view: View, p: Params) -> Rows:
    return _claim_unlocked(view, _of_several(p), _scan_full)


def claim_unlocked_marked_of_one(view: View, p: Params) -> Rows:
    return _claim_unlocked(view, _of_several(p), _scan_marked)


def _of_several(p: Params) -> Params:
    """The parameters for one queue as those of the statement for several."""
    return {
        "queue_names": [p["queue_name"]],
        "mark_priorities": [p.get("mark_priority")],
        "mark_ids": [p.get("mark_id")],
        "worker_id": p["worker_id"],
        "limit": p["limit"],
    }


def any_ready(view: View, p: Params) -> Rows:
    scanned = (job for job in view.active_jobs(Status.TODO) if job.queue_name in p["queue_names"])
    return [(int(any(map(_is_ready, scanned))),)]


def claim_full(view: View, p: Params) -> Rows:
    return _claim(view, p, _scan_full)


def claim_marked(view: View, p: Params) -> Rows:
    return _claim(view, p, _scan_marked)


Scan = Callable[[list[JobRow], Params], Iterator[list[JobRow]]]


def _scan_full(ready: list[JobRow], p: Params) -> Iterator[list[JobRow]]:
    for queue in p["queue_names"]:
        yield [job for job in ready if job.queue_name == queue]


def _scan_marked(ready: list[JobRow], p: Params) -> Iterator[list[JobRow]]:
    for mark in zip(p["queue_names"], p["mark_priorities"], p["mark_ids"], strict=True):
        yield [
            job for job in ready if (job.queue_name, job.priority) == mark[:2] and job.id > mark[2]
        ]


def _candidates(view: View, p: Params, scan: Scan) -> list[JobRow]:
    ready = view.unlocked(filter(_is_ready, view.active_jobs(Status.TODO)))
    scanned = p.get("scanned", p["limit"])
    found = [job for jobs in scan(ready, p) for job in in_claim_order(jobs)[:scanned]]
    return in_claim_order(found)[:scanned]


def _claim_unlocked(view: View, p: Params, scan: Scan) -> Rows:
    candidates = _candidates(view, p, scan)
    free = [job for job in candidates if job.lock is None]
    claimed = [view.write_job(_begun(view, job, p["worker_id"])) for job in free]
    return _answer(view, claimed, len(candidates) - len(claimed), 0)


def _claim(view: View, p: Params, scan: Scan) -> Rows:
    heads = _heads(view, p["served"])
    candidates = _candidates(view, p, scan)
    elsewhere = _heads_elsewhere(view, p, candidates, heads)
    startable = [job for job in candidates if job.lock is None or job.id in heads.values()]
    wanted = in_claim_order([*startable, *elsewhere])[: p["limit"]]
    acquired = _take_locks(view, wanted)
    parked = _behind_locks(view, candidates, acquired)
    for job in parked:
        view.write_job(replace(job, hold="lock"))
    claimed = [
        view.write_job(_begun(view, job, p["worker_id"]))
        for job in wanted
        if job.lock is None or job.id in acquired
    ]
    undecided = len(candidates) + len(elsewhere) - len(parked) - len(claimed)
    return _answer(view, claimed, len(parked), 0 if len(claimed) == p["limit"] else undecided)


def _answer(view: View, claimed: list[JobRow], aside: int, undecided: int) -> Rows:
    about = (*[None] * CLAIMED_COLUMNS, aside, undecided, view.now.timestamp())
    jobs = [(*claimed_columns(job), None, None, None) for job in claimed]
    return [about, *jobs]


def _is_ready(job: JobRow) -> bool:
    return job.hold is None


def _heads(view: View, served: Sequence[str] | None) -> dict[str, int]:
    """Return the id of the first job in each free lock's line, as far as the served queues go."""
    heads: dict[str, int] = {}
    waiting = view.active_jobs(Status.TODO)
    for job in in_claim_order(job for job in waiting if job.hold != "schedule"):
        if job.lock is not None and (served is None or job.queue_name in served):
            heads.setdefault(job.lock, job.id)
    return {lock: job_id for lock, job_id in heads.items() if not view.sees_holder(lock)}


def _heads_elsewhere(
    view: View, p: Params, candidates: list[JobRow], heads: Mapping[str, int]
) -> list[JobRow]:
    """Return the ready first jobs of the candidates' lines that the scan did not come to."""
    scanned = {job.id for job in candidates}
    locks = {job.lock for job in candidates if job.lock is not None}
    wanted = {heads.get(lock) for lock in locks} - scanned
    ready = filter(_is_ready, view.active_jobs(Status.TODO))
    return view.unlocked(
        job for job in ready if job.id in wanted and job.queue_name in p["queue_names"]
    )


def _take_locks(view: View, wanted: list[JobRow]) -> set[int]:
    """Take the locks that are free; return the ids of the jobs that got theirs."""
    acquired: set[int] = set()
    for job in sorted(wanted, key=lambda job: str(job.lock)):
        if job.lock is not None and view.holder(job.lock) is None:
            view.hold_lock(job.lock, job.id)
            acquired.add(job.id)
    return acquired


def _behind_locks(view: View, candidates: list[JobRow], acquired: set[int]) -> list[JobRow]:
    """Return the jobs to park; behind a lock that is being given up, nobody is any more."""
    locks = {job.lock for job in candidates if job.lock is not None}
    taken = {lock for lock in locks if view.is_held_firmly(lock)}
    return [job for job in candidates if job.lock in taken and job.id not in acquired]


def _begun(view: View, job: JobRow, worker_id: int) -> JobRow:
    return replace(
        job,
        status=Status.DOING,
        worker_id=worker_id,
        attempts=job.attempts + 1,
        lease=job.lease + 1,
        started_at=view.now,
        finished_at=None,
    )


def promote_due(view: View, p: Params) -> Rows:
    scheduled = [job for job in view.active_jobs(Status.TODO) if job.hold == "schedule"]
    due = [job for job in scheduled if _time_of(job) <= view.now]
    promoted = sorted(view.unlocked(due), key=_time_of)[: p["limit"]]
    for job in promoted:
        view.write_job(replace(job, hold=None))
    queues = {job.queue_name for job in promoted}
    view.wake(queues)
    later = [_time_of(job) - view.now for job in scheduled if _time_of(job) > view.now]
    wait = min(later) // timedelta(microseconds=1) if later else None
    return [(len(promoted), wait, len(queues))]


def _time_of(job: JobRow) -> datetime:
    assert job.scheduled_at is not None
    return job.scheduled_at


_FUNCTIONS: tuple[Function, ...] = (
    ready_queues,
    claim_unlocked_full,
    claim_unlocked_marked,
    claim_unlocked_full_of_one,
    claim_unlocked_marked_of_one,
    any_ready,
    claim_full,
    claim_marked,
    promote_due,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
