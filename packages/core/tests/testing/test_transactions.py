"""Transactions in memory: atomic, invisible until they commit, and waiting where others would."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from procrastinate import drive, json_codec
from procrastinate.drive import Request
from procrastinate.errors import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.job import NewJob
from procrastinate.storage import claim, defer
from procrastinate.testing._engine import store

if TYPE_CHECKING:
    from conftest import MemoryQueue


def test_a_transaction_that_raises_leaves_nothing(queue: MemoryQueue) -> None:
    kept = queue.defer()
    with pytest.raises(ZeroDivisionError), queue.sync.session(transaction=True) as executor:
        drive.run(defer.defer_job(NewJob("lost")), executor, queue.sql)
        executor.execute(queue.sql(Request("delete_todo", ids=[kept])))
        raise ZeroDivisionError
    assert queue.statuses() == {kept: "todo"}


def test_others_see_a_transaction_only_once_it_commits(queue: MemoryQueue) -> None:
    with queue.sync.session(transaction=True) as executor:
        job_id = drive.run(defer.defer_job(NewJob("task")), executor, queue.sql)
        assert len(executor.execute(queue.sql(Request("get_job", id=job_id)))) == 1
        assert queue.claimed() == []
        other = queue.defer()  # and they are not held up by it
    assert queue.claimed() == [job_id, other]


def test_a_failed_statement_spoils_its_transaction(queue: MemoryQueue) -> None:
    first = queue.defer(queueing_lock="q")
    queue.cancel(first)
    queue.defer(queueing_lock="q")
    again = queue.sql(
        Request(
            "retry_jobs_by_hand",
            ids=[first],
            retry_at=None,
            priority=None,
            queue_name=None,
            lock=None,
        )
    )
    with queue.sync.session(transaction=True) as executor:
        drive.run(defer.defer_job(NewJob("lost")), executor, queue.sql)
        with pytest.raises(UniqueViolation) as caught:
            executor.execute(again)
        with pytest.raises(ConnectorException) as aborted:
            executor.execute(queue.sql(Request("ping")))
    assert caught.value.constraint == "procrastinate_jobs_queueing_lock_key"
    assert (caught.value.sqlstate, aborted.value.sqlstate) == ("23505", "25P02")
    assert queue.statuses() == {1: "cancelled", 2: "todo"}


def test_without_a_transaction_every_statement_commits_by_itself(queue: MemoryQueue) -> None:
    with queue.sync.session() as executor:
        job_id = drive.run(defer.defer_job(NewJob("task")), executor, queue.sql)
        assert queue.statuses() == {job_id: "todo"}


def test_a_claim_skips_what_another_transaction_has_claimed(queue: MemoryQueue) -> None:
    first, second = queue.defer(), queue.defer()
    query = queue.sql(
        Request(
            "claim_full_of_several",
            served=None,
            scanned=1,
            each=1,
            above=-1,
            queue_names=["default"],
            lows=[0],
            worker_id=2,
            limit=1,
        )
    )
    with queue.sync.session(transaction=True) as executor:
        assert executor.execute(query)[1][0] == first
        assert queue.claimed() == [second]


def test_a_release_waits_for_a_claim_that_parks_behind_the_lock(queue: MemoryQueue) -> None:
    """It would pass the line by, and leave it waiting for nobody."""
    queue.defer(lock="l")
    (job,) = queue.claim(limit=1).jobs
    second = queue.defer(lock="l")
    scan = Scan(Kind.FULL, 1, ("default",), with_locks=True)
    parking = claim.claim(scan, worker_id=2, loads=json_codec.loads)
    release = threading.Thread(target=queue.finish, args=[job])
    with queue.sync.session(transaction=True) as executor:
        assert drive.run(parking, executor, queue.sql).parked == 1
        release.start()
        release.join(0.1)
        assert release.is_alive()
    release.join(10)
    assert queue.claimed() == [second]


def twin_in_thread(queue: MemoryQueue) -> tuple[threading.Thread, list[object], threading.Event]:
    """A thread that defers a job with the queueing lock "q", and where it tells what came of it."""
    outcome: list[object] = []
    done = threading.Event()

    def twin() -> None:
        try:
            outcome.append(queue.defer(queueing_lock="q"))
        except AlreadyEnqueued as exc:
            outcome.append(type(exc))
        done.set()

    return threading.Thread(target=twin), outcome, done


@pytest.mark.parametrize("commit", [True, False])
def test_a_twin_in_an_open_transaction_is_waited_for(queue: MemoryQueue, *, commit: bool) -> None:
    thread, outcome, done = twin_in_thread(queue)
    try:
        with queue.sync.session(transaction=True) as executor:
            drive.run(defer.defer_job(NewJob("task", queueing_lock="q")), executor, queue.sql)
            thread.start()
            assert not done.wait(0.1)
            if not commit:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    thread.join(10)
    assert outcome == [AlreadyEnqueued if commit else 2]


async def test_a_coroutine_waits_for_another_transaction_without_blocking_the_loop(
    queue: MemoryQueue,
) -> None:
    new = NewJob("task", queueing_lock="q")

    async def twin() -> int:
        async with queue.connector.session_async() as executor:
            return await drive.run_async(defer.defer_job(new), executor, queue.sql)

    async with queue.connector.session_async(transaction=True) as executor:
        await drive.run_async(defer.defer_job(new), executor, queue.sql)
        waiting = asyncio.create_task(twin())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(AlreadyEnqueued):
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_savepoint_undoes_is_waited_for_no_longer(queue: MemoryQueue, *, kept: bool) -> None:
    """Although its transaction goes on; what is kept is waited for until the commit."""
    thread, outcome, done = twin_in_thread(queue)
    with queue.sync.session(transaction=True) as executor:
        executor.execute(queue.sql(Request("set_savepoint")))
        drive.run(defer.defer_job(NewJob("task", queueing_lock="q")), executor, queue.sql)
        thread.start()
        assert not done.wait(0.1)
        executor.execute(queue.sql(Request("drop_savepoint" if kept else "return_to_savepoint")))
        assert done.wait(0.1 if kept else 10) is not kept
    thread.join(10)
    assert outcome == [AlreadyEnqueued if kept else 2]


async def test_what_a_savepoint_undoes_wakes_nobody(queue: MemoryQueue) -> None:
    async with queue.connector.listen(["procrastinate_jobs"]) as heard:
        with queue.sync.session(transaction=True) as executor:
            drive.run(defer.defer_job(NewJob("task", queue="before")), executor, queue.sql)
            executor.execute(queue.sql(Request("set_savepoint")))
            drive.run(defer.defer_job(NewJob("task", queue="undone")), executor, queue.sql)
            executor.execute(queue.sql(Request("return_to_savepoint")))
            drive.run(defer.defer_job(NewJob("task", queue="after")), executor, queue.sql)
        assert [(await anext(heard)).payload for _ in range(2)] == ["before", "after"]


def test_a_savepoint_within_another_is_undone_with_it(queue: MemoryQueue) -> None:
    with queue.sync.session(transaction=True) as executor:
        drive.run(defer.defer_job(NewJob("task")), executor, queue.sql)
        for statement in (
            "set_savepoint",
            "set_savepoint",
            None,
            "drop_savepoint",
            None,
            "return_to_savepoint",
        ):
            if statement is None:
                drive.run(defer.defer_job(NewJob("task")), executor, queue.sql)
            else:
                executor.execute(queue.sql(Request(statement)))
    assert queue.statuses() == {1: "todo"}


def test_code_that_waits_for_itself_gets_an_error_in_time(
    queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.05)
    with queue.sync.session(transaction=True) as executor:
        drive.run(defer.defer_job(NewJob("task", queueing_lock="q")), executor, queue.sql)
        with pytest.raises(ConnectorException, match="kept a row locked") as caught:
            queue.defer(queueing_lock="q")
    assert caught.value.sqlstate == "55P03"
    assert queue.statuses() == {1: "todo"}


def test_threads_share_a_connector(queue: MemoryQueue) -> None:
    barrier = threading.Barrier(4)
    claimed: list[int] = []

    def work() -> None:
        barrier.wait()
        for _ in range(25):
            queue.defer()
            claimed.extend(queue.claimed(limit=1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 101))
