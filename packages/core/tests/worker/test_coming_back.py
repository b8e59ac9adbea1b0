"""Jobs that a worker loses without knowing and gets again; and who must not wait for whom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import psycopg2
import pytest

import procrastinate
from procrastinate import Status
from procrastinate.errors import ConnectionLost
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import Requeued
from procrastinate.model.job import Job
from procrastinate.model.partitions import ONE
from procrastinate.storage import claim as flows
from procrastinate.storage import workers
from procrastinate.storage.finish import Ended, Settled
from procrastinate.worker import worker as worker_module
from procrastinate.worker.claiming import claiming
from procrastinate.worker.claiming.fetcher import Fetcher
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.shift import ending
from procrastinate.worker.shift import shift as shift_module
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.writer import Writer

QUICK = {"update_heartbeat_interval": 0.1, "stalled_worker_timeout": 0.5}


async def _hands_nothing_over(*_: object) -> None:
    return None


async def test_a_job_that_comes_back_while_it_still_runs_is_not_run_beside_itself(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    """Taken for dead, a worker loses its job; it may be the one to claim it again."""
    runs: list[int] = []
    go = asyncio.Event()

    @app.task(name="work")
    async def work() -> None:
        runs.append(1)
        await go.wait()

    job_id = await work.defer_async()
    async with working(app, concurrency=5, fetch_job_polling_interval=0.05):
        await until(lambda: runs)
        query("update procrastinate_jobs set status = 'todo', worker_id = null, crashes = 1")
        await until(lambda: query("select attempts from procrastinate_jobs") == [(2,)])
        go.set()
        await until(lambda: query("select status from procrastinate_jobs") == [("succeeded",)])

    job = await app.job_manager.get_job_async(job_id)
    assert (runs, job.status, job.attempts) == ([1], Status.SUCCEEDED, 2)


@pytest.mark.parametrize("delete_jobs", ["successful", "always"])
async def test_a_job_of_a_dead_worker_that_ends_is_deleted_as_asked(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
    delete_jobs: str,
) -> None:
    job_id = await app.configure_task("lost", lock="x").defer_async()
    query(
        "update procrastinate_jobs set status = 'doing', worker_id = 0, started_at = now(),"
        " attempts = 1, abort_requested = true"
    )
    async with working(app, delete_jobs=delete_jobs, **QUICK):
        await until(lambda: not query("select 1 from procrastinate_jobs where status = 'doing'"))
    kept = [] if delete_jobs == "always" else [(job_id, "aborted")]
    assert query("select id, status::text from procrastinate_jobs") == kept


async def test_a_job_lost_and_claimed_again_within_one_claim_runs_once(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the two scans of a claim, others take the worker for dead and recover its jobs."""
    runs: list[int] = []

    @app.task(name="work")
    async def work(n: int) -> None:
        runs.append(n)

    original = app._gateway.run_async
    lost: list[Job] = []

    async def losing(flow: Any, **options: Any) -> Any:
        result = await original(flow, **options)
        if flow.__name__ == "claim" and result.jobs and not lost:
            lost.extend(result.jobs)
            query("update procrastinate_jobs set status = 'todo', worker_id = null")
            return replace(result, left=1)  # so that the claim goes on, with those that have a lock
        return result

    monkeypatch.setattr(app._gateway, "run_async", losing)
    ids = await work.batch_defer_async(*[{"n": n} for n in range(3)])
    async with working(app, concurrency=10):
        await until(
            lambda: (
                query("select distinct status::text from procrastinate_jobs") == [("succeeded",)]
            )
        )

    jobs = await app.job_manager.list_jobs_async(id=ids)
    assert len(lost) == 3
    assert sorted(runs) == [0, 1, 2]
    assert {job.attempts for job in jobs} == {2}


async def test_a_retry_claimed_again_before_its_write_is_confirmed_is_a_run_of_its_own(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database has the retry, and gives the job out, before the writer hears of it."""

    @app.task(name="flaky", retry=2, pass_context=True)
    async def flaky(context: procrastinate.JobContext) -> None:
        if context.job.attempts < 3:
            raise ValueError(context.job.attempts)

    original = app._gateway.run_async

    async def slow_to_answer(flow: Any, **options: Any) -> Any:
        result = await original(flow, **options)
        if flow.__name__ == "settle":
            await until(lambda: query("select status::text from procrastinate_jobs") != [("todo",)])
            await asyncio.sleep(0.05)
        return result

    monkeypatch.setattr(app._gateway, "run_async", slow_to_answer)
    job_id = await flaky.defer_async()
    async with working(app, concurrency=5):
        await until(
            lambda: query("select status::text from procrastinate_jobs") == [("succeeded",)]
        )

    job = await app.job_manager.get_job_async(job_id)
    assert job.attempts == 3
    assert [(error["attempt"], error["message"]) for error in job.errors] == [(1, "1"), (2, "2")]


class Recorder:
    """A gateway that notes the lease that each retry is written for."""

    def __init__(self) -> None:
        self.leases: list[Any] = []

    async def run_async(self, flow: Any, **options: Any) -> Settled:
        query = next(flow)
        flow.close()
        self.leases += query.params["leases"]
        return Settled(dict.fromkeys(query.params["ids"], Status.TODO))


async def test_two_unwritten_retries_of_one_job_are_both_written(
    until: Callable[..., Any],
) -> None:
    """The first one's answer was lost, the job was claimed again, and its next attempt failed."""
    gateway = Recorder()
    writer = Writer(
        gateway,  # type: ignore[arg-type]
        1,
        "never",
        Places(ONE),
        Outages(cast(Any, None), ONE),
        on_written=lambda: None,
        on_requeued=lambda _: None,
        on_released=lambda *_: None,
        hand_over=_hands_nothing_over,
        echoes=Echoes(),
        on_lost=lambda: None,
    )
    retry = Requeued(when=timedelta(0))
    for lease in (1, 2):
        job = Job(7, Status.DOING, "q", "task", {}, lease=lease)
        writer.add(Ended(job, retry, 0.0, 0.0))
    writing = asyncio.create_task(writer.run())
    await until(lambda: len(writer) == 0)
    writing.cancel()

    assert gateway.leases == [1, 2]


async def test_a_twin_in_a_users_open_transaction_holds_up_one_retry_and_nothing_else(
    app: procrastinate.App,
    sync_app: procrastinate.App,
    dsn: str,
    working: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    go = asyncio.Event()
    done: list[int] = []

    @app.task(name="flaky", retry=True)
    async def flaky() -> None:
        await go.wait()
        raise ValueError

    @app.task(name="fine")
    async def fine(n: int) -> None:
        done.append(n)

    flaky_id = await flaky.configure(queueing_lock="twin").defer_async()
    users = psycopg2.connect(dsn)
    async with working(app, concurrency=5):
        while await app.job_manager.get_job_status_async(flaky_id) is not Status.DOING:
            await asyncio.sleep(0.01)
        sync_app.configure_task(
            "fine", queueing_lock="twin", schedule_in={"hours": 1}, connection=users
        ).defer(n=0)
        go.set()
        ids = [await fine.defer_async(n=n) for n in range(1, 4)]
        async with asyncio.timeout(10):
            for job_id in ids:
                while await app.job_manager.get_job_status_async(job_id) is not Status.SUCCEEDED:
                    await asyncio.sleep(0.01)
        assert await app.job_manager.get_job_status_async(flaky_id) is Status.DOING
        users.commit()
        users.close()
        async with asyncio.timeout(10):
            while await app.job_manager.get_job_status_async(flaky_id) is not Status.CANCELLED:
                await asyncio.sleep(0.01)

    assert sorted(done) == [1, 2, 3]


@pytest.mark.one_partition("its flows are those of one partition")
@pytest.mark.parametrize("served", [["a", "b"], None])
async def test_a_lock_runs_in_order_through_queues_that_are_not_scanned(
    app: procrastinate.App, served: list[str] | None
) -> None:
    first = await app.configure_task("noop", queue="a", lock="L").defer_async()
    second = await app.configure_task("noop", queue="b", lock="L").defer_async()
    gateway = app._gateway
    worker_id = await gateway.run_async(workers.register_worker("w"))

    def claim(*queues: str) -> Any:
        return flows.claim(
            Scan(Kind.LEVEL, 10, queues, priority=0, lows=(0,) * len(queues), with_locks=True),
            served=served,
            worker_id=worker_id,
            loads=app.connector.json_loads,
        )

    only_b = await gateway.run_async(claim("b"))
    both = await gateway.run_async(claim("a", "b"))

    assert (only_b.jobs, only_b.undecided) == ([], 1)
    assert ([job.id for job in both.jobs], both.parked) == ([first], 1)
    assert await app.job_manager.get_job_status_async(second) is Status.TODO


@pytest.mark.one_partition("its flows are those of one partition")
async def test_a_worker_of_all_queues_knows_what_is_parked_in_queues_that_it_never_saw(
    app: procrastinate.App, query: Callable[..., Any]
) -> None:
    first = await app.configure_task("noop", queue="a", lock="L").defer_async()
    await app.configure_task("noop", queue="b", lock="L").defer_async()
    query("update procrastinate_jobs set hold = 'lock' where id = %s", first)
    gateway = app._gateway
    fetcher = Fetcher(gateway, 1, None)

    assert await gateway.run_async(flows.ready_queues()) == ["b"]
    assert (await fetcher.claim(10, known=())).jobs == []


async def test_a_lock_is_passed_on_without_notifications_and_without_waiting_for_the_next_poll(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    order: list[int] = []

    @app.task(name="work", lock="L")
    async def work(n: int) -> None:
        order.append(n)

    await work.batch_defer_async(*[{"n": n} for n in range(10)])
    async with working(app, listen_notify=False, fetch_job_polling_interval=60.0):
        await until(lambda: len(order) == 10, 20)

    assert order == list(range(10))


@pytest.mark.parametrize("swallowed", ["check_schema", "claim", "unregister_worker"])
async def test_a_database_that_never_answers_does_not_keep_a_worker_from_ending(
    app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    swallowed: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for module in (claiming, ending, shift_module, worker_module):
        monkeypatch.setattr(module, "LAST_CALL_MAY_TAKE", 0.1)
    caplog.set_level(logging.INFO)
    original = app._gateway.run_async
    reached = asyncio.Event()

    async def swallowing(flow: Any, **options: Any) -> Any:
        if flow.__name__ == swallowed:
            reached.set()
            flow.close()
            await asyncio.Event().wait()
        return await original(flow, **options)

    monkeypatch.setattr(app._gateway, "run_async", swallowing)
    await app.configure_task("noop").defer_async()
    running = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
    if swallowed != "unregister_worker":
        await asyncio.wait_for(reached.wait(), 10)
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=20)

    assert ended == {running}
    assert running.cancelled()


# --- The last statements of a worker, over a connection that breaks -------------------------------


async def _breaks() -> None:
    raise ConnectionLost("cut")


async def test_a_worker_that_leaves_removes_its_row_over_a_connection_that_breaks(
    any_app: procrastinate.App, once: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = once(any_app, "unregister_worker", _breaks)
    await any_app.run_worker_async(wait=False, install_signal_handlers=False)
    assert runs() == 2
    assert await any_app.job_manager.list_workers_async() == []
    assert "could not remove its row" not in caplog.text


async def test_a_row_that_a_worker_cannot_remove_at_its_second_try_either_is_told_of(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, runs = any_app._gateway.run_async, []

    async def breaking(flow: Any, **options: Any) -> Any:
        if flow.__name__ == "unregister_worker":
            runs.append(flow.close())
            await _breaks()
        return await run(flow, **options)

    monkeypatch.setattr(any_app._gateway, "run_async", breaking)
    await any_app.run_worker_async(wait=False, install_signal_handlers=False)
    assert len(runs) == 2
    assert "could not remove its row from procrastinate_workers" in caplog.text


async def test_jobs_of_a_lost_answer_are_handed_back_over_a_connection_that_breaks(
    any_app: procrastinate.App, once: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = any_app.worker(install_signal_handlers=False)
    job_id = await any_app.configure_task("noop").defer_async()
    runs = once(any_app, "held_jobs", _breaks)
    run = any_app._gateway.run_async

    async def losing(flow: Any, **options: Any) -> Any:
        answer = await run(flow, **options)
        if flow.__name__ == "claim" and answer.jobs:
            worker.stop()
            await asyncio.sleep(0)
            raise ConnectionLost("no answer")
        return answer

    monkeypatch.setattr(any_app._gateway, "run_async", losing)
    await asyncio.wait_for(worker.run(), 20)
    assert runs() == 2
    job = await any_app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts) == (Status.TODO, 0)
    assert await any_app.job_manager.list_workers_async() == []


async def test_a_last_statement_whose_connection_the_server_ends_is_sent_again(
    app: procrastinate.App,
    query: Callable[..., Any],
    removals: Callable[[str], Callable[[], int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    removed = removals("procrastinate_workers")
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert removed() == 2
    assert query("select id from procrastinate_workers") == []
    assert "could not remove its row" not in caplog.text
