"""What must hold whatever happens: of every state, and of every step from one to the next.

Written from what is promised, without a look at the statements: they are what is being held
against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from queue_sides import TOLERANCE, Key, State

from procrastinate.model.job import Job, Status, may_become
from procrastinate.model.queues import NO_PAUSES, Pauses
from procrastinate.storage import periodic
from procrastinate.storage.jobs import JobFilter
from procrastinate.testing._engine.values import JobRow, PeriodicRow


def check_state(state: State, *, stale_locks: Collection[str] = ()) -> None:
    """Check what is promised of the tables. ``stale_locks`` were left by damage, until mended."""
    for job in state.jobs.values():
        _check_job(job)
    _check_queueing_locks(state)
    _check_locks(state, stale_locks)
    _check_lines(state)
    for schedule in state.periodics.values():
        _check_schedule(schedule)


def _check_job(job: JobRow) -> None:
    assert not job.status.is_final or job.finished_at, f"ended, and nobody knows when: {job}"
    assert job.status is Status.TODO or job.hold is None, f"held, and does not wait: {job}"
    assert (job.status is Status.TODO) <= (job.worker_id is None), f"waits at a worker: {job}"
    assert (job.status is Status.DOING) <= (job.worker_id is not None), f"nobody runs it: {job}"
    assert (job.status is Status.DOING) <= (job.started_at is not None), f"not started: {job}"
    assert job.hold != "schedule" or job.scheduled_at, f"due at no time: {job}"
    assert job.hold != "lock" or job.lock, f"parked without a lock: {job}"
    assert 0 <= job.attempts <= job.lease, f"attempts without a claim: {job}"
    assert job.status is not Status.TODO or not job.abort_requested, f"to be aborted: {job}"
    has_succeeded = job.status is Status.SUCCEEDED
    assert has_succeeded or (job.result, job.result_error) == (None, None), f"a result of: {job}"


def _check_schedule(row: PeriodicRow) -> None:
    assert (row.last_tick is None) == (row.job_id is None), f"a tick without its job: {row}"
    assert row.last_tick is None or row.last_tick <= row.done_until, f"not settled: {row}"


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
    """Check what one statement or flow did to the jobs and schedules.

    Only jobs in ``deletable`` may be gone, and only those in ``unstarted`` have an attempt less.
    """
    lost = before.jobs.keys() - after.jobs.keys() - set(deletable)
    assert not lost, f"jobs are lost: {lost}"
    for job_id in before.jobs.keys() & after.jobs.keys():
        _check_change(before.jobs[job_id], after.jobs[job_id], handed_back=job_id in unstarted)
    for key in before.periodics:
        assert key in after.periodics, f"a schedule is lost: {key}"
        _check_progress(before.periodics[key], after.periodics[key])


def _check_change(before: JobRow, after: JobRow, *, handed_back: bool) -> None:
    change = f"{before} became {after}"
    if after.status is not before.status:
        assert may_become(before.status, after.status), f"no legal transition: {change}"
    elif before.status.is_final:
        assert after == before, f"changed after its end: {change}"
    counted_back = before.attempts - after.attempts
    by_hand = before.status.is_final and after.status is Status.TODO and after.attempts == 0
    assert counted_back <= 0 or by_hand or (handed_back and counted_back == 1), (
        f"attempts lost: {change}"
    )
    begun = (before.status, after.status) == (Status.TODO, Status.DOING)
    assert after.attempts - before.attempts <= begun, f"attempts out of nothing: {change}"
    assert after.lease - before.lease == begun, f"not one lease for each claim: {change}"
    assert len(after.errors or ()) >= len(before.errors or ()), f"errors lost: {change}"
    _check_change_by_hand(before, after)


def _check_change_by_hand(before: JobRow, after: JobRow) -> None:
    change = f"{before} became {after}"
    if (before.status, after.status) == (Status.DOING, Status.TODO):
        assert not before.abort_requested, f"begins again, and was to be aborted: {change}"
    if before.abort_requested and before.status is Status.DOING and after.status.is_final:
        ends = (Status.SUCCEEDED, Status.ABORTED)
        assert after.status in ends, f"was to be aborted: {change}"
    again = before.status.is_final and after.status is Status.TODO
    assert not again or after.attempts == 0, f"attempts are counted on: {change}"
    assert again or after.abort_requested >= before.abort_requested, f"may go on: {change}"
    assert not again or after.crashes == 0, f"crashes are counted on: {change}"


def check_woken(
    before: State, after: State, awaited: Collection[int], woken: Sequence[int]
) -> None:
    """Check that who waits for jobs was told of each that ended or went, once, and of no other."""
    over = [
        job_id
        for job_id in sorted(awaited)
        if job_id in before.jobs
        and not before.jobs[job_id].status.is_final
        and (job_id not in after.jobs or after.jobs[job_id].status.is_final)
    ]
    assert list(woken) == over, f"told of {woken}, and these are over: {over}"


def _check_progress(before: PeriodicRow, after: PeriodicRow) -> None:
    change = f"{before} became {after}"
    assert after.done_until >= before.done_until, f"ticks would come twice: {change}"
    if before.last_tick is not None:
        assert after.last_tick, f"nobody knows its latest job: {change}"
        assert after.last_tick >= before.last_tick, f"its latest job was one before: {change}"
        same = after.last_tick == before.last_tick
        assert not same or after.job_id == before.job_id, f"two jobs of a tick: {change}"


@dataclass(frozen=True)
class Told:
    """What a flow told about a tick: of which schedule, what became of it, and its job's id."""

    key: Key
    outcome: periodic.Outcome
    job_id: int | None


def check_ticks(before: State, after: State, told: Sequence[Told]) -> None:
    """Check that there is one new job for each tick that is said to have one, and for no other.

    The row of each schedule names the latest of its own.
    """
    named = [each.job_id for each in told if each.job_id is not None]
    deferred = [each for each in told if each.outcome is periodic.Outcome.DEFERRED]
    assert [each.job_id for each in deferred] == named, f"jobs of ticks that have none: {told}"
    added = after.jobs.keys() - before.jobs.keys()
    assert sorted(named) == sorted(added), f"not one job for each tick: {told}"
    for key, row in after.periodics.items():
        of_this = [each.job_id for each in deferred if each.key == key]
        known = before.periodics[key].job_id if key in before.periodics else None
        assert row.job_id == (of_this[-1] if of_this else known), f"not the latest job: {row}"


def matches(job: JobRow, which: JobFilter) -> bool:
    """Whether a filter is meant to choose a job."""
    wanted = {
        "id": which.ids,
        "queue_name": None if which.queue is None else [which.queue],
        "task_name": None if which.task is None else [which.task],
        "status": which.statuses,
        "lock": None if which.lock is None else [which.lock],
        "queueing_lock": None if which.queueing_lock is None else [which.queueing_lock],
        "worker_id": None if which.worker_id is None else [which.worker_id],
    }
    held = which.holds is None or job.status is not Status.TODO or (job.hold or "") in which.holds
    return held and all(each is None or getattr(job, name) in each for name, each in wanted.items())


def outlived(state: State, ages: Mapping[Status, timedelta], queue: str | None) -> set[int]:
    """Return the ids of the jobs that such a policy of retention no longer keeps."""
    return {
        job.id
        for job in state.jobs.values()
        if job.finished_at is not None
        and job.status in ages
        and state.now - job.finished_at > ages[job.status] - TOLERANCE
        and queue in (None, job.queue_name)
    }


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


def following(
    state: State,
    ending: Collection[int],
    served: Collection[str] | None,
    unknown: Collection[str],
    paused: Pauses = NO_PAUSES,
) -> list[tuple[int, int]]:
    """Return the jobs that may begin in the place of these, in order: (ending, following) ids.

    A line does not go on past a job of a queue that is not served, but past those of paused ones.
    """
    slots = {lock: job_id for lock, job_id in state.locks.items() if job_id in ending}
    first: dict[str, JobRow] = {}
    for job in in_claim_order(state.waiting()):
        if job.lock in slots and job.hold != "schedule" and not paused.has(job.queue_name):
            first.setdefault(job.lock, job)
    return [
        (slots[job.lock], job.id)
        for job in first.values()
        if job.lock is not None
        and job.task_name not in unknown
        and (served is None or job.queue_name in served)
    ]


def claimable(
    state: State,
    queues: Collection[str],
    served: Collection[str] | None,
    paused: Pauses = NO_PAUSES,
) -> list[int]:
    """Return the ids of the jobs that could all be claimed now for these queues, in order.

    They are those without a lock, and of each line whose lock is free the first, as far as the
    served queues go (None: all). Jobs of paused queues are as if they were not there.
    """
    running = paused.running(queues)
    ready = [job for job in state.waiting() if job.hold is None and job.queue_name in running]
    first_of_lines: dict[str, int] = {}
    due = [
        job
        for job in state.waiting()
        if job.hold != "schedule"
        and (served is None or job.queue_name in served)
        and not paused.has(job.queue_name)
    ]
    for job in in_claim_order(due):
        if job.lock is not None and job.lock not in state.locks:
            first_of_lines.setdefault(job.lock, job.id)
    return [
        job.id
        for job in in_claim_order(ready)
        if job.lock is None or first_of_lines.get(job.lock) == job.id
    ]
