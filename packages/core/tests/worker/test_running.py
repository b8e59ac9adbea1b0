"""What a worker does with jobs, on a real database."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

import pytest

import procrastinate
from procrastinate import JobAborted, JobContext, RetryDecision, RetryStrategy, Status
from procrastinate.worker.backlog import backlog


async def status_of(app: procrastinate.App, job_id: int) -> Status:
    return await app.job_manager.get_job_status_async(job_id)


async def test_plain_and_async_tasks_succeed(app: procrastinate.App) -> None:
    done: list[tuple[str, bool]] = []

    @app.task
    async def on_the_loop(name: str) -> None:
        done.append((name, threading.current_thread() is threading.main_thread()))

    @app.task
    def in_a_thread(name: str) -> None:
        done.append((name, threading.current_thread() is threading.main_thread()))

    ids = [await on_the_loop.defer_async(name="a"), await in_a_thread.defer_async(name="b")]
    await app.run_worker_async(wait=False)

    assert sorted(done) == [("a", True), ("b", False)]
    jobs = await app.job_manager.list_jobs_async()
    assert [(job.id, job.status, job.attempts) for job in jobs] == [
        (ids[0], Status.SUCCEEDED, 1),
        (ids[1], Status.SUCCEEDED, 1),
    ]


async def test_the_history_of_a_job_is_in_order(app: procrastinate.App) -> None:
    @app.task
    async def nap() -> None:
        await asyncio.sleep(0.1)

    job_id = await nap.defer_async()
    await app.run_worker_async(wait=False)
    job = await app.job_manager.get_job_async(job_id)

    assert job.deferred_at is not None
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.deferred_at <= job.started_at <= job.finished_at
    assert job.finished_at - job.started_at >= timedelta(seconds=0.1)
    assert job.finished_at.tzinfo is UTC


@pytest.mark.one_partition("order holds within a partition")
async def test_jobs_run_in_order_of_priority_then_id(app: procrastinate.App) -> None:
    order: list[int] = []

    @app.task
    async def note(n: int) -> None:
        order.append(n)

    for n, priority in enumerate([0, 5, 0, -1, 5]):
        await note.configure(priority=priority).defer_async(n=n)
    await app.run_worker_async(wait=False)

    assert order == [1, 4, 0, 2, 3]


async def test_a_worker_leaves_other_queues_alone(app: procrastinate.App) -> None:
    @app.task
    async def noop() -> None: ...

    mine = await noop.configure(queue="mine").defer_async()
    other = await noop.configure(queue="other").defer_async()
    await app.run_worker_async(wait=False, queues=["mine"])

    assert [await status_of(app, each) for each in (mine, other)] == [Status.SUCCEEDED, Status.TODO]


async def test_retries_then_success_keeps_the_errors_of_failed_attempts(
    app: procrastinate.App,
) -> None:
    @app.task(retry=5, pass_context=True)
    def flaky(context: JobContext) -> None:
        if context.job.attempts < 3:
            raise ValueError(f"attempt {context.job.attempts}")

    job_id = await flaky.defer_async()
    await app.run_worker_async(wait=False)
    job = await app.job_manager.get_job_async(job_id)

    assert (job.status, job.attempts) == (Status.SUCCEEDED, 3)
    assert [(error["attempt"], error["message"]) for error in job.errors] == [
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]
    assert all("flaky" in error["traceback"] for error in job.errors)


async def test_a_job_out_of_attempts_fails(app: procrastinate.App) -> None:
    @app.task(retry=RetryStrategy(max_attempts=1))
    async def broken() -> None:
        raise KeyError("gone")

    job_id = await broken.defer_async()
    await app.run_worker_async(wait=False)
    job = await app.job_manager.get_job_async(job_id)

    assert (job.status, job.attempts, len(job.errors)) == (Status.FAILED, 2, 2)
    assert job.errors[1]["type"] == "KeyError"


async def test_a_retry_strategy_that_fails_is_told_to_who_reads_the_log(
    app: procrastinate.App, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(procrastinate.BaseRetryStrategy):
        def get_retry_decision(self, **asked: Any) -> RetryDecision | None:
            raise ZeroDivisionError("in the strategy")

    @app.task(name="task", retry=Broken())
    async def task() -> None:
        raise ValueError("in the task")

    job_id = await task.defer_async()
    await app.run_worker_async(wait=False)

    job = await app.job_manager.get_job_async(job_id)
    (told,) = [
        each for each in caplog.records if vars(each).get("action") == "retry_strategy_failed"
    ]
    assert (vars(told)["job_id"], told.levelname) == (job_id, "ERROR")
    assert f"task[{job_id}]() is not tried again" in told.getMessage()
    assert "ZeroDivisionError: in the strategy" in told.getMessage()
    assert (job.status, job.errors[0]["message"]) == (Status.FAILED, "in the task")


@pytest.mark.one_partition("the new lock belongs to another partition")
async def test_a_retry_waits_and_may_change_the_job(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    class Elsewhere(procrastinate.BaseRetryStrategy):
        def get_retry_decision(self, *, exception: BaseException, job: Any) -> RetryDecision | None:
            if job.attempts > 1:
                return None
            return RetryDecision(
                retry_in=timedelta(seconds=0.5), priority=7, queue="second", lock="L"
            )

    began: list[float] = []

    @app.task(retry=Elsewhere())
    async def broken() -> None:
        began.append(time.monotonic())
        raise ValueError

    job_id = await broken.defer_async()
    async with working(app):
        await until(lambda: len(began) == 2)
    job = await app.job_manager.get_job_async(job_id)

    assert began[1] - began[0] >= 0.45
    assert (job.status, job.priority, job.queue, job.lock) == (Status.FAILED, 7, "second", "L")


@pytest.mark.parametrize("raised", [SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_whatever_a_task_raises_ends_its_job_and_not_the_worker(
    app: procrastinate.App, raised: BaseException
) -> None:
    @app.task
    async def on_the_loop() -> None:
        raise raised

    @app.task
    def in_a_thread() -> None:
        raise raised

    @app.task
    async def fine() -> None: ...

    ids = [await task.defer_async() for task in (on_the_loop, in_a_thread, fine)]
    await app.run_worker_async(wait=False)

    assert [await status_of(app, each) for each in ids] == [
        Status.FAILED,
        Status.FAILED,
        Status.SUCCEEDED,
    ]


async def test_a_job_of_an_unknown_task_fails_with_its_name(app: procrastinate.App) -> None:
    job_id = await app.configure_task("who.knows").defer_async(a=1)
    await app.run_worker_async(wait=False)
    job = await app.job_manager.get_job_async(job_id)

    assert job.status is Status.FAILED
    assert "who.knows" in job.errors[0]["message"]


async def test_arguments_that_json_loads_refuses_fail_their_job_alone(dsn: str) -> None:
    def loads(text: str) -> Any:
        if "poison" in text:
            raise ValueError("cannot read this")
        return {}

    connector = procrastinate.AiopgConnector(dsn=dsn, json_loads=loads)
    async with procrastinate.App(connector=connector).open_async() as app:

        @app.task
        async def noop(**kwargs: Any) -> None: ...

        ids = await noop.batch_defer_async({}, {"poison": 1}, {})
        await app.run_worker_async(wait=False)

        assert [await status_of(app, each) for each in (ids[0], ids[2])] == [Status.SUCCEEDED] * 2
        rows = app.connector.sync_connector()
        rows.open()
        with rows.session() as executor:
            from procrastinate.connector import Query

            found = executor.execute(
                Query(
                    "check", "select status::text, errors::text from procrastinate_jobs order by id"
                )
            )
        rows.close()
        assert found[1][0] == "failed"
        assert "cannot read this" in found[1][1]


async def test_the_context_tells_a_task_about_its_job(app: procrastinate.App) -> None:
    seen: list[Any] = []

    @app.task(pass_context=True)
    def look(context: JobContext, a: int) -> None:
        seen.append(context)

    job_id = await look.defer_async(a=1)
    await app.run_worker_async(wait=False, name="bob", additional_context={"db": "x"})
    (context,) = seen

    assert (context.job.id, context.job.task_kwargs) == (job_id, {"a": 1})
    assert (context.worker_name, context.app, context.additional_context) == (
        "bob",
        app,
        {"db": "x"},
    )
    assert not context.should_abort()
    assert context.abort_reason() is None
    assert abs(context.start_timestamp - time.time()) < 60


async def test_plain_functions_see_the_context_variables_of_their_worker(
    app: procrastinate.App,
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    @app.task
    def look() -> None:
        seen.append(variable.get())

    variable.set("set")
    await look.defer_async()
    await app.run_worker_async(wait=False)

    assert seen == ["set"]


async def test_what_a_job_sets_in_its_context_is_not_there_for_the_next(
    app: procrastinate.App,
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    @app.task
    async def look(waits: bool) -> None:
        seen.append(variable.get())
        variable.set("set by a job")
        if waits:
            await asyncio.sleep(0)

    await look.batch_defer_async(*[{"waits": waits} for waits in (False, True, False)])
    await app.run_worker_async(wait=False)

    assert seen == ["unset"] * 3


async def test_as_many_plain_functions_run_at_once_as_the_concurrency_says(
    app: procrastinate.App,
) -> None:
    barrier = threading.Barrier(5, timeout=10)

    @app.task
    def meet() -> None:
        barrier.wait()

    ids = await meet.batch_defer_async(*[{}] * 5)
    await app.run_worker_async(wait=False, concurrency=5)

    assert [await status_of(app, each) for each in ids] == [Status.SUCCEEDED] * 5


async def test_no_more_jobs_run_at_once_than_the_concurrency_says(app: procrastinate.App) -> None:
    now, most = 0, 0

    @app.task
    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    await count.batch_defer_async(*[{}] * 30)
    await app.run_worker_async(wait=False, concurrency=3)

    assert most == 3


async def test_a_job_deferred_to_an_idle_worker_starts_long_before_the_next_poll(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    started = asyncio.Event()

    @app.task
    async def start() -> None:
        started.set()

    async with working(app, fetch_job_polling_interval=60.0):
        await first_look(app, until)
        await start.defer_async()
        await asyncio.wait_for(started.wait(), 30)


async def test_without_notifications_a_job_starts_at_the_next_poll(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    started = asyncio.Event()

    @app.task
    async def start() -> None:
        started.set()

    async with working(app, fetch_job_polling_interval=0.1, listen_notify=False):
        await first_look(app, until)
        await start.defer_async()
        await asyncio.wait_for(started.wait(), 30)


async def test_a_job_scheduled_for_soon_starts_at_its_time_and_not_at_the_next_poll(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    started: list[datetime] = []

    @app.task
    async def start() -> None:
        started.append(datetime.now(UTC))

    async with working(app, fetch_job_polling_interval=60.0):
        await first_look(app, until)
        due = datetime.now(UTC) + timedelta(seconds=1)
        await start.configure(schedule_at=due).defer_async()
        await until(lambda: started)

    assert timedelta(0) <= started[0] - due < timedelta(seconds=2)


async def first_look(app: procrastinate.App, until: Callable[..., Any]) -> None:
    """Wait until a worker has worked once, so that it is idle and listening."""
    done = asyncio.Event()
    name = f"first_look_{time.monotonic_ns()}"

    @app.task(name=name)
    async def look() -> None:
        done.set()

    await look.defer_async()
    await asyncio.wait_for(done.wait(), 10)


async def test_a_worker_of_high_concurrency_uses_four_connections(
    app: procrastinate.App,
    dsn: str,
    working: Callable[..., Any],
    until: Callable[..., Any],
    query: Callable[..., Any],
) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn, application_name="the_worker")
    async with app.with_connector(connector).open_async() as worker_app:
        most = 0

        @app.task
        async def count() -> None:
            nonlocal most
            ((connections,),) = query(
                "select count(*) from pg_stat_activity"
                " where application_name = 'the_worker' and datname = current_database()"
            )
            most = max(most, connections)

        ids = await count.batch_defer_async(*[{}] * 500)
        async with working(worker_app, concurrency=100):
            while await status_of(app, ids[-1]) is not Status.SUCCEEDED:
                await asyncio.sleep(0.05)

    assert 2 <= most <= 4


async def test_a_blocked_event_loop_does_not_stop_the_heartbeat(
    app: procrastinate.App, working: Callable[..., Any], query: Callable[..., Any]
) -> None:
    beats: list[datetime] = []

    @app.task
    async def block() -> None:
        deadline = time.monotonic() + 10
        while len(set(beats)) < 3 and time.monotonic() < deadline:
            ((beat,),) = query("select last_heartbeat from procrastinate_workers")
            beats.append(beat)
            time.sleep(0.02)  # noqa: ASYNC251  the very mistake

    job_id = await block.defer_async()
    await app.run_worker_async(wait=False, update_heartbeat_interval=0.1, stalled_worker_timeout=30)

    assert await status_of(app, job_id) is Status.SUCCEEDED
    assert len(set(beats)) >= 3


async def test_jobs_of_one_lock_run_one_at_a_time_in_order_and_others_beside_them(
    app: procrastinate.App,
) -> None:
    order: list[tuple[str | None, int]] = []
    running: set[str] = set()

    @app.task(pass_context=True)
    async def work(context: JobContext, n: int) -> None:
        lock = context.job.lock
        if lock is not None:
            assert lock not in running
            running.add(lock)
        order.append((lock, n))
        await asyncio.sleep(0.001)
        running.discard(lock or "")

    for n in range(30):
        await work.configure(lock=["a", "b", None][n % 3]).defer_async(n=n)
    await app.run_worker_async(wait=False, concurrency=10)

    jobs = await app.job_manager.list_jobs_async()
    assert {job.status for job in jobs} == {Status.SUCCEEDED}
    for lock, first in (("a", 0), ("b", 1)):
        assert [n for held, n in order if held == lock] == list(range(first, 30, 3))
    # The unlocked ones do not queue behind the locked ones.
    assert order.index((None, 29)) < order.index(("a", 27))


async def test_a_worker_that_does_not_wait_leaves_no_job_behind_a_lock(
    app: procrastinate.App,
) -> None:
    @app.task
    async def noop() -> None: ...

    for _ in range(20):
        await noop.configure(lock="a").batch_defer_async(*[{}] * 10)
        await app.run_worker_async(wait=False, concurrency=100)

        jobs = await app.job_manager.list_jobs_async()
        assert {job.status for job in jobs} == {Status.SUCCEEDED}


@pytest.mark.parametrize(
    ("delete_jobs", "kept"),
    [
        ("never", {Status.SUCCEEDED, Status.FAILED}),
        ("successful", {Status.FAILED}),
        ("always", set()),
    ],
)
async def test_ended_jobs_are_deleted_as_asked(
    app: procrastinate.App, delete_jobs: str, kept: set[Status]
) -> None:
    @app.task
    async def fine() -> None: ...

    @app.task
    async def broken() -> None:
        raise ValueError

    await fine.configure(lock="x").defer_async()
    await broken.defer_async()
    await fine.defer_async()
    await app.run_worker_async(wait=False, delete_jobs=delete_jobs)

    assert {job.status for job in await app.job_manager.list_jobs_async()} == kept


@pytest.mark.parametrize("delete_jobs", ["successful", "always"])
async def test_a_job_that_ends_instead_of_being_retried_is_deleted_as_asked(
    app: procrastinate.App, query: Callable[..., Any], delete_jobs: str
) -> None:
    @app.task(retry=True, queueing_lock="q", pass_context=True)
    async def broken(context: procrastinate.JobContext, *, twin: bool) -> None:
        if twin:
            await broken.configure(schedule_in={"days": 1}).defer_async(twin=False)
        else:
            query("update procrastinate_jobs set abort_requested = true where status = 'doing'")
        raise ValueError

    for twin in (False, True):
        await broken.defer_async(twin=twin)
        await app.run_worker_async(wait=False, delete_jobs=delete_jobs)

    ended = [] if delete_jobs == "always" else [Status.ABORTED, Status.CANCELLED]
    jobs = await app.job_manager.list_jobs_async()
    assert [job.status for job in jobs] == [*ended, Status.TODO]


async def test_a_running_coroutine_is_aborted_from_outside(
    app: procrastinate.App, working: Callable[..., Any]
) -> None:
    began = asyncio.Event()

    @app.task
    async def endless() -> None:
        began.set()
        await asyncio.sleep(3600)

    job_id = await endless.defer_async()
    async with working(app):
        await asyncio.wait_for(began.wait(), 10)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        await ended(app, job_id)

    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts) == (Status.ABORTED, 1)


async def test_a_running_function_is_told_to_abort_and_obeys(
    app: procrastinate.App, working: Callable[..., Any]
) -> None:
    began = threading.Event()

    @app.task(pass_context=True)
    def endless(context: JobContext) -> None:
        began.set()
        deadline = time.monotonic() + 10
        while not context.should_abort():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise JobAborted("as you wish")

    job_id = await endless.defer_async()
    async with working(app):
        await asyncio.to_thread(began.wait, 10)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        await ended(app, job_id)

    assert await status_of(app, job_id) is Status.ABORTED


async def ended(app: procrastinate.App, job_id: int) -> None:
    async with asyncio.timeout(10):
        while not (await status_of(app, job_id)).is_final:
            await asyncio.sleep(0.02)


async def test_a_prefetched_job_behind_a_long_one_is_handed_back_untouched(
    app: procrastinate.App, working: Callable[..., Any], until: Callable[..., Any]
) -> None:
    let_go = threading.Event()
    done: list[int] = []

    @app.task
    async def work(n: int) -> None:
        if n == 300:
            await asyncio.to_thread(let_go.wait, 20)
        done.append(n)

    ids = await work.batch_defer_async(*[{"n": n} for n in range(600)])
    async with working(app):
        await until(lambda: len(done) == 300)
        async with working(app):
            await until(lambda: len(done) == 599)
        let_go.set()
        await until(lambda: len(done) == 600)

    jobs = await app.job_manager.list_jobs_async(id=ids)
    assert {(job.status, job.attempts) for job in jobs} == {(Status.SUCCEEDED, 1)}


async def test_a_plain_function_has_no_task_on_the_loop(app: procrastinate.App) -> None:
    """A task and a future for each would cost the loop more than all else of a short job."""
    loop = asyncio.get_running_loop()
    seen: list[list[str]] = []

    @app.task
    def look() -> None:
        tasks = asyncio.run_coroutine_threadsafe(names_of_tasks(), loop).result(10)
        seen.append([name for name in tasks if "look" in name])

    await look.defer_async()
    await app.run_worker_async(wait=False)
    assert seen == [[]]


async def names_of_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_two_workers_run_no_job_twice(app: procrastinate.App) -> None:
    @app.task
    async def noop(n: int) -> None: ...

    await noop.batch_defer_async(*[{"n": n} for n in range(2000)])
    await asyncio.gather(*(app.run_worker_async(wait=False, concurrency=20) for _ in range(3)))

    jobs = await app.job_manager.list_jobs_async(limit=5000)
    assert len(jobs) == 2000
    assert {(job.status, job.attempts) for job in jobs} == {(Status.SUCCEEDED, 1)}


async def test_a_synchronous_connector_runs_no_worker(sync_app: procrastinate.App) -> None:
    with pytest.raises(procrastinate.SyncConnectorConfigurationError, match="procrastinate-aiopg"):
        await sync_app.run_worker_async()
    with pytest.raises(procrastinate.SyncConnectorConfigurationError, match="procrastinate-aiopg"):
        sync_app.run_worker()


async def test_a_worker_refuses_a_database_without_tables(procrastinate_dsn: str) -> None:
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        with pytest.raises(procrastinate.errors.SchemaNotApplied, match="schema --apply"):
            await app.run_worker_async()


async def test_the_loop_gets_round_to_others_between_jobs_that_keep_it_busy(
    app: procrastinate.App,
) -> None:
    ran = 0
    between_turns: list[int] = []

    @app.task
    async def compute() -> None:
        nonlocal ran
        ran += 1
        time.sleep(2 * backlog.TURN)  # noqa: ASYNC251 (it is what the test is about)

    async def look() -> None:
        while True:
            before = ran
            await asyncio.sleep(0)
            between_turns.append(ran - before)

    ids = await compute.batch_defer_async(*[{}] * 50)
    looking = asyncio.create_task(look())
    await app.run_worker_async(wait=False, concurrency=50)
    looking.cancel()

    assert [await status_of(app, each) for each in ids] == [Status.SUCCEEDED] * 50
    at_once = 2 if sys.version_info >= (3, 12) else 50  # before, all that start do in one turn
    assert max(between_turns) <= at_once


@pytest.mark.parametrize("is_installed", [True, False])
async def test_a_worker_s_row_tells_where_and_what_it_is(
    app: procrastinate.App,
    query: Callable[..., list[tuple[Any, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    is_installed: bool,
) -> None:
    version = metadata.version("procrastinate")
    rows = []

    def is_missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    @app.task(queue="mine")
    async def look() -> None:
        rows.extend(query("select pid, version, queues from procrastinate_workers"))

    await look.defer_async()
    if not is_installed:
        monkeypatch.setattr(metadata, "version", is_missing)
    await app.run_worker_async(wait=False, queues=["mine", "other"])
    assert rows == [(os.getpid(), version if is_installed else None, ["mine", "other"])]
