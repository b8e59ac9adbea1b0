"""Deferring jobs: ids, order, queueing locks, and what belongs to a transaction."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from procrastinate import errors
from procrastinate.model.job import NewJob, Status
from procrastinate.storage import defer
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.queue import HOUR_US, Queue

QUEUE = "the queue: deferring"


class Deferring:
    """From a new job to a row."""

    @behaviour(QUEUE)
    async def test_defer_stores_a_job_as_it_was_given(self, queue: Queue) -> None:
        at = datetime(2030, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=5, minutes=45)))
        args = '{"a": [1, 2.5, null, true, "é %s \' \\\\ \\" 🦆"], "b": {"c": {}}}'
        job_id = await queue.defer(
            "tasks.resize",
            queue="images",
            priority=-7,
            lock="album 1",
            queueing_lock="album 1 resize",
            args=args,
            scheduled_at=at,
        )
        job = await queue.job(job_id)
        assert (job.id, job.status, job.queue, job.task_name) == (
            *(job_id, Status.TODO, "images", "tasks.resize"),
        )
        assert job.task_kwargs == {"a": [1, 2.5, None, True, "é %s ' \\ \" 🦆"], "b": {"c": {}}}
        assert (job.priority, job.lock, job.queueing_lock) == (-7, "album 1", "album 1 resize")
        assert job.scheduled_at == at
        assert (job.attempts, job.started_at, job.finished_at, job.worker) == (0, None, None, None)
        assert job.errors == []
        assert job.deferred_at is not None
        assert job.deferred_at.utcoffset() == timedelta()

    @behaviour(QUEUE)
    async def test_defer_has_defaults(self, queue: Queue) -> None:
        job = await queue.job(await queue.defer("task"))
        assert (job.queue, job.priority, job.lock, job.queueing_lock) == ("default", 0, None, None)
        assert (job.task_kwargs, job.scheduled_at) == ({}, None)

    @behaviour(QUEUE)
    async def test_defer_in_a_while_is_by_the_server_s_clock(self, queue: Queue) -> None:
        job = await queue.job(await queue.defer(schedule_in_us=HOUR_US))
        assert job.scheduled_at is not None
        assert job.deferred_at is not None
        assert job.scheduled_at - job.deferred_at == timedelta(hours=1)

    @behaviour(QUEUE)
    async def test_defer_gives_ascending_ids(self, queue: Queue) -> None:
        ids = [await queue.defer() for _ in range(5)]
        assert ids == sorted(set(ids))
        assert await queue.ids() == ids

    @behaviour(QUEUE)
    async def test_batches_give_ids_in_the_order_given(self, queue: Queue) -> None:
        names = [f"task {n % 7} {n}" for n in range(300)]
        ids = await queue.defer_all(
            *(NewJob(name, queue=f"queue {n % 3}", priority=n % 5) for n, name in enumerate(names))
        )
        assert ids == sorted(set(ids))
        assert [(await queue.job(job_id)).task_name for job_id in ids[:30]] == names[:30]
        assert (await queue.job(ids[-1])).task_name == names[-1]

    @behaviour(QUEUE)
    async def test_batches_store_jobs_as_they_were_given(self, queue: Queue) -> None:
        at = datetime(2030, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=-9, minutes=-30)))
        ids = await queue.defer_all(
            NewJob("a", args='{"x": "é\\u0001 %s \\"\\\\"}', lock="l", queueing_lock="q"),
            NewJob("b", scheduled_at=at, priority=3),
            NewJob("c", schedule_in_us=HOUR_US, queue="other"),
        )
        one, two, three = [await queue.job(job_id) for job_id in ids]
        assert (one.task_kwargs, one.lock, one.queueing_lock) == ({"x": 'é\x01 %s "\\'}, "l", "q")
        assert (two.scheduled_at, two.priority, two.lock) == (at, 3, None)
        assert three.deferred_at is not None
        assert three.scheduled_at == three.deferred_at + timedelta(hours=1)

    @behaviour(QUEUE)
    async def test_what_observers_gave_a_job_comes_back_with_it_and_with_its_claim(
        self, queue: Queue
    ) -> None:
        meta = {"traceparent": '00-é " %s', "depth": [1, {}]}
        ids = [
            await queue.defer(meta=meta),
            await queue.defer(partition_key=queue.key or "k", meta={}),
            await queue.defer(),
            *await queue.defer_all(NewJob("alike", meta=meta), NewJob("alike", meta=meta)),
            *await queue.defer_all(NewJob("a", meta=meta), NewJob("b"), NewJob("c", meta={"x": 1})),
        ]
        expected = [meta, {}, None, meta, meta, meta, None, {"x": 1}]
        assert [(await queue.job(job_id)).meta for job_id in ids] == expected
        claimed = {job.id: job.meta for job in await queue.claim_jobs(await queue.worker())}
        assert [claimed[job_id] for job_id in ids] == expected

    @behaviour(QUEUE)
    async def test_batches_may_be_empty(self, queue: Queue) -> None:
        assert await queue.defer_all() == []

    @behaviour(QUEUE)
    async def test_batches_may_be_large(self, queue: Queue) -> None:
        """More jobs than one statement takes are still inserted all or none, in order."""
        new = [NewJob("task", args=f'{{"n": {n}}}') for n in range(defer.ROWS_PER_STATEMENT + 10)]
        ids = await queue.defer_all(*new)
        assert ids == sorted(set(ids))
        assert len(ids) == len(new)
        assert (await queue.job(ids[-1])).task_kwargs == {"n": len(new) - 1}

    @behaviour(QUEUE)
    async def test_ids_follow_the_order_given_and_not_that_of_queueing_locks(
        self, queue: Queue
    ) -> None:
        """Although rows go in by queueing lock, so that batches do not deadlock."""
        locks = ["b", "c", None, "a"]
        ids = await queue.defer_all(*(NewJob("task", queueing_lock=each) for each in locks))
        assert ids == sorted(ids)
        assert [(await queue.job(each)).queueing_lock for each in ids] == locks

    @behaviour(QUEUE)
    async def test_queueing_locks_allow_one_waiting_job(self, queue: Queue) -> None:
        job_id = await queue.defer(queueing_lock="q")
        with pytest.raises(errors.AlreadyEnqueued):
            await queue.defer(queueing_lock="q")
        await queue.defer(queueing_lock="another")
        assert len(await queue.ids()) == 2
        assert await queue.ids(queueing_lock="q") == [job_id]

    @behaviour(QUEUE)
    async def test_queueing_locks_are_free_once_the_job_runs(self, queue: Queue) -> None:
        worker = await queue.worker()
        await queue.defer(queueing_lock="q")
        await queue.claim_one(worker)
        await queue.defer(queueing_lock="q")
        assert sorted((await queue.statuses()).values()) == ["doing", "todo"]

    @pytest.mark.parametrize("where", ["waiting", "twice in the batch"])
    @behaviour(QUEUE)
    async def test_batches_with_a_clash_insert_nothing(self, queue: Queue, where: str) -> None:
        before = [await queue.defer(queueing_lock="q")] if where == "waiting" else []
        batch = [NewJob("a"), NewJob("b", queueing_lock="q"), NewJob("c")]
        if where != "waiting":
            batch.append(NewJob("d", queueing_lock="q"))
        with pytest.raises(errors.AlreadyEnqueued):
            await queue.defer_all(*batch)
        assert await queue.ids() == before

    @behaviour(QUEUE)
    async def test_clashes_leave_the_transaction_usable(self, queue: Queue) -> None:
        """Jobs can still be deferred in it, and are committed."""
        await queue.defer(queueing_lock="q")
        async with entered(queue.db.session(transaction=True)) as session:
            with pytest.raises(errors.AlreadyEnqueued):
                await session.flow(queue.defer_flow(queueing_lock="q"))
            batch = [queue.placed(NewJob("a")), queue.placed(NewJob("b", queueing_lock="q"))]
            with pytest.raises(errors.AlreadyEnqueued):
                await session.flow(defer.defer_jobs(batch))
            await session.flow(queue.defer_flow("afterwards"))
        assert len(await queue.ids()) == 2
        assert len(await queue.ids(task="afterwards")) == 1

    @pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "autocommit"])
    @behaviour(QUEUE)
    async def test_large_batches_for_a_caller_are_all_or_none(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch, *, transaction: bool
    ) -> None:
        """Although the caller goes on and commits what was done before and after the clash."""
        monkeypatch.setattr(defer, "ROWS_PER_STATEMENT", 2)
        await queue.defer(queueing_lock="q")
        free = [NewJob(name) for name in "abc"]
        async with entered(queue.db.session(transaction=transaction)) as session:
            with pytest.raises(errors.AlreadyEnqueued):
                await session.flow(queue.defer_all_flow(*free, NewJob("d", queueing_lock="q")))
            ids = await session.flow(queue.defer_all_flow(*free))
        assert ids == sorted(ids)
        assert await queue.task_names() == ["task", "a", "b", "c"]

    @behaviour(QUEUE)
    async def test_large_batches_that_the_database_refuses_leave_nothing_in_a_transaction(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is usable afterwards, as the statement that failed is undone with the others."""
        monkeypatch.setattr(defer, "ROWS_PER_STATEMENT", 2)
        batch = [NewJob("a"), NewJob("b"), NewJob("c", args='{"x": "a\\u0000b"}')]
        async with entered(queue.db.session(transaction=True)) as session:
            await session.flow(queue.defer_flow("before"))
            with pytest.raises(errors.InvalidArguments):
                await session.flow(queue.defer_all_flow(*batch))
            await session.flow(queue.defer_flow("after"))
        assert await queue.task_names() == ["before", "after"]

    @behaviour(3, QUEUE)
    async def test_jobs_of_a_transaction_that_fails_are_not_there(self, queue: Queue) -> None:
        with pytest.raises(ZeroDivisionError):
            async with entered(queue.db.session(transaction=True)) as session:
                await session.flow(queue.defer_flow())
                raise ZeroDivisionError
        assert await queue.ids() == []

    @behaviour(3, QUEUE)
    async def test_jobs_of_a_transaction_are_there_when_it_ends(self, queue: Queue) -> None:
        async with entered(queue.db.session(transaction=True)) as session:
            job_id = await session.flow(queue.defer_flow())
        assert await queue.ids() == [job_id]

    @pytest.mark.parametrize(
        "args",
        ['{"x": "a\\u0000b"}', '{"x": NaN}', "{", "[1]"],
        ids=["NUL", "NaN", "not JSON", "not an object"],
    )
    @behaviour(6, QUEUE)
    async def test_arguments_that_cannot_be_stored_are_refused(
        self, queue: Queue, args: str
    ) -> None:
        """By an error of the tree, alone and in a batch, and nothing is inserted."""
        with pytest.raises((errors.InvalidArguments, errors.ConnectorException)):
            await queue.defer(args=args)
        with pytest.raises((errors.InvalidArguments, errors.ConnectorException)):
            await queue.defer_all(NewJob("a"), NewJob("b", args=args))
        assert await queue.ids() == []

    @behaviour(QUEUE)
    async def test_arguments_may_be_a_megabyte(self, queue: Queue) -> None:
        text = "é" * 500_000
        job_id = await queue.defer(args=queue.dumps({"text": text}))
        assert (await queue.job(job_id)).task_kwargs == {"text": text}
