"""Locks: jobs that share one run one at a time, in order, and hold up no other job."""

from __future__ import annotations

from datetime import UTC, datetime

from procrastinate.model.endings.outcome import Finished
from procrastinate.model.job import NewJob, Status
from procrastinate.storage import defer
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.queue import HOUR_US, Queue

QUEUE = "the queue: locks"


def locked(lock: str, **options: object) -> NewJob:
    return NewJob("task", lock=lock, **options)  # type: ignore[arg-type]


class Locks:
    """A lock's line."""

    @behaviour(QUEUE)
    async def test_locks_let_one_job_run_at_a_time(self, queue: Queue) -> None:
        """In the order of ids, each as soon as the one before has ended."""
        ids = await queue.defer_each(*(locked("l") for _ in range(4)))
        worker = await queue.worker()
        done = []
        for _ in ids:
            claim = await queue.claim(worker)
            assert len(claim.jobs) == 1, "two jobs of one lock at the same time"
            assert await queue.claimed_ids(worker) == []
            await queue.finish(worker, *claim.jobs)
            done.append(claim.jobs[0].id)
        assert done == ids
        assert await queue.claimed_ids(worker) == []

    @behaviour(QUEUE)
    async def test_locks_go_by_priority(self, queue: Queue) -> None:
        ids = await queue.defer_each(*(locked("l", priority=each) for each in (0, 2, 1)))
        worker = await queue.worker()
        done = []
        for _ in ids:
            job = await queue.claim_one(worker)
            await queue.finish(worker, job)
            done.append(job.id)
        assert done == [ids[1], ids[2], ids[0]]

    @behaviour(QUEUE)
    async def test_locks_hold_up_nobody_else(self, queue: Queue) -> None:
        """Jobs without the lock, and the first of each other lock, are claimed at once."""
        new = [locked("l"), locked("l"), locked("m"), NewJob("task"), locked("m"), locked("")]
        ids = await queue.defer_each(*new)
        claim = await queue.claim(await queue.worker())
        assert [job.id for job in claim.jobs] == [ids[0], ids[2], ids[3], ids[5]]
        assert claim.parked == 2

    @behaviour(QUEUE)
    async def test_locks_park_what_they_hold_up(self, queue: Queue) -> None:
        """Once parked, jobs are not read again until they are passed on, however many there are."""
        ids = await queue.defer_each(*(locked("l") for _ in range(20)))
        free = await queue.defer()
        worker = await queue.worker()
        first = await queue.claim_one(worker)
        found: list[int] = []
        for _ in range(8):
            found += await queue.claimed_ids(worker, limit=5)
        assert found == [free]
        assert await queue.ready_queues() == []
        await queue.finish(worker, first)
        assert await queue.claimed_ids(worker, limit=5) == [ids[1]]

    @behaviour(QUEUE)
    async def test_locks_park_all_but_the_first_jobs_of_a_batch(self, queue: Queue) -> None:
        """The first of each line in each queue is ready: a worker may serve that queue alone."""
        due = datetime(2100, 1, 1, tzinfo=UTC)
        new = [
            *(locked("l"), locked("l", priority=1), locked("l")),
            *(locked("l", queue="b"), locked("l", queue="b"), locked("m"), locked("m")),
            *(NewJob("task"), NewJob("task"), locked("n", scheduled_at=due), locked("n")),
        ]
        ids = await queue.defer_all(*new)
        holds = [(await queue.job(each)).hold for each in ids]
        assert [place for place, hold in enumerate(holds) if hold is None] == [1, 3, 5, 7, 8, 10]
        assert holds[9] == "schedule"
        claim = await queue.claim(worker := await queue.worker(), "default", "b")
        assert [job.id for job in claim.jobs] == [ids[each] for each in (1, 5, 7, 8, 10)]
        await queue.finish(worker, claim.jobs[0])
        assert await queue.claimed_ids(worker, "default", "b") == [ids[0]]

    @behaviour(QUEUE)
    async def test_locks_park_all_but_the_first_of_jobs_that_are_alike(self, queue: Queue) -> None:
        alike = queue.placed(NewJob("task", lock="l"))
        ids = await queue.run(defer.defer_alike(alike, '[{"n":1},{"n":2},{"n":3}]'))
        assert [(await queue.job(each)).hold for each in ids] == [None, "lock", "lock"]
        worker = await queue.worker()
        for each in ids:
            claim = await queue.claim(worker)
            assert ([job.id for job in claim.jobs], claim.parked) == ([each], 0)
            await queue.finish(worker, *claim.jobs)

    @behaviour(QUEUE)
    async def test_locks_pass_on_what_a_batch_has_parked_if_its_first_job_is_cancelled(
        self, queue: Queue
    ) -> None:
        ids = await queue.defer_all(*(locked("l") for _ in range(3)))
        assert await queue.cancel(ids[0])
        assert await queue.claimed_ids(await queue.worker()) == [ids[1]]

    @behaviour(QUEUE)
    async def test_locks_stand_the_jobs_of_a_batch_in_line_behind_earlier_ones(
        self, queue: Queue
    ) -> None:
        first = await queue.defer(lock="l")
        ids = await queue.defer_all(*(locked("l", priority=each) for each in (0, 0, 1)))
        worker, done = await queue.worker(), []
        for _ in range(4):
            job = await queue.claim_one(worker)
            await queue.finish(worker, job)
            done.append(job.id)
        assert done == [ids[2], first, ids[0], ids[1]]

    @behaviour(QUEUE)
    async def test_locks_are_handed_over_to_the_next_job_of_their_line(self, queue: Queue) -> None:
        """The end of each job begins the next one, and the last one is left to its ending."""
        ids = await queue.defer_each(*(locked("l", priority=each) for each in (0, 2, 1)))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        done = [job.id]
        while following := await queue.hand_over(worker, job):
            (job,) = following
            done.append(job.id)
            assert await queue.claimed_ids(worker) == [], "two jobs of one lock at the same time"
        assert done == [ids[1], ids[2], ids[0]]
        assert (await queue.job(job.id)).status is Status.DOING
        assert await queue.finish(worker, job) == {job.id}

    @behaviour(QUEUE)
    async def test_locks_are_not_handed_over_past_the_first_job_of_their_line(
        self, queue: Queue
    ) -> None:
        """If that is in a queue which the worker does not serve, it is another worker's turn."""
        first = await queue.defer_each(locked("l", queue="a"))
        await queue.defer_each(locked("l", queue="a"), locked("l", queue="b", priority=1))
        worker = await queue.worker()
        (job,) = await queue.claim_jobs(worker, "a")
        assert [job.id] == first
        assert await queue.hand_over(worker, job, queues=["a"]) == []
        assert (await queue.job(job.id)).status is Status.DOING
        (following,) = await queue.hand_over(worker, job, queues=["a", "b"])
        assert following.queue == "b"

    @behaviour(QUEUE)
    async def test_locks_let_a_claim_from_a_mark_take_the_next_job_below_it(
        self, queue: Queue
    ) -> None:
        """What the scan meets of the line shows that the lock is free; its first job is next."""
        ids = await queue.defer_each(*(locked("l") for _ in range(3)))
        worker = await queue.worker()
        running = await queue.claim_one(worker)
        await queue.claim(worker)  # parks the others
        late, free = await queue.defer_each(locked("l"), NewJob("task"))
        await queue.finish(worker, running)
        above = {"default": ids[2]}
        assert await queue.claim_level(worker, above, limit=1) == [ids[1]]
        assert await queue.claim_level(worker, above) == [free]
        assert await queue.ready_queues() == [], "the late job was not parked"
        assert (await queue.statuses())[late] == "todo"

    @behaviour(QUEUE)
    async def test_locks_are_held_over_all_workers(self, queue: Queue) -> None:
        ids = await queue.defer_each(locked("l"), locked("l"))
        one, two = await queue.worker("one"), await queue.worker("two")
        job = await queue.claim_one(one)
        assert await queue.claimed_ids(two) == []
        await queue.finish(one, job)
        assert await queue.claimed_ids(two) == [ids[1]]

    @behaviour(QUEUE)
    async def test_locks_are_held_over_all_queues(self, queue: Queue) -> None:
        """A lock taken in one queue holds up its jobs in another, and is passed on to them."""
        ids = await queue.defer_each(locked("l", queue="a"), locked("l", queue="b"))
        worker = await queue.worker()
        job = await queue.claim_one(worker, "a")
        assert await queue.claimed_ids(worker, "b") == []
        await queue.finish(worker, job)
        assert await queue.claimed_ids(worker, "b") == [ids[1]]

    @behaviour(QUEUE)
    async def test_locks_do_not_wait_for_queues_that_nobody_serves(self, queue: Queue) -> None:
        """The first in line of the queues that the worker reads goes, whatever waits elsewhere."""
        await queue.defer_each(locked("l", queue="unserved"))
        (served,) = await queue.defer_each(locked("l", queue="served"))
        assert await queue.claimed_ids(await queue.worker(), "served") == [served]

    @behaviour(QUEUE)
    async def test_locks_do_not_wait_for_scheduled_jobs(self, queue: Queue) -> None:
        await queue.defer_each(locked("l", schedule_in_us=HOUR_US, priority=9))
        (due,) = await queue.defer_each(locked("l"))
        assert await queue.claimed_ids(await queue.worker()) == [due]

    @behaviour(QUEUE)
    async def test_locks_keep_the_place_of_a_job_that_comes_back(self, queue: Queue) -> None:
        """Retried, handed back, recovered or retried by hand: before those that it preceded."""
        ids = await queue.defer_each(*(locked("l") for _ in range(3)))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.claim(worker)  # parks the others
        await queue.retry(worker, job)
        job = await queue.claim_one(worker)
        await queue.hand_back(worker, job, begun=True)
        job = await queue.claim_one(worker)
        await queue.recover()
        job = await queue.claim_one(worker)
        await queue.finish(worker, job, ending=Finished(Status.FAILED))
        await queue.retry_by_hand(job.id)
        order = [job.id]
        while found := await queue.claim_jobs(worker):
            order += [each.id for each in found]
            await queue.finish(worker, *found)
        assert order == [ids[0], *ids]

    @behaviour(QUEUE)
    async def test_locks_let_the_next_job_run_while_a_retry_waits_for_its_time(
        self, queue: Queue
    ) -> None:
        ids = await queue.defer_each(*(locked("l") for _ in range(2)))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.retry(worker, job, retry_in={"hours": 1})
        assert await queue.claimed_ids(worker) == ids[1:]

    @behaviour(QUEUE)
    async def test_locks_let_a_late_job_of_high_priority_go_next(self, queue: Queue) -> None:
        """It interrupts no job, and goes before those that have waited for long."""
        ids = await queue.defer_each(*(locked("l") for _ in range(3)))
        worker = await queue.worker()
        running = await queue.claim_one(worker)
        await queue.claim(worker)  # parks the others
        (urgent,) = await queue.defer_each(locked("l", priority=9))
        assert await queue.claimed_ids(worker) == []
        await queue.finish(worker, running)
        job = await queue.claim_one(worker)
        assert (running.id, job.id) == (ids[0], urgent)

    @behaviour(QUEUE)
    async def test_locks_are_passed_on_by_every_end(self, queue: Queue) -> None:
        """Retried for later, handed back, deleted when done, or cancelled while waiting."""
        ids = await queue.defer_each(*(locked("l") for _ in range(5)))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.claim(worker)  # parks the others
        await queue.retry(worker, job, None, retry_in={"hours": 1})
        job = await queue.claim_one(worker)
        assert job.id == ids[1]
        await queue.delete_finished(worker, job)
        job = await queue.claim_one(worker)
        assert job.id == ids[2]
        await queue.hand_back(worker, job)
        job = await queue.claim_one(worker)
        assert job.id == ids[2]
        await queue.cancel(ids[3])
        assert await queue.claimed_ids(worker) == []
        await queue.finish(worker, job)
        assert await queue.claimed_ids(worker) == [ids[4]]

    @behaviour(QUEUE)
    async def test_locks_of_a_dead_worker_are_passed_on(self, queue: Queue) -> None:
        ids = await queue.defer_each(locked("l"), locked("l"))
        dead = await queue.worker("dead")
        await queue.claim_one(dead)
        await queue.claim(dead)
        await queue.unregister(dead)
        await queue.recover(timeout_us=HOUR_US * 24)
        assert await queue.claimed_ids(await queue.worker("alive")) == [ids[0]]

    @behaviour(3, QUEUE)
    async def test_locks_under_contention_never_overlap(self, queue: Queue) -> None:
        """Several workers, a few locks: each job runs once, each lock's jobs in order."""
        new = [locked(f"l{n % 3}") for n in range(45)]
        ids = await queue.defer_each(*new)
        order: list[int] = []

        async def work(name: str) -> None:
            worker = await queue.worker(name)
            while "todo" in (statuses := await queue.statuses()).values():
                claim = await queue.claim(worker, limit=4)
                order.extend(job.id for job in claim.jobs)
                running = [job.lock for job in claim.jobs]
                assert len(running) == len(set(running)), "one lock twice in a claim"
                if claim.jobs:
                    await queue.finish(worker, *claim.jobs)
                else:
                    del statuses
                    await queue.db.sleep(0.005)

        await queue.db.together(*(work(f"worker {n}") for n in range(3)))
        by_lock = {n: [job_id for job_id in order if (job_id - ids[0]) % 3 == n] for n in range(3)}
        assert by_lock == {n: ids[n::3] for n in range(3)}

    @behaviour(QUEUE)
    async def test_lines_that_wait_for_nobody_are_mended(self, queue: Queue) -> None:
        """Mending leaves lines alone that wait for a running job."""
        ids = await queue.defer_each(locked("l"), locked("l"))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.claim(worker)
        await queue.mend()
        assert await queue.claimed_ids(worker) == []
        await queue.finish(worker, job)
        await queue.mend()
        assert await queue.claimed_ids(worker) == [ids[1]]
