"""An app on the connector: workers, plain calls, pools of the application's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
import uvloop

import procrastinate
from procrastinate import errors
from procrastinate.connector import Query
from procrastinate.loop_thread import LoopThread
from procrastinate_asyncpg import AsyncpgConnector


def with_task(app: procrastinate.App) -> tuple[procrastinate.App, list[int]]:
    done: list[int] = []

    @app.task(name="add", pass_context=False)
    async def add(n: int) -> None:
        done.append(n)

    @app.task(name="add_in_thread")
    def add_in_thread(n: int) -> None:
        done.append(n)

    return app, done


async def work_off(app: procrastinate.App, **options: Any) -> None:
    options = {"concurrency": 5, "wait": False, "install_signal_handlers": False} | options
    await app.run_worker_async(**options)


async def test_a_worker_runs_jobs(app: procrastinate.App) -> None:
    with_task(app)
    app, done = with_task(procrastinate.App(connector=app.connector))
    async with app.open_async():
        for n in range(20):
            await app.configure_task(("add", "add_in_thread")[n % 2]).defer_async(n=n)
        await work_off(app)
        assert sorted(done) == list(range(20))
        jobs = await app.job_manager.list_jobs_async()
    assert {job.status for job in jobs} == {procrastinate.Status.SUCCEEDED}


async def test_a_waiting_worker_hears_of_a_job(app: procrastinate.App) -> None:
    """Far sooner than it would look by itself."""
    heard = asyncio.Event()

    @app.task(name="hear")
    async def hear() -> None:
        heard.set()

    worker = asyncio.ensure_future(work_off(app, wait=True, fetch_job_polling_interval=3600.0))
    await app.configure_task("hear").defer_async()
    await asyncio.wait_for(heard.wait(), 60)
    await app.configure_task("hear").defer_async()
    worker.cancel()
    await asyncio.wait([worker])


async def test_a_worker_runs_on_the_application_s_pool(
    app: procrastinate.App, pool: asyncpg.Pool, procrastinate_dsn: str
) -> None:
    other, done = with_task(procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn)))
    async with other.open_async(pool):
        await other.configure_task("add").defer_async(n=1)
        await work_off(other)
    assert done == [1]
    assert not pool.is_closing()


async def test_a_worker_outlives_the_connections_of_the_application_s_pool(
    app: procrastinate.App, pool: asyncpg.Pool, procrastinate_dsn: str
) -> None:
    """As when the server restarts: the server ends all of them, three times, with jobs at work."""
    other = procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn))
    done: set[int] = set()
    all_done = asyncio.Event()
    total = 60

    @other.task(name="note", retry=procrastinate.RetryStrategy(max_attempts=5))
    async def note(n: int) -> None:
        if n % 20 == 10:
            await end_all_others(procrastinate_dsn)
        done.add(n)
        if len(done) == total:
            all_done.set()

    async with other.open_async(pool):
        await note.batch_defer_async(*[{"n": n} for n in range(total)])
        worker = asyncio.ensure_future(work_off(other, wait=True, fetch_job_polling_interval=1.0))
        heard = asyncio.ensure_future(all_done.wait())
        await asyncio.wait([worker, heard], timeout=120, return_when=asyncio.FIRST_COMPLETED)
        assert not worker.done(), worker
        assert done == set(range(total))
        worker.cancel()
        await asyncio.wait([worker])
        jobs = await other.job_manager.list_jobs_async()
    assert {job.status for job in jobs} == {procrastinate.Status.SUCCEEDED}


async def end_all_others(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("size", "arguments", "said"),
    [
        (2, lambda dsn: {"dsn": dsn}, r"2 connections \(max_size\).*takes 3: raise it to 3"),
        (4, lambda dsn: {}, "give AsyncpgConnector the same dsn="),
    ],
)
async def test_a_worker_refuses_a_pool_that_does_not_do(
    app: procrastinate.App,
    procrastinate_dsn: str,
    size: int,
    arguments: Callable[[str], dict[str, Any]],
    said: str,
) -> None:
    """With the sentence that says what to do. Jobs can be deferred through it all the same."""
    other, _ = with_task(
        procrastinate.App(connector=AsyncpgConnector(**arguments(procrastinate_dsn)))
    )
    async with (
        asyncpg.create_pool(procrastinate_dsn, min_size=1, max_size=size) as pool,
        other.open_async(pool),
    ):
        await other.configure_task("add").defer_async(n=1)
        with pytest.raises(errors.ConfigurationError, match=said):
            await work_off(other)


def make_closed_pool(dsn: str) -> Any:
    async def make() -> Any:
        pool = await asyncpg.create_pool(dsn, min_size=1, max_size=3)
        await pool.close()
        return pool

    return asyncio.run(make())


def make_pool_elsewhere(dsn: str) -> Any:
    async def make() -> Any:
        pool = await asyncpg.create_pool(dsn, min_size=0, max_size=3)
        POOLS.append(pool)
        return pool

    return asyncio.run(make())


POOLS: list[Any] = []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_closed_pool, "is closed"),
        (make_pool_elsewhere, "another event loop"),
        (lambda dsn: object(), "takes an asyncpg.Pool"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused(
    procrastinate_dsn: str, make: Callable[[str], Any], said: str
) -> None:
    pool = make(procrastinate_dsn)

    async def lend() -> None:
        await AsyncpgConnector().open_async(pool)

    with pytest.raises(errors.InvalidOption, match=said):
        asyncio.run(lend())


async def test_a_pool_for_plain_calls_is_refused(
    app: procrastinate.App, pool: asyncpg.Pool
) -> None:
    plain = procrastinate.App(connector=AsyncpgConnector())
    with pytest.raises(errors.InvalidOption, match="give it to open_async"):
        plain.open(pool)


async def test_plain_calls_work_on_a_running_loop_and_in_threads(app: procrastinate.App) -> None:
    """By at most two connections, whatever the number of threads."""
    app, _ = with_task(app)
    ids = [app.configure_task("add").defer(n=0)]
    more: list[int] = []

    def defer() -> None:
        more.extend(app.configure_task("add").defer(n=n) for n in range(5))

    threads = [threading.Thread(target=defer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len({*ids, *more}) == 41
    connections = app.job_manager.list_jobs()  # and reading, too
    assert len(connections) == 41


def test_a_plain_call_goes_to_the_loop_once(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each step of its session; also with a transaction, and with an error."""
    app = procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn))
    begun: list[Any] = []
    begin = LoopThread.begin
    with app.open():
        app.schema_manager.apply_schema()
        task = app.configure_task("task", queueing_lock="q")
        job_id = task.defer()
        monkeypatch.setattr(
            LoopThread, "begin", lambda self, call: (begun.append(call), begin(self, call))
        )
        with pytest.raises(errors.AlreadyEnqueued):
            task.defer()
        assert len(begun) == 1
        assert app.job_manager.cancel_job_by_id(job_id)
        in_transactions = len(begun)
        task.defer()
        assert len(begun) == in_transactions + 1
    assert in_transactions <= 3


def test_an_app_may_be_opened_for_plain_code_alone(procrastinate_dsn: str) -> None:
    app, _ = with_task(procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn)))
    with app.open():
        app.schema_manager.apply_schema()
        job_id = app.configure_task("add").defer(n=7)
        assert app.job_manager.get_job(job_id).task_kwargs == {"n": 7}
    with pytest.raises(errors.AppNotOpen):
        app.configure_task("add").defer(n=8)


@pytest.mark.parametrize("commits", [True, False])
async def test_a_job_is_deferred_in_the_caller_s_transaction(
    app: procrastinate.App, pool: asyncpg.Pool, commits: bool
) -> None:
    app, _ = with_task(app)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await app.configure_task("add", connection=connection).defer_async(n=1)
        assert await app.job_manager.list_jobs_async() == []
        await (transaction.commit() if commits else transaction.rollback())
    assert len(await app.job_manager.list_jobs_async()) == int(commits)


async def test_a_connection_given_back_to_its_pool_is_refused(
    app: procrastinate.App, pool: asyncpg.Pool
) -> None:
    app, _ = with_task(app)
    async with pool.acquire() as connection:
        pass
    with pytest.raises(errors.InvalidOption, match="given back to its pool, or it broke"):
        await app.configure_task("add", connection=connection).defer_async(n=1)


async def test_a_reset_of_the_owner_s_that_fails_is_logged(
    procrastinate_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(connection: object) -> None:
        raise ValueError("of the owner's own")

    connector = AsyncpgConnector(dsn=procrastinate_dsn)
    async with asyncpg.create_pool(procrastinate_dsn, min_size=1, reset=failing) as pool:
        await connector.open_async(pool)
        async with connector.session_async() as session:
            await session.execute(Query("one", "select 1"))
        await connector.close_async()
    told = [(r.levelname, r.exc_info and str(r.exc_info[1])) for r in caplog.records]
    assert ("WARNING", "of the owner's own") in told
    assert all(level != "ERROR" for level, _ in told)


def test_it_runs_on_uvloop(procrastinate_dsn: str) -> None:
    async def run() -> list[int]:
        app, done = with_task(procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn)))
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await app.configure_task("add").defer_async(n=1)
            app.configure_task("add_in_thread").defer(n=2)
            await work_off(app)
        return sorted(done)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == [1, 2]
