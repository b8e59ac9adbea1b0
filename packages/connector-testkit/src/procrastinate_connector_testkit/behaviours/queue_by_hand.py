"""Jobs seen and changed by hand: lists, counts, cancelling, aborting, retrying, deleting."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from procrastinate import errors
from procrastinate.drive import Flow
from procrastinate.model.endings.outcome import Finished
from procrastinate.model.job import NewJob, Status
from procrastinate.storage import jobs
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.queue import HOUR_US, Queue, error

QUEUE = "the queue: by hand"

FINAL = [status for status in Status if status.is_final]


async def ended(queue: Queue, status: Status, /, **options: object) -> int:
    """Return the id of a job that ended so."""
    job_id = await queue.defer("task", **options)
    worker = await queue.worker()
    job = await queue.claim_one(worker, str(options.get("queue", "default")))
    assert job.id == job_id
    await queue.finish(worker, job, ending=Finished(status))
    return job_id


class ByHand:
    """The job manager's view."""

    @behaviour(QUEUE)
    async def test_jobs_that_do_not_exist_are_none(self, queue: Queue) -> None:
        assert await queue.find(2**62) is None

    @behaviour(QUEUE)
    async def test_lists_can_be_filtered(self, queue: Queue) -> None:
        ids = await queue.defer_all(
            NewJob("a", queue="x"),
            NewJob("b", queue="y", lock="l", queueing_lock="q"),
            NewJob("a", queue="y"),
        )
        worker = await queue.worker()
        await queue.claim(worker, "x")
        found = {
            "all": await queue.ids(),
            "ids": await queue.ids(ids=[ids[2], ids[0], 2**62]),
            "no ids": await queue.ids(ids=[]),
            "queue": await queue.ids(queue="y"),
            "task": await queue.ids(task="a"),
            "statuses": await queue.ids(statuses=[Status.DOING, Status.FAILED]),
            "lock": await queue.ids(lock="l"),
            "queueing_lock": await queue.ids(queueing_lock="q"),
            "worker": await queue.ids(worker_id=worker),
            "two": await queue.ids(task="a", queue="y"),
            "nothing": await queue.ids(task="a", lock="l"),
        }
        assert found == {
            "all": ids,
            "ids": [ids[0], ids[2]],
            "no ids": [],
            "queue": ids[1:],
            "task": [ids[0], ids[2]],
            "statuses": [ids[0]],
            "lock": [ids[1]],
            "queueing_lock": [ids[1]],
            "worker": [ids[0]],
            "two": [ids[2]],
            "nothing": [],
        }

    @behaviour(QUEUE)
    async def test_lists_come_in_pages(self, queue: Queue) -> None:
        ids = await queue.defer_all(*(NewJob("task", priority=-n) for n in range(7)))
        pages, last = [], 0
        while page := await queue.ids(after_id=last, limit=3):
            pages.append(page)
            last = page[-1]
        assert pages == [ids[:3], ids[3:6], ids[6:]]

    @behaviour(QUEUE)
    async def test_counts_are_by_status(self, queue: Queue) -> None:
        await queue.defer_all(
            NewJob("a", queue="x", lock="l"), NewJob("a", queue="x"), NewJob("b", queue="y")
        )
        worker = await queue.worker()
        job = await queue.claim_one(worker, "x")
        await queue.finish(worker, job, ending=Finished(Status.FAILED))
        await queue.claim(worker, "y")
        assert await queue.counts("list_queues") == {
            "x": {"jobs_count": 2, "todo": 1, "failed": 1},
            "y": {"jobs_count": 1, "doing": 1},
        }
        assert list(await queue.counts("list_tasks")) == ["a", "b"]
        assert await queue.counts("list_locks") == {"l": {"jobs_count": 1, "failed": 1}}
        assert list(await queue.counts("list_queues", task="b")) == ["y"]
        assert await queue.counts("list_tasks", queue="y") == {"b": {"jobs_count": 1, "doing": 1}}
        assert await queue.counts("list_queues", lock="unknown") == {}

    @behaviour(QUEUE)
    async def test_waiting_jobs_can_be_cancelled(self, queue: Queue) -> None:
        """Those that wait, due or not; others and unknown ones are not changed."""
        ids = await queue.defer_all(NewJob("a"), NewJob("b", schedule_in_us=HOUR_US), NewJob("c"))
        worker = await queue.worker()
        running = await queue.claim_one(worker)
        assert await queue.cancel(*ids, 2**62) == set(ids[1:])
        assert await queue.cancel(*ids) == set()
        assert await queue.statuses() == {
            ids[0]: "doing",
            ids[1]: "cancelled",
            ids[2]: "cancelled",
        }
        assert (await queue.job(ids[1])).finished_at is not None
        assert await queue.finish(worker, running) == {ids[0]}
        assert await queue.claimed_ids(worker) == []

    @behaviour(QUEUE)
    async def test_waiting_jobs_can_be_deleted(self, queue: Queue) -> None:
        ids = [await queue.defer(), await queue.defer()]
        await queue.claim_one(await queue.worker())
        assert await queue.cancel(*ids, delete=True) == {ids[1]}
        assert await queue.ids() == [ids[0]]

    @behaviour(QUEUE)
    async def test_running_jobs_can_be_asked_to_abort(self, queue: Queue) -> None:
        """Their worker sees it until they end; waiting jobs are cancelled at the same time."""
        running, waiting = await queue.defer(), await queue.defer()
        worker, other = await queue.worker("one"), await queue.worker("two")
        job = await queue.claim_one(worker)
        assert await queue.abort_requests(worker) == set()
        assert await queue.cancel(running, waiting, abort=True) == {running, waiting}
        assert await queue.abort_requests(worker) == {running}
        assert await queue.abort_requests(other) == set()
        await queue.finish(worker, job, ending=Finished(Status.ABORTED, error=error("aborted")))
        assert await queue.abort_requests(worker) == set()
        assert await queue.statuses() == {running: "aborted", waiting: "cancelled"}
        assert await queue.cancel(running, waiting, abort=True) == set()

    @pytest.mark.parametrize("status", [status for status in FINAL if status != Status.SUCCEEDED])
    @behaviour(QUEUE)
    async def test_ended_jobs_can_be_retried(self, queue: Queue, status: Status) -> None:
        job_id = await ended(queue, status)
        assert await queue.retry_by_hand(job_id) == {job_id}
        job = await queue.job(job_id)
        assert (job.status, job.worker, job.finished_at) == (Status.TODO, None, None)
        again = await queue.claim_one(await queue.worker())
        assert (again.id, again.attempts, again.lease) == (job_id, 1, 2)

    @behaviour(QUEUE)
    async def test_succeeded_and_running_jobs_are_not_retried(self, queue: Queue) -> None:
        done = await ended(queue, Status.SUCCEEDED)
        running = await queue.defer()
        await queue.claim_one(await queue.worker())
        assert await queue.retry_by_hand(done, running, 2**62) == set()
        assert await queue.statuses() == {done: "succeeded", running: "doing"}

    @behaviour(QUEUE)
    async def test_retries_by_hand_may_change_the_job(self, queue: Queue) -> None:
        at = datetime(2090, 1, 1, tzinfo=UTC)
        job_id = await ended(queue, Status.FAILED)
        await queue.retry_by_hand(job_id, retry_at=at, priority=5, queue="other", lock="l")
        job = await queue.job(job_id)
        changed = (job.status, job.scheduled_at, job.priority, job.queue, job.lock)
        assert changed == (Status.TODO, at, 5, "other", "l")
        assert await queue.ready_queues() == []
        assert await queue.retry_by_hand(job_id) == {job_id}, "a waiting job can be hurried"
        assert await queue.ready_queues() == ["other"]
        job = await queue.job(job_id)
        assert (job.priority, job.lock) == (5, "l")
        assert job.deferred_at is not None
        assert job.scheduled_at is not None
        assert job.deferred_at <= job.scheduled_at < at, "it waits since it was retried"

    @behaviour(QUEUE)
    async def test_retries_by_hand_respect_queueing_locks(self, queue: Queue) -> None:
        job_id = await ended(queue, Status.FAILED, queueing_lock="q")
        other = await ended(queue, Status.FAILED)
        twin = await queue.defer(queueing_lock="q")
        with pytest.raises(errors.AlreadyEnqueued):
            await queue.retry_by_hand(other, job_id)
        assert await queue.statuses() == {job_id: "failed", other: "failed", twin: "todo"}

    @pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "autocommit"])
    @behaviour(QUEUE)
    async def test_retries_by_hand_leave_a_caller_s_transaction_usable(
        self, queue: Queue, *, transaction: bool
    ) -> None:
        """It goes on after `AlreadyEnqueued`, and commits what was done before and after."""
        job_id = await ended(queue, Status.FAILED, queueing_lock="q")
        other = await ended(queue, Status.FAILED)
        twin = await queue.defer(queueing_lock="q")

        def retry(*ids: int) -> Flow[set[int]]:
            return jobs.retry_by_hand_for_caller(ids, jobs.ByHand())

        async with entered(queue.db.session(transaction=transaction)) as session:
            before = await session.flow(queue.defer_flow())
            with pytest.raises(errors.AlreadyEnqueued):
                await session.flow(retry(job_id))
            assert await session.flow(retry(other)) == {other}
        assert await queue.statuses() == {
            job_id: "failed",
            **dict.fromkeys([other, twin, before], "todo"),
        }

    @behaviour(QUEUE)
    async def test_retries_by_hand_forgive_the_attempts_made(self, queue: Queue) -> None:
        """The job has as many as a new one. Its lease is another one all the same."""
        job_id = await ended(queue, Status.FAILED)
        await queue.retry_by_hand(job_id)
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        assert (job.attempts, job.lease) == (1, 2)
        await queue.retry(worker, job)
        await queue.retry_by_hand(job_id)
        job = await queue.job(job_id)
        assert (job.attempts, job.lease) == (1, 2), "a waiting job is hurried, and not forgiven"

    @behaviour(QUEUE)
    async def test_jobs_are_cancelled_by_filter_in_batches(self, queue: Queue) -> None:
        ids = [await queue.defer(queue="x") for _ in range(3)]
        other = await queue.defer(queue="y")
        running = await queue.claim_one(await queue.worker(), "x")
        assert running.id == ids[0]
        first = await queue.cancel_batch(queue="x", limit=1)
        assert (first.changed, first.busy, first.last_id) == ({ids[1]}, [], ids[1])
        second = await queue.cancel_batch(queue="x", after_id=ids[1])
        assert (second.changed, second.last_id) == ({ids[2]}, None)
        assert (await queue.cancel_batch(ids=[ids[0], other], abort=True)).changed == {
            ids[0],
            other,
        }
        assert await queue.abort_requests(running.worker or 0) == {ids[0]}

    @behaviour(QUEUE)
    async def test_jobs_are_retried_by_filter_unless_their_twin_waits(self, queue: Queue) -> None:
        """Of several with one queueing lock, the first by (priority, id)."""
        ids = [
            await ended(queue, Status.FAILED, queueing_lock="q", priority=priority)
            for priority in (0, 5, 5)
        ]
        beside = await ended(queue, Status.ABORTED, queueing_lock="r")
        twin = await queue.defer(queueing_lock="r")
        assert (await queue.retry_batch(statuses=[Status.FAILED], priority=9)).changed == {ids[1]}
        assert (await queue.retry_batch()).changed == set()
        assert await queue.statuses() == {
            ids[0]: "failed",
            ids[1]: "todo",
            ids[2]: "failed",
            beside: "aborted",
            twin: "todo",
        }
        assert (await queue.job(ids[1])).priority == 9

    @behaviour(QUEUE)
    async def test_old_jobs_can_be_deleted(self, queue: Queue) -> None:
        """Those that ended so long ago, with these statuses, in this queue."""
        done = await ended(queue, Status.SUCCEEDED)
        elsewhere = await ended(queue, Status.SUCCEEDED, queue="other")
        failed = await ended(queue, Status.FAILED)
        waiting = await queue.defer()
        assert await queue.delete_old(Status.SUCCEEDED, age_us=HOUR_US) == 0
        assert await queue.delete_old(Status.SUCCEEDED, queue="default") == 1
        assert await queue.ids() == [elsewhere, failed, waiting]
        assert await queue.delete_old(Status.SUCCEEDED, Status.FAILED) == 2
        assert await queue.ids() == [waiting]
        assert await queue.find(done) is None
