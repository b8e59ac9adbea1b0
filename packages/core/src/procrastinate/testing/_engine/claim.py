"""The statements by which workers get jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.testing._engine import locks
from procrastinate.testing._engine.defer import in_claim_order
from procrastinate.testing._engine.locks import is_ready, is_unpaused
from procrastinate.testing._engine.values import JobRow, claimed_columns
from procrastinate.testing._engine.view import Function, Params, View

CLAIMED_COLUMNS = 13  # that a claim returns of a job


def ready_queues(view: View, p: Params) -> Rows:
    ready = {job.queue_name for job in view.active_jobs(Status.TODO) if job.hold is None}
    return [(name,) for name in sorted(ready)]


def any_ready(view: View, p: Params) -> Rows:
    scanned = (job for job in view.active_jobs(Status.TODO) if job.queue_name in p["queue_names"])
    return [(int(any(is_ready(job) and is_known(job, p) for job in scanned)),)]


def is_known(job: JobRow, p: Params) -> bool:
    """Whether the worker knows the task of a job."""
    return job.task_name not in p.get("unknown_names", ())


Scan = Callable[[JobRow, Params], bool]


def _full(job: JobRow, p: Params) -> bool:
    return job.queue_name in _lows(p) and job.priority > p["above"] and is_known(job, p)


def _level(job: JobRow, p: Params) -> bool:
    low = _lows(p).get(job.queue_name)
    is_above = low is not None and job.priority == p["priority"] and job.id > low
    return is_above and is_known(job, p)


def _lows(p: Params) -> dict[str, int]:
    """The queues of a claim and their marks, which a full scan does not look at."""
    if "queue_name" in p:
        return {p["queue_name"]: p.get("low", 0)}
    return dict(zip(p["queue_names"], p["lows"], strict=True))


def _ready(view: View, p: Params, scan: Scan) -> list[JobRow]:
    """All that a scan is about, in order."""
    ready = filter(is_ready, view.active_jobs(Status.TODO))
    return in_claim_order(job for job in ready if scan(job, p))


def _chosen(view: View, p: Params, scan: Scan) -> list[JobRow]:
    """The first of them, also those that another transaction has in hand."""
    ready = _ready(view, p, scan)
    if "each" in p:
        ready = list(_first_of_each(ready, p["each"]))
    return ready[: p["scanned"]]


def _first_of_each(jobs: Iterable[JobRow], each: int) -> Iterator[JobRow]:
    seen: Counter[str] = Counter()
    for job in jobs:
        seen[job.queue_name] += 1
        if seen[job.queue_name] <= each:
            yield job


def _claim_unlocked_of_one(view: View, p: Params, scan: Scan) -> Rows:
    candidates = view.unlocked(_ready(view, p, scan))[: p["limit"]]
    claimed = _begin(view, filter(_has_no_lock, candidates), p)
    return _answer(view, claimed, candidates)


def _claim_unlocked_of_one_wary(view: View, p: Params, scan: Scan) -> Rows:
    ready = _ready(view, p, scan)
    return _claim_if_unlocked(view, p, ready[: p["limit"]], ready)


def _claim_unlocked(view: View, p: Params, scan: Scan) -> Rows:
    chosen = _chosen(view, p, scan)
    return _claim_if_unlocked(view, p, chosen, chosen)


def _claim_if_unlocked(view: View, p: Params, met: list[JobRow], ready: list[JobRow]) -> Rows:
    """Claim the first jobs, unless one with a lock is among as many as are wanted."""
    wanted: list[JobRow] = []
    if all(map(_has_no_lock, met[: p["limit"]])):
        wanted = view.unlocked(filter(_has_no_lock, ready))[: p["limit"]]
    return _answer(view, _begin(view, wanted, p), met)


def _has_no_lock(job: JobRow) -> bool:
    return job.lock is None


def _claim(view: View, p: Params, scan: Scan) -> Rows:
    heads = locks.heads(view, p)
    chosen = _chosen(view, p, scan)
    elsewhere = locks.heads_elsewhere(view, p, chosen, heads)
    return _claim_with_locks(view, p, heads, chosen, elsewhere)


def _claim_of_one(view: View, p: Params, scan: Scan) -> Rows:
    heads = locks.heads(view, p)
    chosen = view.unlocked(_ready(view, p, scan))[: p["limit"]]
    elsewhere = view.unlocked(
        job for job in locks.heads_elsewhere(view, p, chosen, heads) if is_known(job, p)
    )
    return _claim_with_locks(view, p, heads, chosen, elsewhere)


def _claim_with_locks(
    view: View,
    p: Params,
    heads: Mapping[str, int],
    chosen: list[JobRow],
    elsewhere: list[JobRow],
) -> Rows:
    startable = [job for job in chosen if job.lock is None or job.id in heads.values()]
    known = (job for job in in_claim_order([*startable, *elsewhere]) if is_known(job, p))
    wanted = view.unlocked(known)[: p["limit"]]
    acquired = locks.admit(view, wanted)
    parked = view.unlocked(locks.blocked(view, chosen, acquired))
    locks.park(view, parked)
    claimed = _begin(view, (job for job in wanted if job.lock is None or job.id in acquired), p)
    return _answer(view, claimed, [*chosen, *elsewhere], aside=len(parked))


def _begin(view: View, jobs: Iterable[JobRow], p: Params) -> list[JobRow]:
    return [view.write_job(begun(view, job, p["worker_id"])) for job in jobs]


def _answer(
    view: View, claimed: list[JobRow], met: list[JobRow], *, aside: int | None = None
) -> Rows:
    if aside is None:
        aside = sum(job.lock is not None for job in met)
    about = (*[None] * CLAIMED_COLUMNS, aside, len(met), round(view.now.timestamp() * 1e6))
    jobs = [(*claimed_columns(job), None, None, None) for job in claimed]
    return [about, *jobs]


def begun(view: View, job: JobRow, worker_id: int) -> JobRow:
    """Return a job as a worker begins it."""
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


def sweep(view: View, p: Params) -> Rows:
    waiting = view.active_jobs(Status.TODO)
    ready = [job for job in waiting if job.hold is None and is_unpaused(job, p)]
    served = [job for job in ready if _is_served(job, p)]
    waits = [_time_of(job) - view.now for job in waiting if job.hold == "schedule"]
    if not ready and not waits:
        return []
    due = min(waits) // timedelta(microseconds=1) if waits else None
    queues = {job.queue_name for job in served}
    return [
        (0, len(served), len(ready) - len(served), due, min(queues) if len(queues) == 1 else None)
    ]


def _is_served(job: JobRow, p: Params) -> bool:
    queues = p["queue_names"]
    return (queues is None or job.queue_name in queues) and is_known(job, p)


def _time_of(job: JobRow) -> datetime:
    assert job.scheduled_at is not None
    return job.scheduled_at


def _with_scan(claim: Callable[[View, Params, Scan], Rows], scan: Scan) -> Function:
    return lambda view, p: claim(view, p, scan)


def _make_slots(view: View, p: Params) -> Rows:
    return []  # a claim makes them itself


_FUNCTIONS: tuple[Function, ...] = (ready_queues, any_ready, promote_due, sweep)
_SCANS: dict[str, Scan] = {"full": _full, "level": _level}
#: PostgreSQL has a text for each number of queues, because each is best planned in its own way.
_CLAIMS: dict[str, Callable[[View, Params, Scan], Rows]] = {
    "claim_unlocked_{}_of_one": _claim_unlocked_of_one,
    "claim_unlocked_{}_of_one_wary": _claim_unlocked_of_one_wary,
    "claim_unlocked_{}_of_several": _claim_unlocked,
    "claim_unlocked_{}_of_many": _claim_unlocked,
    "claim_{}_of_one": _claim_of_one,
    "claim_{}_of_several": _claim,
    "claim_{}_of_many": _claim,
}

STATEMENTS: dict[str, Function] = {
    **{function.__name__: function for function in _FUNCTIONS},
    **dict.fromkeys(("make_slots_full", "make_slots_level"), _make_slots),
    **{
        name.format(kind): _with_scan(claim, scan)
        for name, claim in _CLAIMS.items()
        for kind, scan in _SCANS.items()
    },
}
