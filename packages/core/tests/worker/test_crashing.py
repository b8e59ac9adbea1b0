"""Workers that are killed, servers that go away: nothing is lost, nothing finished runs again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import Status
from procrastinate.model.liveness import blame

APP = Path(__file__).with_name("crash_app.py")
#: Not much shorter: nobody may be taken for dead because a busy machine is late with a beat.
QUICK = {"update_heartbeat_interval": 0.2, "stalled_worker_timeout": 2.0}


def start(dsn: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(APP), dsn, json.dumps({**QUICK, **options})],
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return value


def test_a_worker_killed_among_5000_jobs_loses_none_and_repeats_no_finished_one(
    sync_app: procrastinate.App, dsn: str, query: Callable[..., Any]
) -> None:
    sync_app.configure_task("noop").batch_defer(*[{"n": n} for n in range(5000)])

    def finished() -> int:
        return int(
            query("select count(*) from procrastinate_jobs where status = 'succeeded'")[0][0]
        )

    worker = start(dsn, concurrency=20)
    wait_for(lambda: finished() > 1000)
    worker.kill()
    worker.wait()
    before = dict(
        query("select id, finished_at from procrastinate_jobs where status = 'succeeded'")
    )
    assert len(before) > 1000

    start_again = start(dsn, concurrency=20)
    wait_for(lambda: finished() == 5000)
    start_again.terminate()
    start_again.wait(20)

    jobs = query("select id, status::text, attempts, finished_at from procrastinate_jobs")
    assert {status for _, status, _, _ in jobs} == {"succeeded"}
    assert {id: at for id, _, _, at in jobs if id in before} == before
    assert {attempts for id, _, attempts, _ in jobs if id in before} == {1}
    assert {attempts for _, _, attempts, _ in jobs} <= {1, 2}


def test_a_job_that_keeps_killing_its_worker_fails_with_the_reason(
    sync_app: procrastinate.App, dsn: str
) -> None:
    job_id = sync_app.configure_task("suicide").defer()
    for _ in range(blame.CRASH_LIMIT):
        assert start(dsn).wait(30) == 9
    worker = start(dsn)
    wait_for(lambda: sync_app.job_manager.get_job_status(job_id) is Status.FAILED)
    worker.terminate()
    worker.wait(20)

    job = sync_app.job_manager.get_job(job_id)
    assert job.attempts == blame.CRASH_LIMIT
    assert f"died {blame.CRASH_LIMIT} times" in job.errors[-1]["message"]


async def test_an_open_transaction_with_a_twin_holds_up_the_recovery_of_no_other_job(
    app: procrastinate.App, dsn: str, query: Callable[..., Any], working: Any, until: Any
) -> None:
    @app.task(name="noop")
    async def noop() -> None: ...

    together = noop.configure(partition_key="k")
    ids = await together.batch_defer_async({}, {}, {})
    query("update procrastinate_jobs set queueing_lock = 'q' where id = %s", ids[1])
    query("update procrastinate_jobs set status = 'doing', attempts = 1, worker_id = 10^6")
    holder = psycopg2.connect(dsn)
    twin = noop.configure(queueing_lock="q", partition_key="k", connection=holder).defer()

    def statuses() -> list[str]:
        return [row[0] for row in query("select status::text from procrastinate_jobs order by id")]

    async with working(app, **QUICK):
        await until(lambda: statuses() == ["succeeded", "doing", "succeeded"], 30)
        holder.commit()
        holder.close()
        await until(lambda: statuses()[1] in ("cancelled", "succeeded"), 30)
        await until(lambda: statuses()[3] == "succeeded", 30)
    assert twin > ids[2]


def test_a_killed_workers_lock_is_passed_on(sync_app: procrastinate.App, dsn: str) -> None:
    first = sync_app.configure_task("nap", lock="L").defer(seconds=1000)
    worker = start(dsn)
    wait_for(lambda: sync_app.job_manager.get_job_status(first) is Status.DOING)
    second = sync_app.configure_task("nap", lock="L").defer(seconds=0)
    worker.kill()
    worker.wait()
    sync_app.job_manager.list_jobs()

    other = start(dsn, concurrency=2)
    wait_for(lambda: sync_app.job_manager.get_job(first).attempts == 2)
    assert sync_app.job_manager.get_job_status(second) is Status.TODO  # its turn is after the first
    other.kill()
    other.wait()


async def test_the_server_closing_every_connection_costs_no_job(
    app: procrastinate.App,
    dsn: str,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    done: set[int] = set()
    connector = procrastinate.AiopgConnector(dsn=dsn, application_name="the_worker")

    @app.task
    async def work(n: int) -> None:
        await asyncio.sleep(0.001)
        done.add(n)

    await work.batch_defer_async(*[{"n": n} for n in range(1000)])
    async with (
        app.with_connector(connector).open_async() as worker_app,
        working(worker_app, concurrency=10, fetch_job_polling_interval=1.0),
    ):
        for cut in range(1, 6):
            await until(lambda cut=cut: len(done) >= 100 * cut, 30)
            query(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'the_worker' and datname = current_database()"
            )
        await until(lambda: len(done) == 1000, 30)
        # LISTEN is in force again: a new job starts without a poll in reach.
        await work.defer_async(n=1000)
        await until(lambda: 1000 in done)

    jobs = await app.job_manager.list_jobs_async(limit=2000)
    assert {job.status for job in jobs} == {Status.SUCCEEDED}
    assert len(jobs) == 1001


async def test_a_claim_whose_answer_was_lost_is_given_back(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """The connection breaks after the server has committed a claim: its jobs are found again."""
    done: list[int] = []

    @app.task
    async def work(n: int) -> None:
        done.append(n)

    gateway = app._gateway
    original = gateway.run_async
    lost = []

    async def losing(flow: Any, **options: Any) -> Any:
        result = await original(flow, **options)
        if flow.__name__ == "claim" and result.jobs and not lost:
            lost.extend(result.jobs)
            raise procrastinate.errors.ConnectionLost("cut while the answer was on its way")
        return result

    gateway.run_async = losing  # type: ignore[method-assign]
    ids = await work.batch_defer_async(*[{"n": n} for n in range(5)])
    async with working(app, concurrency=5):
        await until(lambda: sorted(done) == [0, 1, 2, 3, 4])

    assert len(lost) == 5
    jobs = await app.job_manager.list_jobs_async(id=ids)
    assert {(job.status, job.attempts) for job in jobs} == {(Status.SUCCEEDED, 1)}


async def test_a_result_of_a_worker_taken_for_dead_is_not_written(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> None:
        began.set()
        await go.wait()

    job_id = await work.defer_async()
    async with working(app):
        await asyncio.wait_for(began.wait(), 10)
        # Somebody else has recovered the job meanwhile, and runs its second attempt.
        query("insert into procrastinate_workers (id, name) values (999, 'somebody')")
        query("update procrastinate_jobs set attempts = 2, lease = 2, crashes = 1, worker_id = 999")
        go.set()
        await until(lambda: "lost the job: worker 999 runs it now" in caplog.text)
        job = await app.job_manager.get_job_async(job_id)

    assert (job.status, job.attempts, job.finished_at) == (Status.DOING, 2, None)


async def test_results_wait_while_the_database_is_away(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
    procrastinate_dsn: str,
) -> None:
    began, go = threading.Event(), threading.Event()

    @app.task
    def work() -> None:
        began.set()
        go.wait(20)

    job_id = await work.defer_async()
    ((name,),) = query("select current_database()")
    elsewhere = psycopg2.connect(procrastinate_dsn, dbname="postgres")
    elsewhere.autocommit = True
    async with working(app, update_heartbeat_interval=0.2):
        await asyncio.to_thread(began.wait, 10)
        with elsewhere.cursor() as cursor:
            cursor.execute(f'alter database "{name}" with allow_connections false')
        query(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        go.set()
        await asyncio.sleep(0.5)
        assert query("select status::text from procrastinate_jobs") == [("doing",)]
        with elsewhere.cursor() as cursor:
            cursor.execute(f'alter database "{name}" with allow_connections true')
        elsewhere.close()
        await until(
            lambda: query("select status::text from procrastinate_jobs") == [("succeeded",)]
        )

    assert (await app.job_manager.get_job_async(job_id)).attempts == 1
