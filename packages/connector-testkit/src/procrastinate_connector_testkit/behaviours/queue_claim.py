"""Claiming: which jobs, in which order, and never one job for two workers."""

from __future__ import annotations

from procrastinate.model.job import NewJob, Status
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.queue import HOUR_US, Queue

QUEUE = "the queue: claiming"


class Claiming:
    """From waiting to running."""

    @behaviour(QUEUE)
    async def test_claims_go_by_priority_and_then_by_id(self, queue: Queue) -> None:
        priorities = [0, 5, -3, 5, 0, 100]
        ids = await queue.defer_all(*(NewJob("task", priority=each) for each in priorities))
        worker = await queue.worker()
        expected = [ids[place] for place in (5, 1, 3, 0, 4, 2)]
        assert await queue.claimed_ids(worker, limit=2) == expected[:2]
        assert await queue.claimed_ids(worker) == expected[2:]
        assert await queue.claimed_ids(worker) == []

    @behaviour(QUEUE)
    async def test_claims_return_jobs_that_run(self, queue: Queue) -> None:
        worker = await queue.worker()
        deferred = await queue.job(await queue.defer("tasks.add", args='{"a": 1}'))
        job = await queue.claim_one(worker)
        assert (job.id, job.task_name, job.task_kwargs) == (deferred.id, "tasks.add", {"a": 1})
        assert (job.status, job.worker, job.attempts) == (Status.DOING, worker, 1)
        assert job.started_at is not None
        assert job.deferred_at == deferred.deferred_at
        assert await queue.job(job.id) == job

    @behaviour(QUEUE)
    async def test_claims_are_of_the_queues_named(self, queue: Queue) -> None:
        names = ["a", "b", "c", "a", "b"]
        ids = await queue.defer_all(*(NewJob("task", queue=name) for name in names))
        worker = await queue.worker()
        assert await queue.ready_queues() == ["a", "b", "c"]
        assert await queue.claimed_ids(worker, "b") == [ids[1], ids[4]]
        assert await queue.claimed_ids(worker, "c", "a", "unknown") == [ids[0], ids[2], ids[3]]
        assert await queue.ready_queues() == []

    @behaviour(QUEUE)
    async def test_claims_go_by_priority_over_several_queues(self, queue: Queue) -> None:
        new = [NewJob("t", queue="a"), NewJob("t", queue="b", priority=1), NewJob("t", queue="a")]
        ids = await queue.defer_all(*new)
        claimed = await queue.claimed_ids(await queue.worker(), "a", "b", limit=2)
        assert claimed == [ids[1], ids[0]]

    @behaviour(QUEUE)
    async def test_scheduled_jobs_are_not_claimed_before_their_time(self, queue: Queue) -> None:
        worker = await queue.worker()
        await queue.defer(schedule_in_us=HOUR_US)
        promotion = await queue.promote()
        assert promotion.count == 0
        assert promotion.seconds_to_next is not None
        assert 3500 < promotion.seconds_to_next <= 3600
        assert await queue.claimed_ids(worker) == []
        assert await queue.ready_queues() == []

    @behaviour(QUEUE)
    async def test_scheduled_jobs_are_claimed_once_they_are_promoted(self, queue: Queue) -> None:
        worker = await queue.worker()
        job_id = await queue.defer(schedule_in_us=50_000)

        async def promoted() -> bool:
            promotion = await queue.promote()
            return bool(promotion.count == 1)

        await queue.db.eventually("the job is promoted", promoted)
        assert await queue.claimed_ids(worker) == [job_id]
        assert (await queue.promote()).seconds_to_next is None

    @behaviour(QUEUE)
    async def test_jobs_scheduled_for_the_past_are_ready_at_once(self, queue: Queue) -> None:
        job_id = await queue.defer(schedule_in_us=-HOUR_US)
        assert await queue.claimed_ids(await queue.worker()) == [job_id]

    @behaviour(QUEUE)
    async def test_marks_hide_what_lies_below(self, queue: Queue) -> None:
        """Above a mark there are only jobs of its priority with higher ids, of its queue."""
        priorities = [0, 0, 1, 0, -1, 0]
        ids = await queue.defer_all(*(NewJob("task", priority=each) for each in priorities))
        other = await queue.defer(queue="other")
        worker = await queue.worker()
        claimed = await queue.claim_level(worker, {"default": ids[0]}, limit=2)
        assert claimed == [ids[1], ids[3]]
        marks = {"default": ids[3], "other": 0}
        assert await queue.claim_level(worker, marks) == [ids[5], other]
        assert await queue.claim_level(worker, marks) == []
        assert await queue.claimed_ids(worker) == [ids[2], ids[0], ids[4]]

    @behaviour(3, QUEUE)
    async def test_claims_at_the_same_time_never_overlap(self, queue: Queue) -> None:
        ids = await queue.defer_all(*(NewJob("task") for _ in range(120)))

        async def work(name: str) -> list[int]:
            worker = await queue.worker(name)
            found: list[int] = []
            while claimed := await queue.claimed_ids(worker, limit=7):
                found += claimed
            return found

        claims = await queue.db.together(*(work(f"worker {n}") for n in range(4)))
        assert sorted(job_id for each in claims for job_id in each) == ids

    @behaviour(QUEUE)
    async def test_claims_may_ask_for_nothing(self, queue: Queue) -> None:
        await queue.defer()
        assert await queue.claimed_ids(await queue.worker(), limit=0) == []
        assert await queue.ready_queues() == ["default"]
