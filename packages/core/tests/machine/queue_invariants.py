"""What must hold whatever happens: of every state, and of every step from one to the next.

Written from what is promised, without a look at the statements: they are what is being held
against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from queue_sides import State

from procrastinate.model.job import Job, Status, may_become
from procrastinate.testing.values import JobRow


def check_state(state: State, *, stale_locks: Collection[str] = ()) -> None:
    """Check what is promised of the tables. ``stale_locks`` were left by damage, until mended."""
    for job in state.jobs.values():
        _check_job(job)
    _check_queueing_locks(state)
    _check_locks(state, stale_locks)
    _check_lines(state)


def _check_job(job: JobRow) -> None:
    assert not job.status.is_final or job.finished_at, f"ended, and nobody knows when: {job}"
    assert job.status is Status.TODO or job.hold is None, f"held, and does not wait: {job}"
    assert (job.status is Status.TODO) <= (job.worker_id is None), f"waits at a worker: {job}"
    assert (job.status is Status.DOING) <= (job.worker_id is not None), f"nobody runs it: {job}"
    assert (job.status is Status.DOING) <= (job.started_at is not None), f"not started: {job}"
    assert job.hold != "schedule" or job.scheduled_at, f"due at no time: {job}"
    assert job.hold != "lock" or job.lock, f"parked without a lock: {job}"
    assert job.attempts >= 0, job


def _check_queueing_locks(state: State) -> None:
    taken = Counter(job.queueing_lock for job in state.waiting() if job.queueing_lock)
    assert not [lock for lock, count in taken.items() if count > 1], f"waiting twice: {taken}"


def _check_locks(state: State, stale_locks: Collection[str]) -> None:
    """Every running job with a lock holds it, so no two do; and nobody else holds any."""
    running = {(job.lock, job.id) for job in state.running() if job.lock}
    held = set(state.locks.items())
    assert running <= held, f"run without their lock: {running - held}"
    assert {lock for lock, _ in held - running} <= set(stale_locks), f"stale: {held - running}"


def _check_lines(state: State) -> None:
    """Nobody waits behind a lock that nobody holds, unless a job of the same queue goes first."""
    for lock, queue in {(job.lock, job.queue_name) for job in state.waiting() if job.lock}:
        if lock not in state.locks:
            line = [
                job
                for job in state.waiting()
                if (job.lock, job.queue_name) == (lock, queue) and job.hold != "schedule"
            ]
            first = in_claim_order(line)[:1]
            assert [job for job in first if job.hold == "lock"] == [], "parked for nobody"


def check_step(
    before: State,
    after: State,
    *,
    deletable: Collection[int] = (),
    unstarted: Collection[int] = (),
) -> None:
    """Check what one statement or flow did to the jobs.

    Only those in ``deletable`` may be gone, and only those in ``unstarted`` have an attempt less.
    """
    lost = before.jobs.keys() - after.jobs.keys() - set(deletable)
    assert not lost, f"jobs are lost: {lost}"
    for job_id in before.jobs.keys() & after.jobs.keys():
        _check_change(before.jobs[job_id], after.jobs[job_id], handed_back=job_id in unstarted)


def _check_change(before: JobRow, after: JobRow, *, handed_back: bool) -> None:
    change = f"{before} became {after}"
    if after.status is not before.status:
        assert may_become(before.status, after.status), f"no legal transition: {change}"
    elif before.status.is_final:
        assert after == before, f"changed after its end: {change}"
    counted_back = before.attempts - after.attempts
    assert counted_back <= 0 or (handed_back and counted_back == 1), f"attempts lost: {change}"
    begun = (before.status, after.status) == (Status.TODO, Status.DOING)
    assert after.attempts - before.attempts <= begun, f"attempts out of nothing: {change}"
    assert len(after.errors or ()) >= len(before.errors or ()), f"errors lost: {change}"


def in_claim_order(jobs: Iterable[JobRow]) -> list[JobRow]:
    return sorted(jobs, key=lambda job: (-job.priority, job.id))


def check_claim(before: State, claimed: Sequence[Job], queues: Collection[str], limit: int) -> None:
    """Check that a claim took what is ready, in order, and no more than it was asked for."""
    rows = [before.jobs[job.id] for job in claimed]
    assert rows == in_claim_order(rows), "claimed out of order"
    assert len(rows) <= limit, "more than there is room for"
    assert {job.queue_name for job in rows} <= set(queues), "of another queue"
    assert {(job.status, job.hold) for job in rows} <= {(Status.TODO, None)}, "not ready"
    assert not {job.lock for job in rows} & before.locks.keys(), "its lock was held"


def claimable(state: State, queues: Collection[str]) -> list[int]:
    """Return the ids of the jobs that could all be claimed now for these queues, in order.

    They are those without a lock, and of each line whose lock is free the first, as far as these
    queues go.
    """
    ready = [job for job in state.waiting() if job.hold is None and job.queue_name in queues]
    first_of_lines: dict[str, int] = {}
    due = [job for job in state.waiting() if job.hold != "schedule" and job.queue_name in queues]
    for job in in_claim_order(due):
        if job.lock is not None and job.lock not in state.locks:
            first_of_lines.setdefault(job.lock, job.id)
    return [
        job.id
        for job in in_claim_order(ready)
        if job.lock is None or first_of_lines.get(job.lock) == job.id
    ]
