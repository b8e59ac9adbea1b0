"""Workers that die, and what becomes of their jobs."""

from __future__ import annotations

from procrastinate.model.endings.outcome import Requeued
from procrastinate.model.job import NewJob, Status
from procrastinate.storage.workers import Recovered
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.queue import HOUR_US, Queue

QUEUE = "the queue: recovery"


class Recovery:
    """From a dead worker back to the queue."""

    @behaviour(QUEUE)
    async def test_workers_have_ids_of_their_own(self, queue: Queue) -> None:
        ids = [await queue.worker("same name") for _ in range(3)]
        assert len(set(ids)) == 3

    @behaviour(QUEUE)
    async def test_jobs_of_a_living_worker_are_left_alone(self, queue: Queue) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        await queue.claim_one(worker)
        assert await queue.heartbeat(worker) is False
        assert await queue.stalled(timeout_us=HOUR_US) == []
        assert await queue.recover(timeout_us=HOUR_US) == []
        assert await queue.statuses() == {job_id: "doing"}

    @behaviour(QUEUE)
    async def test_jobs_of_a_silent_worker_go_back(self, queue: Queue) -> None:
        """Their attempt is counted, and they are ready again."""
        ids = await queue.defer_all(NewJob("a", queue="x"), NewJob("b", lock="l"))
        waiting = await queue.defer("waiting", queue="y")
        silent = await queue.worker("silent")
        await queue.claim(silent, "x", "default")
        assert await queue.stalled() == ids
        assert sorted(await queue.recover(), key=lambda each: each.job_id) == [
            Recovered(ids[0], Status.TODO, "x", "a"),
            Recovered(ids[1], Status.TODO, "default", "b"),
        ]
        assert await queue.recover() == []
        job = await queue.claim_one(await queue.worker("alive"), "x")
        assert (job.id, job.attempts, job.errors) == (ids[0], 2, [])
        assert (await queue.job(waiting)).status == Status.TODO

    @behaviour(QUEUE)
    async def test_jobs_of_an_unregistered_worker_go_back(self, queue: Queue) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        await queue.claim_one(worker)
        await queue.unregister(worker)
        assert await queue.stalled(timeout_us=HOUR_US) == [job_id]
        assert [each.job_id for each in await queue.recover(timeout_us=HOUR_US)] == [job_id]

    @behaviour(QUEUE)
    async def test_jobs_that_keep_killing_their_worker_fail(self, queue: Queue) -> None:
        """After the limit, with the reason among their errors."""
        job_id = await queue.defer()
        worker = await queue.worker()
        found = []
        for _ in range(3):
            await queue.claim_one(worker)
            found += [each.status for each in await queue.recover(crash_limit=3)]
        assert found == [Status.TODO, Status.TODO, Status.FAILED]
        job = await queue.job(job_id)
        assert (job.status, job.attempts, job.worker) == (Status.FAILED, 3, worker)
        assert job.finished_at is not None
        (reason,) = job.errors
        assert (reason["attempt"], reason["type"]) == (3, "procrastinate.errors.WorkerLost")
        assert "3 times" in reason["message"]

    @behaviour(QUEUE)
    async def test_a_job_that_was_not_alone_is_not_blamed(self, queue: Queue) -> None:
        """Not even if it is the last one to be recovered; only by very many crashes."""
        ids = [await queue.defer(), await queue.defer()]
        worker = await queue.worker()
        for crashes in range(1, 6):
            await queue.claim(worker)
            found = [await queue.recover(ids=[each], crash_limit=1) for each in ids]
            assert [each.status for (each,) in found] == [Status.TODO] * 2
            assert [(await queue.job(each)).crashes for each in ids] == [crashes] * 2
            await queue.heartbeat(worker)
        await queue.claim(worker)
        found = [await queue.recover(ids=[each], most_crashes=6) for each in ids]
        assert [each.status for (each,) in found] == [Status.FAILED] * 2

    @behaviour(QUEUE)
    async def test_a_job_of_a_worker_that_left_is_not_blamed(self, queue: Queue) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        await queue.claim_one(worker)
        await queue.unregister(worker)
        assert [each.status for each in await queue.recover(crash_limit=1)] == [Status.TODO]
        assert (await queue.job(job_id)).crashes == 1

    @behaviour(QUEUE)
    async def test_a_job_is_not_blamed_if_workers_of_a_host_died_together(
        self, queue: Queue
    ) -> None:
        """A worker that held no job counts as well."""
        first, _, third = [await queue.worker(host=host) for host in ("a", "a", "b")]
        ids = [await queue.defer(queue="x"), await queue.defer(queue="y")]
        await queue.claim_one(first, "x")
        await queue.claim_one(third, "y")
        found = await queue.recover(moment_us=HOUR_US, crash_limit=1)
        assert {each.job_id: each.status for each in found} == {
            ids[0]: Status.TODO,
            ids[1]: Status.FAILED,
        }

    @behaviour(QUEUE)
    async def test_recovered_jobs_with_a_waiting_twin_end_as_cancelled(self, queue: Queue) -> None:
        job_id = await queue.defer(queueing_lock="q")
        worker = await queue.worker()
        await queue.claim_one(worker)
        twin = await queue.defer(queueing_lock="q")
        assert [each.status for each in await queue.recover()] == [Status.CANCELLED]
        assert await queue.statuses() == {job_id: "cancelled", twin: "todo"}

    @behaviour(QUEUE)
    async def test_recovered_twins_leave_one_waiting(self, queue: Queue) -> None:
        """Two running jobs with one queueing lock cannot both go back: the first does."""
        worker = await queue.worker()
        ids = []
        for _ in range(2):
            ids.append(await queue.defer(queueing_lock="q"))
            await queue.claim_one(worker)
        await queue.recover()
        assert await queue.statuses() == {ids[0]: "todo", ids[1]: "cancelled"}

    @behaviour(QUEUE)
    async def test_jobs_that_were_to_be_aborted_do_not_run_again(self, queue: Queue) -> None:
        """A request to abort is obeyed, also if a twin waits."""
        worker = await queue.worker()
        aborted, recovered = await queue.defer(queueing_lock="a"), await queue.defer()
        await queue.claim(worker)
        await queue.cancel(aborted, abort=True)
        twin = await queue.defer(queueing_lock="a")
        assert {each.status for each in await queue.recover()} == {Status.ABORTED, Status.TODO}
        assert await queue.statuses() == {aborted: "aborted", recovered: "todo", twin: "todo"}
        job = await queue.job(aborted)
        assert (job.worker, job.finished_at is not None) == (worker, True)
        (reason,) = job.errors
        assert (reason["attempt"], reason["type"]) == (1, "procrastinate.errors.WorkerLost")
        assert "abortion" in reason["message"]

    @behaviour(QUEUE)
    async def test_jobs_can_be_recovered_by_id(self, queue: Queue) -> None:
        ids = [await queue.defer(), await queue.defer()]
        await queue.claim(await queue.worker())
        assert await queue.stalled_ids() == ids
        assert [each.job_id for each in await queue.recover(ids=ids[1:])] == ids[1:]
        assert await queue.stalled_ids() == ids[:1]

    @behaviour(QUEUE)
    async def test_stalled_jobs_can_be_filtered(self, queue: Queue) -> None:
        ids = await queue.defer_all(NewJob("a", queue="x"), NewJob("b", queue="y"))
        worker = await queue.worker()
        await queue.claim(worker, "x", "y")
        assert await queue.stalled(queue="x") == [ids[0]]
        assert await queue.stalled(task="b") == [ids[1]]

    @behaviour(QUEUE)
    async def test_dead_workers_are_forgotten_once_they_hold_nothing(self, queue: Queue) -> None:
        """And are told, when they come back to life."""
        busy, idle = await queue.worker("busy"), await queue.worker("idle")
        await queue.defer()
        await queue.claim_one(busy)
        await queue.prune(timeout_us=HOUR_US)
        assert await queue.heartbeat(idle, "idle") is False
        await queue.prune()
        assert await queue.heartbeat(busy, "busy") is False
        assert await queue.heartbeat(idle, "idle") is True
        assert await queue.heartbeat(idle, "idle") is False

    # Tasks that a worker does not know

    @behaviour(QUEUE)
    async def test_a_claim_leaves_out_the_tasks_that_its_worker_does_not_know(
        self, queue: Queue
    ) -> None:
        new = [NewJob(name) for name in ("a", "b", "c", "a", "d")]
        ids = await queue.defer_all(*new, NewJob("a", lock="l"), NewJob("d", lock="m"))
        worker = await queue.worker()
        assert await queue.claim_known(worker, "a", "b", limit=2) == [ids[2], ids[4]]
        assert await queue.claim_known(worker, "a", "b", with_locks=False) == []
        assert await queue.claim_known(worker, "a", "b") == [ids[6]]
        assert await queue.claim_known(worker) == [ids[0], ids[1], ids[3], ids[5]]

    @behaviour(QUEUE)
    async def test_a_line_is_not_passed_by_because_its_first_job_is_unknown(
        self, queue: Queue
    ) -> None:
        first, second = await queue.defer_all(NewJob("a", lock="l"), NewJob("b", lock="l"))
        worker = await queue.worker()
        assert await queue.claim_known(worker, "a") == []
        assert await queue.claim_known(worker) == [first]
        assert (await queue.job(second)).status is Status.TODO

    @behaviour(QUEUE)
    async def test_a_job_that_no_live_worker_knows_fails_when_its_time_is_over(
        self, queue: Queue
    ) -> None:
        ids = await queue.defer_all(NewJob("task"), NewJob("other"), NewJob("other", lock="l"))
        never_met = await queue.defer("other", lock="l")
        worker = await queue.worker()
        for job in (await queue.claim(worker)).jobs:
            await queue.settle(worker, (job, Requeued(begun=False, unknown=True)))
        assert await queue.fail_unknown(patience_us=HOUR_US) == []
        assert await queue.fail_unknown() == ids[1:]
        assert await queue.fail_unknown() == []
        assert await queue.statuses() == {
            ids[0]: "todo",
            ids[1]: "failed",
            ids[2]: "failed",
            never_met: "todo",
        }
        job = await queue.job(ids[1])
        assert (job.attempts, job.finished_at is not None) == (0, True)
        (reason,) = job.errors
        assert reason["type"] == "procrastinate.errors.TaskNotFound"
        assert await queue.claimed_ids(worker) == [ids[0], never_met]

    @behaviour(QUEUE)
    async def test_a_job_that_is_not_known_is_deleted_if_the_worker_keeps_none(
        self, queue: Queue
    ) -> None:
        job_id = await queue.defer("other")
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.settle(worker, (job, Requeued(begun=False, unknown=True)))
        assert await queue.fail_unknown(delete_ended=True) == [job_id]
        assert await queue.statuses() == {}
