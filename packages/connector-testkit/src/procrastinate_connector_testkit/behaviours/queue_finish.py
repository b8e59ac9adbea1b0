"""Ending attempts: what is written, and by whom it may be written."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest

from procrastinate.model.endings.outcome import SUCCEEDED, UNSTARTED, Finished, Requeued, Standing
from procrastinate.model.job import NewJob, Status
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.queue import Queue, error

QUEUE = "the queue: ending attempts"

#: Results as JSON, and what they mean.
RESULTS = {
    "null": None,
    "false": False,
    '"it\'s é 🦆 %s %(x)s \\\\ \\u0001"': "it's é 🦆 %s %(x)s \\ \x01",
    '{"a": [1.50, 123456789012345678901234567890, {}], "": ""}': {
        "a": [1.5, 123456789012345678901234567890, {}],
        "": "",
    },
}


class Finishing:
    """From running to whatever comes next."""

    @pytest.mark.parametrize("status", [status for status in Status if status.is_final])
    @behaviour(QUEUE)
    async def test_finish_writes_the_status(self, queue: Queue, status: Status) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        claimed = await queue.claim_one(worker)
        problem = None if status is Status.SUCCEEDED else error("é 'x' %s \"\\ 🦆")
        assert await queue.finish(worker, claimed, ending=Finished(status, error=problem)) == {
            job_id
        }
        job = await queue.job(job_id)
        assert (job.status, job.worker, job.attempts) == (status, worker, 1)
        assert job.errors == ([] if problem is None else [problem])
        assert job.started_at is not None
        assert job.finished_at is not None
        assert job.finished_at - job.started_at == timedelta(seconds=1)

    @behaviour(QUEUE)
    async def test_results_come_back_as_they_were_written(self, queue: Queue) -> None:
        """Each with its own job, in a batch, beside jobs that have none."""
        kept = [Finished(Status.SUCCEEDED, result=text) for text in RESULTS]
        refused = Finished(Status.SUCCEEDED, result_error="too large: é 'x' %s")
        ids = await queue.defer_all(*(NewJob("task") for _ in range(len(kept) + 2)))
        worker = await queue.worker()
        claimed = (await queue.claim(worker)).jobs
        given = zip(claimed, [*kept, refused, SUCCEEDED], strict=True)
        await queue.settle(worker, *given)
        found = [await queue.job(job_id) for job_id in ids]
        assert [(job.has_result, job.result, job.result_error) for job in found] == [
            *((True, value, None) for value in RESULTS.values()),
            (False, None, "too large: é 'x' %s"),
            (False, None, None),
        ]

    @behaviour(QUEUE)
    async def test_finish_takes_many_at_once(self, queue: Queue) -> None:
        ids = await queue.defer_all(*(NewJob("task", lock=f"l{n % 3}") for n in range(9)))
        worker = await queue.worker()
        claimed = (await queue.claim(worker)).jobs
        assert await queue.finish(worker, *claimed) == set(ids[:3])
        assert await queue.claimed_ids(worker) == ids[3:6]

    @behaviour(QUEUE)
    async def test_finish_is_fenced_by_worker_and_lease(self, queue: Queue) -> None:
        """A worker that lost a job writes nothing: another one has it, or it has another lease."""
        job_id = await queue.defer()
        one, two = await queue.worker("one"), await queue.worker("two")
        lost = await queue.claim_one(one)
        assert await queue.finish(two, lost) == set()
        await queue.unregister(one)
        await queue.recover(timeout_us=10**13)
        held = await queue.claim_one(one)
        assert (held.attempts, held.lease) == (2, lost.lease + 1)
        failed = Finished(Status.FAILED, error=error("lost"))
        assert await queue.finish(one, lost, ending=failed) == set()
        assert await queue.retry(one, lost) == set()
        assert await queue.hand_back(one, lost) == set()
        assert await queue.delete_finished(one, lost) == set()
        assert await queue.job(job_id) == held
        assert await queue.finish(one, held) == {job_id}
        assert await queue.finish(one, held) == set(), "a job that ended was ended again"

    @behaviour(QUEUE)
    async def test_a_claim_of_the_same_attempt_by_the_same_worker_is_another_lease(
        self, queue: Queue
    ) -> None:
        """The answer to a hand-back may be lost. A write for the first claim changes nothing."""
        job_id = await queue.defer()
        worker = await queue.worker()
        first = await queue.claim_one(worker)
        assert await queue.hand_back(worker, first) == {job_id}
        again = await queue.claim_one(worker)
        assert (again.attempts, again.lease) == (first.attempts, first.lease + 1)
        assert await queue.hand_back(worker, first) == set()
        assert await queue.finish(worker, first) == set()
        assert await queue.retry(worker, first) == set()
        assert await queue.delete_finished(worker, first) == set()
        assert await queue.job(job_id) == again

    @behaviour(QUEUE)
    async def test_finished_jobs_may_be_deleted(self, queue: Queue) -> None:
        await queue.defer()
        kept = await queue.defer()
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        assert await queue.delete_finished(worker, job) == {job.id}
        assert await queue.ids() == [kept]

    @behaviour(QUEUE)
    async def test_retries_are_ready_at_once_by_default(self, queue: Queue) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        for attempt in (1, 2, 3):
            job = await queue.claim_one(worker)
            assert (job.id, job.attempts) == (job_id, attempt)
            assert await queue.retry(worker, job, error(f"number {attempt}", attempt)) == {job_id}
        job = await queue.job(job_id)
        assert (job.status, job.worker, job.attempts) == (Status.TODO, None, 3)
        assert [each["message"] for each in job.errors] == ["number 1", "number 2", "number 3"]

    @behaviour(QUEUE)
    async def test_the_first_and_the_last_errors_are_kept(self, queue: Queue) -> None:
        """All of them are written anew with each attempt, so there must not be too many."""
        job_id = await queue.defer()
        worker = await queue.worker()
        for attempt in range(1, 31):
            job = await queue.claim_one(worker)
            await queue.retry(worker, job, error(f"number {attempt}", attempt))
        errors = (await queue.job(job_id)).errors
        assert [each["attempt"] for each in errors] == [1, *range(12, 31)]
        assert [each.get("omitted") for each in errors] == [None, 10, *[None] * 18]
        full = [each["attempt"] for each in errors if each["traceback"]]
        assert full == [1, 28, 29, 30]
        assert {each["message"] == f"number {each['attempt']}" for each in errors} == {True}

    @behaviour(QUEUE)
    async def test_a_batch_may_end_in_every_way(self, queue: Queue) -> None:
        """In one statement; each ends as it would alone."""
        ids = [await queue.defer(f"task {n}") for n in range(7)]
        worker = await queue.worker()
        jobs = (await queue.claim(worker)).jobs
        await queue.cancel(ids[4], ids[5], abort=True)
        problem = error("x")
        settled = await queue.settle(
            worker,
            (jobs[0], SUCCEEDED),
            (jobs[1], Finished(Status.FAILED, problem)),
            (jobs[2], Requeued(when=timedelta(hours=1), error=problem)),
            (jobs[3], UNSTARTED),
            (jobs[4], SUCCEEDED),
            (jobs[5], Finished(Status.FAILED, problem)),
            (dataclasses.replace(jobs[6], lease=7), SUCCEEDED),
        )
        assert settled.changed == {
            ids[0]: Status.SUCCEEDED,
            ids[1]: Status.FAILED,
            ids[2]: Status.TODO,
            ids[3]: Status.TODO,
            ids[4]: Status.SUCCEEDED,
            ids[5]: Status.ABORTED,
        }
        assert settled.standings == {ids[6]: Standing(Status.DOING, worker, 1, 0)}
        found = [await queue.job(job_id) for job_id in ids]
        assert [each.attempts for each in found] == [1, 1, 1, 0, 1, 1, 1]
        assert [[each["type"] for each in job.errors] for job in found] == [
            [],
            ["builtins.ValueError"],
            ["builtins.ValueError"],
            [],
            [],
            ["builtins.ValueError", "procrastinate.errors.JobAborted"],
            [],
        ]

    @behaviour(QUEUE)
    async def test_retries_may_wait(self, queue: Queue) -> None:
        """For a while, or for a moment; then they are scheduled."""
        ids = await queue.defer_all(NewJob("a"), NewJob("b"))
        worker = await queue.worker()
        one, two = (await queue.claim(worker)).jobs
        at = datetime(2090, 1, 1, 0, 0, 0, 5, timezone(timedelta(hours=2)))
        await queue.retry(worker, one, None, retry_at=at)
        await queue.retry(worker, two, None, retry_in={"milliseconds": 50})
        assert (await queue.job(ids[0])).scheduled_at == at

        async def claimed() -> list[int]:
            await queue.promote()
            return await queue.claimed_ids(worker)

        assert await queue.db.eventually("the retry is due", claimed) == [ids[1]]

    @behaviour(QUEUE)
    async def test_retries_may_change_the_job(self, queue: Queue) -> None:
        job_id = await queue.defer(lock="old")
        await queue.defer(queue="other", lock="new")
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        await queue.retry(worker, job, None, priority=9, queue="other", lock="new")
        assert await queue.claimed_ids(worker, "default") == []
        changed = await queue.claim_one(worker, "other")
        assert (changed.id, changed.priority, changed.queue, changed.lock) == (
            *(job_id, 9, "other", "new"),
        )
        assert await queue.claimed_ids(worker, "other") == [], "the new lock is not held"

    @pytest.mark.parametrize("by", ["retry", "hand_back"])
    @behaviour(QUEUE)
    async def test_jobs_with_a_waiting_twin_end_as_cancelled(self, queue: Queue, by: str) -> None:
        """A job with the same queueing lock is waiting, and will do the work."""
        job_id = await queue.defer(queueing_lock="q")
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        twin = await queue.defer(queueing_lock="q")
        changed = await (
            queue.retry(worker, job, error("x")) if by == "retry" else queue.hand_back(worker, job)
        )
        assert changed == {job_id}
        assert await queue.statuses() == {job_id: "cancelled", twin: "todo"}

    @pytest.mark.parametrize("by", ["retry", "hand_back", "recover"])
    @behaviour(QUEUE)
    async def test_jobs_that_end_instead_of_going_back_are_deleted_where_none_are_kept(
        self, queue: Queue, by: str
    ) -> None:
        """Those to be aborted and those whose twin waits; the others go back, and the line on."""
        ids = [await queue.defer(lock=lock, queueing_lock=lock) for lock in "abc"]
        worker = await queue.worker()
        claimed = await queue.claim_jobs(worker)
        await queue.cancel(ids[0], abort=True)
        twin = await queue.defer(queueing_lock="b")
        behind = [await queue.defer(lock=lock) for lock in "abc"]
        if by == "retry":
            for job in claimed:
                assert await queue.retry(worker, job, delete_ended=True) == {job.id}
        elif by == "hand_back":
            assert await queue.hand_back(worker, *claimed, delete_ended=True) == set(ids)
        else:
            recovered = await queue.recover(delete_ended=True)
            assert {each.job_id: each.status for each in recovered} == {
                ids[0]: Status.ABORTED,
                ids[1]: Status.CANCELLED,
                ids[2]: Status.TODO,
            }
        assert await queue.statuses() == dict.fromkeys([ids[2], twin, *behind], "todo")
        assert {job.id for job in await queue.claim_jobs(worker)} == {ids[2], twin, *behind[:2]}

    @behaviour(QUEUE)
    async def test_jobs_handed_back_are_untouched(self, queue: Queue) -> None:
        """As if they had never been claimed, but for the lease, which never falls."""
        before = await queue.job(await queue.defer(priority=3, lock="l"))
        worker = await queue.worker()
        job = await queue.claim_one(worker)
        assert await queue.hand_back(worker, job) == {before.id}
        assert await queue.job(before.id) == dataclasses.replace(before, lease=1)
        again = await queue.claim_one(await queue.worker("other"))
        assert (again.id, again.attempts) == (before.id, 1)

    @behaviour(QUEUE)
    async def test_jobs_handed_back_after_they_began_count_the_attempt(self, queue: Queue) -> None:
        job_id = await queue.defer()
        worker = await queue.worker()
        await queue.hand_back(worker, await queue.claim_one(worker), begun=True)
        job = await queue.claim_one(worker)
        assert (job.id, job.attempts) == (job_id, 2)

    @behaviour(QUEUE)
    async def test_a_job_knows_when_its_first_attempt_began(self, queue: Queue) -> None:
        """Also after others, and after it was handed back; a retry by hand begins anew."""
        job_id = await queue.defer()
        worker = await queue.worker()
        assert (await queue.job(job_id)).first_started_at is None
        await queue.hand_back(worker, await queue.claim_one(worker))
        assert (await queue.job(job_id)).first_started_at is None
        await queue.retry(worker, await queue.claim_one(worker))
        first = await queue.job(job_id)
        assert first.started_at is not None
        assert first.first_started_at == first.started_at
        await queue.hand_back(worker, await queue.claim_one(worker))
        handed_back = await queue.job(job_id)
        assert (handed_back.started_at, handed_back.first_started_at) == (None, first.started_at)
        again = await queue.claim_one(worker)
        await queue.finish(worker, again, ending=Finished(Status.FAILED, error=error("x")))
        last = await queue.job(job_id)
        assert last.started_at is not None
        assert last.first_started_at == first.started_at < last.started_at
        await queue.retry_by_hand(job_id)
        assert (await queue.job(job_id)).first_started_at is None

    @pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
    @behaviour(QUEUE)
    async def test_jobs_to_be_aborted_do_not_go_back_to_the_queue(
        self, queue: Queue, begun: bool
    ) -> None:
        """A job that is asked to end is not begun by another worker, and its line goes on."""
        job_id = await queue.defer(lock="l")
        behind = await queue.defer(lock="l")
        other = await queue.defer()
        worker = await queue.worker()
        claimed = (await queue.claim(worker)).jobs
        assert [job.id for job in claimed] == [job_id, other]
        await queue.cancel(job_id, abort=True)
        assert await queue.hand_back(worker, *claimed, begun=begun) == {job_id, other}
        job = await queue.job(job_id)
        assert (job.status, job.worker, job.attempts) == (Status.ABORTED, worker, int(begun))
        assert (job.started_at is not None) is begun
        assert job.finished_at is not None
        assert [(each["attempt"], each["type"]) for each in job.errors] == [
            (1, "procrastinate.errors.JobAborted")
        ]
        assert sorted(job.errors[0]) == ["at", "attempt", "message", "traceback", "type"]
        ended_ago = timedelta(seconds=1 if begun else 0)
        assert datetime.fromisoformat(job.errors[0]["at"]) == job.finished_at + ended_ago
        assert await queue.statuses() == {job_id: "aborted", behind: "todo", other: "todo"}
        assert await queue.claimed_ids(worker) == [behind, other]

    @pytest.mark.parametrize("problem", [None, error("x")], ids=["no error", "an error"])
    @behaviour(QUEUE)
    async def test_jobs_to_be_aborted_are_not_retried(
        self, queue: Queue, problem: dict[str, object] | None
    ) -> None:
        """The failed attempt's error stays, and the reason why it was the last comes after it."""
        job_id = await queue.defer(queueing_lock="q")
        worker = await queue.worker()
        claimed = await queue.claim_one(worker)
        await queue.cancel(job_id, abort=True)
        twin = await queue.defer(queueing_lock="q")
        assert await queue.retry(worker, claimed, problem, retry_in={"hours": 1}) == {job_id}
        job = await queue.job(job_id)
        assert (job.status, job.worker, job.attempts) == (Status.ABORTED, worker, 1)
        assert job.errors[:-1] == ([] if problem is None else [problem])
        assert job.errors[-1]["type"] == "procrastinate.errors.JobAborted"
        assert await queue.statuses() == {job_id: "aborted", twin: "todo"}

    @behaviour(QUEUE)
    async def test_a_job_to_be_aborted_is_in_the_way_of_no_twin(self, queue: Queue) -> None:
        """Of two with one queueing lock that are handed back together, the other one waits."""
        first = await queue.defer(queueing_lock="q")
        worker = await queue.worker()
        one = await queue.claim_one(worker)
        second = await queue.defer(queueing_lock="q")
        two = await queue.claim_one(worker)
        await queue.cancel(first, abort=True)
        assert await queue.hand_back(worker, one, two) == {first, second}
        assert await queue.statuses() == {first: "aborted", second: "todo"}

    @behaviour(QUEUE)
    async def test_a_job_retried_by_hand_has_nothing_asked_of_it(self, queue: Queue) -> None:
        """Who retries an aborted job by hand wants it to run, and to be handed back again."""
        job_id = await queue.defer()
        worker = await queue.worker()
        claimed = await queue.claim_one(worker)
        await queue.cancel(job_id, abort=True)
        await queue.hand_back(worker, claimed)
        await queue.retry_by_hand(job_id)
        await queue.hand_back(worker, await queue.claim_one(worker))
        assert await queue.statuses() == {job_id: "todo"}
