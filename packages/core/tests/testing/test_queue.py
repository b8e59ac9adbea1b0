"""Jobs in memory are deferred, claimed and ended as they are in PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from procrastinate import json_codec
from procrastinate.drive import Request
from procrastinate.errors import AlreadyEnqueued
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, Requeued
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.storage import bulk, claim, finish, jobs, locks, workers
from procrastinate.storage.finish import Ended
from procrastinate.testing import InMemoryConnector

if TYPE_CHECKING:
    from conftest import MemoryQueue


def test_a_deferred_job_has_the_tables_defaults(queue: MemoryQueue) -> None:
    now = queue.connector.clock.now()
    job_id = queue.defer(args='{"a": 1}')
    assert queue.connector.jobs == [
        Job(
            id=job_id,
            status=Status.TODO,
            queue="default",
            task_name="task",
            task_kwargs={"a": 1},
            deferred_at=now,
        )
    ]


def test_claims_go_by_priority_and_then_by_id(queue: MemoryQueue) -> None:
    low, high, high_too = (queue.defer(priority=priority) for priority in (0, 5, 5))
    assert queue.claimed(limit=2) == [high, high_too]
    assert queue.claimed(limit=2) == [low]


def test_a_claim_takes_only_its_queues(queue: MemoryQueue) -> None:
    other = queue.defer(queue="other")
    assert queue.claimed() == []
    assert queue.run(claim.ready_queues()) == ["other"]
    assert queue.claimed(["other"]) == [other]


def test_a_claim_of_a_level_takes_one_priority_above_the_mark(queue: MemoryQueue) -> None:
    first, second, _ = (queue.defer(priority=priority) for priority in (1, 1, 0))
    found = queue.run(
        claim.claim(
            Scan(Kind.LEVEL, 10, ("default",), priority=1, lows=(first,)),
            worker_id=1,
            loads=json_codec.loads,
        )
    )
    assert [job.id for job in found.jobs] == [second]


def test_a_scheduled_job_waits_for_its_time_and_its_promotion(queue: MemoryQueue) -> None:
    later = queue.defer(schedule_in_us=90_000_000)
    assert queue.promote() == claim.Promotion(0, 90.0)
    assert queue.claimed() == []
    queue.connector.clock.move(90)
    assert queue.promote() == claim.Promotion(0, None)  # moving the clock has done it
    assert queue.claimed() == [later]


# --- queueing locks ------------------------------------------------------------------------------


def test_only_one_job_waits_for_each_queueing_lock(queue: MemoryQueue) -> None:
    """The one that is refused has drawn an id, as in PostgreSQL."""
    queue.defer(queueing_lock="q")
    with pytest.raises(AlreadyEnqueued, match="'q'"):
        queue.defer(queueing_lock="q")
    queue.claim()
    assert queue.defer(queueing_lock="q") == 3


@pytest.mark.parametrize("taken", [True, False], ids=["by a waiting job", "twice in the batch"])
def test_a_batch_with_a_clash_inserts_nothing(queue: MemoryQueue, *, taken: bool) -> None:
    if taken:
        queue.defer(queueing_lock="q")
    before = queue.connector.jobs
    batch = [NewJob("task"), NewJob("task", queueing_lock="q")]
    with pytest.raises(AlreadyEnqueued, match="'q'"):
        queue.defer_all(*batch, *batch)
    assert queue.connector.jobs == before


def test_a_batch_returns_its_ids_in_the_order_given(queue: MemoryQueue) -> None:
    ids = queue.defer_all(*(NewJob(name) for name in ("c", "a", "b")))
    assert [queue.job(job_id).task_name for job_id in ids] == ["c", "a", "b"]


def test_a_retried_job_whose_twin_waits_ends_as_cancelled(queue: MemoryQueue) -> None:
    queue.defer(queueing_lock="q")
    [job] = queue.claim().jobs
    queue.defer(queueing_lock="q")
    assert queue.retry(job) == {1}
    assert queue.statuses() == {1: "cancelled", 2: "todo"}


def test_a_retry_by_hand_beside_a_waiting_twin_is_refused(queue: MemoryQueue) -> None:
    first = queue.defer(queueing_lock="q")
    queue.cancel(first)
    queue.defer(queueing_lock="q")
    with pytest.raises(AlreadyEnqueued):
        queue.run(jobs.retry_by_hand([first], jobs.ByHand()))
    assert queue.statuses() == {1: "cancelled", 2: "todo"}


# --- locks ---------------------------------------------------------------------------------------


def test_jobs_with_one_lock_run_one_at_a_time_in_order(queue: MemoryQueue) -> None:
    first, second, third = (queue.defer(lock="l", priority=priority) for priority in (0, 0, 1))
    ran = []
    for _ in range(3):
        claimed = queue.claim().jobs
        assert len(claimed) == 1
        assert queue.claim().jobs == []
        ran += [job.id for job in claimed]
        queue.finish(claimed[0])
    assert ran == [third, first, second]


def test_blocked_jobs_are_parked_and_read_only_once(queue: MemoryQueue) -> None:
    for _ in range(3):
        queue.defer(lock="l")
    assert (queue.claim().parked, queue.claim().parked) == (2, 0)


def test_a_job_scheduled_for_later_does_not_hold_its_line_up(queue: MemoryQueue) -> None:
    queue.defer(lock="l", priority=9, schedule_in_us=10_000_000)
    ready = queue.defer(lock="l")
    assert queue.claimed() == [ready]


def test_one_lock_is_passed_on_to_the_best_job_of_each_queue(queue: MemoryQueue) -> None:
    [holder] = [queue.defer(lock="l", priority=1)]
    parked = [queue.defer(lock="l", queue=name) for name in ("a", "a", "b")]
    [job] = queue.claim(["default", "a", "b"]).jobs
    assert job.id == holder
    queue.finish(job)
    assert queue.run(claim.ready_queues()) == ["a", "b"]
    assert queue.claimed(["b"]) == [parked[2]]
    assert queue.claim(["a"]).jobs == []


def test_a_retry_gives_the_lock_to_the_next_in_line(queue: MemoryQueue) -> None:
    first, second = (queue.defer(lock="l") for _ in range(2))
    [job] = queue.claim().jobs
    queue.retry(job, retry_in=timedelta(hours=1))
    assert queue.claimed() == [second]
    queue.connector.clock.move(timedelta(hours=1))
    assert queue.claimed() == []
    queue.finish(queue.job(second))
    assert queue.claimed() == [first]


def test_cancelling_the_first_of_a_line_lets_the_next_go(queue: MemoryQueue) -> None:
    first, second, third = (queue.defer(lock="l") for _ in range(3))
    [job] = queue.claim().jobs
    queue.finish(job)
    assert queue.cancel(second) == {second}
    assert (job.id, queue.claimed()) == (first, [third])


# --- ending attempts -----------------------------------------------------------------------------


def test_a_finish_writes_status_times_and_error(queue: MemoryQueue) -> None:
    queue.defer()
    [job] = queue.claim().jobs
    queue.connector.clock.move(60)
    now = queue.connector.clock.now()
    assert queue.finish(job, Status.FAILED, error={"message": "boom"}) == {job.id}
    ended = queue.job(job.id)
    assert (ended.status, ended.errors) == (Status.FAILED, [{"message": "boom"}])
    assert (ended.started_at, ended.finished_at) == (now - timedelta(seconds=2), now)


@pytest.mark.parametrize("action", ["finish", "retry"])
def test_writes_are_fenced_by_worker_and_lease(queue: MemoryQueue, action: str) -> None:
    queue.defer()
    [lost] = queue.claim().jobs
    assert getattr(queue, action)(lost, worker_id=2) == set()
    queue.hand_back(lost, begun=True)
    [again] = queue.claim().jobs
    assert getattr(queue, action)(lost) == set()
    assert queue.job(lost.id) == again


@pytest.mark.parametrize("begun, attempts", [(False, 0), (True, 1)])
def test_a_job_handed_back_counts_its_attempt_only_if_it_had_begun(
    queue: MemoryQueue, *, begun: bool, attempts: int
) -> None:
    queue.defer(lock="l")
    [job] = queue.claim().jobs
    assert queue.hand_back(job, begun=begun) == {job.id}
    back = queue.job(job.id)
    assert (back.status, back.worker, back.attempts) == (Status.TODO, None, attempts)
    assert queue.claimed() == [job.id]


def test_the_delay_of_a_job_that_is_handed_back_again_and_again_doubles(
    queue: MemoryQueue,
) -> None:
    """A worker that cannot take it now leaves it to others, and does not get it at once."""
    queue.defer()
    waits = []
    for _ in range(8):
        [job] = queue.claim().jobs
        queue.settle(job, Requeued(timedelta(seconds=1), begun=False))
        wait = queue.promote().seconds_to_next or 0.0
        waits.append(wait)
        queue.connector.clock.move(wait)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    [job] = queue.claim().jobs
    assert job.attempts == 1
    queue.settle(job, Requeued(timedelta(seconds=1)))
    queue.connector.clock.move(1)
    [job] = queue.claim().jobs
    queue.settle(job, Requeued(timedelta(seconds=1), begun=False))
    assert queue.promote().seconds_to_next == 1, "an attempt that began ends the doubling"


def test_the_first_time_that_a_task_was_unknown_is_kept_until_it_runs(queue: MemoryQueue) -> None:
    queue.defer()
    first = queue.connector.clock.now()
    for _ in range(2):
        [job] = queue.claim().jobs
        queue.settle(job, Requeued(begun=False, unknown=True))
        [row] = queue.connector._store.job_rows()
        assert (row.unknown_since, row.hold, row.attempts) == (first, None, 0)
        queue.connector.clock.move(60)
    [job] = queue.claim().jobs
    queue.settle(job, INTERRUPTED)
    [row] = queue.connector._store.job_rows()
    assert (row.unknown_since, row.attempts) == (None, 1)


def test_a_retry_changes_what_its_decision_says(queue: MemoryQueue) -> None:
    queue.defer()
    [job] = queue.claim().jobs
    at = queue.connector.clock.now() + timedelta(minutes=5)
    queue.retry(job, retry_at=at, priority=7, queue="other", lock="l")
    back = queue.job(job.id)
    assert (back.status, back.scheduled_at) == (Status.TODO, at)
    assert (back.priority, back.queue, back.lock) == (7, "other", "l")
    assert (back.attempts, back.errors) == (1, [{"message": "boom"}])


# --- workers -------------------------------------------------------------------------------------


def test_jobs_of_a_silent_worker_are_recovered_with_their_locks(queue: MemoryQueue) -> None:
    worker = queue.register()
    job_id = queue.defer(lock="l")
    queue.claim(worker_id=worker)
    assert queue.recover() == []
    queue.connector.clock.move(31)
    assert queue.recover() == [workers.Recovered(job_id, Status.TODO, "default", "task")]
    assert queue.claimed() == [job_id]


def test_a_job_that_keeps_losing_its_worker_fails_with_the_reason(queue: MemoryQueue) -> None:
    job_id = queue.defer()
    worker = queue.register()
    for _ in range(2):
        queue.claim(worker_id=worker)
        queue.recover(seconds=-1, crash_limit=2)
    job = queue.job(job_id)
    assert job.status is Status.FAILED
    assert [(error["attempt"], error["type"], error["message"]) for error in job.errors] == [
        (2, "procrastinate.errors.WorkerLost", "its worker died 2 times while it held this job")
    ]
    assert job.errors[0]["at"] == "2030-01-01T12:00:00.000000+00:00"


def test_a_worker_taken_for_dead_is_entered_again_by_its_heartbeat(queue: MemoryQueue) -> None:
    worker = queue.register()
    queue.connector.clock.move(31)
    queue.run(workers.prune_workers(timeout_us=30_000_000))
    flows = [workers.heartbeat(worker, "worker", timeout_us=30_000_000) for _ in range(2)]
    assert [queue.run(flow).reborn for flow in flows] == [True, False]


def test_a_heartbeat_tells_the_rank_among_those_that_live(queue: MemoryQueue) -> None:
    dead, first, second, third = (queue.register() for _ in range(4))
    queue.connector.clock.move(31)
    beats = [
        queue.run(workers.heartbeat(worker, "worker", timeout_us=30_000_000))
        for worker in (third, first, second, third, first)
    ]
    now = queue.connector.clock.now()
    assert dead < first
    assert [(beat.rank, beat.live) for beat in beats] == [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)]
    assert all(abs(now - beat.now).total_seconds() < 5 for beat in beats)


def test_lines_that_wait_for_nobody_are_mended(queue: MemoryQueue) -> None:
    _, second = (queue.defer(lock="l") for _ in range(2))
    [job] = queue.claim().jobs
    with queue.sync.session() as executor:  # ended, and its lock left behind
        held = finish.held([Ended(job, SUCCEEDED)], worker_id=1)
        executor.execute(queue.sql(Request("delete_finished", **held)))
    assert queue.claimed() == []
    queue.run(locks.mend())
    assert queue.claimed() == [second]


def test_running_jobs_are_asked_to_abort_and_waiting_ones_cancelled(queue: MemoryQueue) -> None:
    running = queue.defer()
    queue.claim()
    waiting = queue.defer()
    assert queue.cancel(running, waiting, abort=True) == {running, waiting}
    assert queue.statuses() == {running: "doing", waiting: "cancelled"}
    assert queue.run(workers.abort_requests(1)) == {running}


# --- the job manager -----------------------------------------------------------------------------


def test_jobs_are_listed_by_filter_and_page(queue: MemoryQueue) -> None:
    ids = [queue.defer(queue=name, lock="l") for name in ("a", "b", "a", "a")]
    which = jobs.JobFilter(queue="a", statuses=[Status.TODO], lock="l")
    page = queue.run(jobs.list_jobs(which, after_id=ids[0], limit=1, loads=json_codec.loads))
    assert [job.id for job in page] == [ids[2]]


def test_jobs_are_counted_by_status(queue: MemoryQueue) -> None:
    for name in ("b", "a", "a"):
        queue.defer(queue=name)
    queue.claim(["a"], limit=1)
    counts = queue.run(jobs.list_counts("list_queues", queue=None, task=None, lock=None))
    assert counts == [
        jobs.Counts("a", 2, 1, 1, 0, 0, 0, 0),
        jobs.Counts("b", 1, 1, 0, 0, 0, 0, 0),
    ]


def test_old_jobs_are_deleted_by_age_and_status(queue: MemoryQueue) -> None:
    queue.defer_all(*[NewJob("task")] * 3)
    old, failed, _ = queue.claim().jobs
    queue.finish(old)
    queue.finish(failed, Status.FAILED)
    queue.connector.clock.move(61)
    ages = {Status.SUCCEEDED: 60_000_000}
    deleted = queue.run(bulk.delete_old(ages, queue=None, after_id=0))
    assert (deleted.count, queue.statuses()) == (1, {2: "failed", 3: "doing"})


def test_every_connector_has_jobs_of_its_own(queue: MemoryQueue) -> None:
    queue.defer()
    assert InMemoryConnector().jobs == []
