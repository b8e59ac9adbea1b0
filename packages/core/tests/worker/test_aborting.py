"""What becomes of a job that somebody wants aborted, whatever its task does about it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import AbortReason, Job, JobAborted, JobContext, Status
from procrastinate.model.claiming import holding
from procrastinate.worker.claiming.fetcher import Fetcher
from procrastinate.worker.helpers.housekeeping import Housekeeping
from procrastinate.worker.helpers.listener import Listener

Working = Callable[..., Any]


async def end_of(app: procrastinate.App, job_id: int) -> Job:
    """Return a job once it has ended."""
    async with asyncio.timeout(10):
        while not (job := await app.job_manager.get_job_async(job_id)).status.is_final:
            await asyncio.sleep(0.01)
    return job


def errors_of(job: Job) -> list[str]:
    return [error["type"] for error in job.errors]


async def aborted(
    app: procrastinate.App, working: Working, task: Any, began: Any, **options: Any
) -> Job:
    """Run a task until it says that it began, ask for its abortion, and return its ended job."""
    job_id = await task.defer_async()
    async with working(app, **options):
        while not began.is_set():
            await asyncio.sleep(0.01)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        return await end_of(app, job_id)


def wait_until_told(context: JobContext) -> None:
    deadline = time.monotonic() + 10
    while not context.should_abort():
        assert time.monotonic() < deadline, "was not told to abort"
        time.sleep(0.005)


# What a coroutine does about its cancellation


async def test_a_coroutine_that_is_cancelled_is_aborted(
    any_app: procrastinate.App, working: Working
) -> None:
    began, cleaned = asyncio.Event(), []

    @any_app.task(retry=True)
    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    job = await aborted(any_app, working, endless, began)

    assert cleaned == ["up"]
    assert (job.status, job.attempts) == (Status.ABORTED, 1)
    assert errors_of(job) == ["asyncio.exceptions.CancelledError"]


async def test_a_coroutine_that_returns_all_the_same_has_succeeded(
    any_app: procrastinate.App, working: Working
) -> None:
    began = asyncio.Event()

    @any_app.task
    async def thorough() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)

    job = await aborted(any_app, working, thorough, began)

    assert (job.status, job.errors) == (Status.SUCCEEDED, [])


async def test_what_a_clean_up_raises_does_not_make_it_a_failure(
    any_app: procrastinate.App, working: Working
) -> None:
    began = asyncio.Event()

    @any_app.task(retry=True)
    async def clumsy() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            raise KeyError("in finally")

    job = await aborted(any_app, working, clumsy, began)

    assert (job.status, errors_of(job)) == (Status.ABORTED, ["KeyError"])


async def test_what_a_coroutine_shields_goes_on_and_its_job_is_aborted(
    app: procrastinate.App, working: Working
) -> None:
    began, let_go, shielded = asyncio.Event(), asyncio.Event(), []

    async def precious() -> None:
        await let_go.wait()
        shielded.append("done")

    @app.task
    async def careful() -> None:
        inner = asyncio.create_task(precious())
        began.set()
        await asyncio.shield(inner)

    job = await aborted(app, working, careful, began)
    assert (job.status, shielded) == (Status.ABORTED, [])
    let_go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert shielded == ["done"]


async def test_task_groups_and_timeouts_inside_of_a_task_end_with_it(
    app: procrastinate.App, working: Working
) -> None:
    began, ended = asyncio.Event(), []

    async def part(n: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(n)

    @app.task
    async def parts() -> None:
        async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
            group.create_task(part(1))
            group.create_task(part(2))
            await asyncio.sleep(0)
            began.set()

    job = await aborted(app, working, parts, began)

    assert (job.status, sorted(ended)) == (Status.ABORTED, [1, 2])


async def test_a_coroutine_is_cancelled_once_for_each_request(
    app: procrastinate.App, working: Working
) -> None:
    """A clean-up that takes long is not disturbed by further looks at what to abort."""
    began, cancellations = asyncio.Event(), 0

    @app.task
    async def slow_to_end() -> None:
        nonlocal cancellations
        began.set()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                cancellations += 1
                deadline = time.monotonic() + 0.3

    job = await aborted(app, working, slow_to_end, began, abort_job_polling_interval=0.02)

    assert (job.status, cancellations) == (Status.SUCCEEDED, 1)


# What a plain function does about it


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, Status.SUCCEEDED), (JobAborted("yes"), Status.ABORTED), (KeyError(), Status.ABORTED)],
    ids=["returns", "obeys", "raises something else"],
)
async def test_a_function_is_told_by_should_abort(
    any_app: procrastinate.App, working: Working, raised: Exception | None, status: Status
) -> None:
    began, reasons = threading.Event(), []

    @any_app.task(retry=True, pass_context=True)
    def polls(context: JobContext) -> None:
        began.set()
        wait_until_told(context)
        reasons.append(context.abort_reason())
        if raised is not None:
            raise raised

    job = await aborted(any_app, working, polls, began)

    assert (job.status, job.attempts, reasons) == (status, 1, [AbortReason.USER_REQUEST])


async def test_an_async_function_behind_a_plain_wrapper_is_cancelled(
    app: procrastinate.App, working: Working
) -> None:
    began = asyncio.Event()

    async def endless() -> None:
        began.set()
        await asyncio.sleep(3600)

    @app.task(name="wrapper")
    def wrapper() -> Any:
        return endless()

    assert (await aborted(app, working, wrapper, began)).status is Status.ABORTED


# Without a request


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_a_task_may_abort_its_own_job(any_app: procrastinate.App, kind: str) -> None:
    async def coroutine() -> None:
        async with asyncio.TaskGroup():
            raise JobAborted("enough")  # arrives in an ExceptionGroup

    def function() -> None:
        raise JobAborted("enough")

    task = any_app.task(retry=True)(coroutine if kind == "coroutine" else function)
    job_id = await task.defer_async()
    await any_app.run_worker_async(wait=False)

    job = await any_app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts) == (Status.ABORTED, 1)


@pytest.mark.parametrize("retry", [0, 1])
async def test_a_cancelled_error_that_nobody_asked_for_is_a_failure(
    any_app: procrastinate.App, retry: int
) -> None:
    """aiopg raises it where the server cancels a statement; and a task may cancel itself."""

    @any_app.task(retry=retry)
    async def cancels_itself() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    job_id = await cancels_itself.defer_async()
    await any_app.run_worker_async(wait=False)

    job = await any_app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts) == (Status.FAILED, retry + 1)
    assert errors_of(job) == ["asyncio.exceptions.CancelledError"] * (retry + 1)


async def test_a_statement_that_the_server_cancels_fails_the_job_that_ran_it(
    app: procrastinate.App, dsn: str
) -> None:
    import aiopg

    @app.task
    async def too_slow() -> None:
        options = "-c statement_timeout=50"
        async with aiopg.connect(dsn, options=options) as connection, connection.cursor() as cursor:
            await cursor.execute("select pg_sleep(60)")

    job_id = await too_slow.defer_async()
    await app.run_worker_async(wait=False)

    job = await app.job_manager.get_job_async(job_id)
    assert job.status is Status.FAILED
    assert "statement timeout" in job.errors[0]["traceback"]


# Before its turn


async def test_a_job_claimed_ahead_is_aborted_without_being_run(
    any_app: procrastinate.App,
    working: Working,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "LEAST_PATIENCE", 60.0)  # else it is soon handed back
    monkeypatch.setattr(holding, "PATIENCE", 60.0)
    block = asyncio.Event()
    ran: list[int] = []

    @any_app.task
    async def work(n: int) -> None:
        ran.append(n)
        if n == 300:
            await block.wait()

    ids = await work.batch_defer_async(*[{"n": n} for n in range(600)])
    manager = any_app.job_manager
    async with working(any_app):
        await until(lambda: len(ran) == 301)
        jobs = await manager.list_jobs_async(id=ids[301:], status="doing", limit=600)
        assert jobs, "no job was claimed ahead"
        ahead = jobs[-1].id
        assert await manager.cancel_job_by_id_async(ahead, abort=True)
        job = await end_of(any_app, ahead)
        block.set()
        await until(lambda: len(ran) == 599)

    assert (job.status, job.attempts, job.started_at) == (Status.ABORTED, 0, None)
    assert errors_of(job) == ["procrastinate.errors.JobAborted"]
    assert ids.index(ahead) not in ran


async def test_a_request_that_overtakes_the_claims_answer_is_obeyed_at_once(
    app: procrastinate.App, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is claimed, and its worker does not know it yet when it hears of the request."""
    claim = Fetcher.claim
    overtaken: list[int] = []

    async def slow_claim(self: Fetcher, limit: int, known: Any) -> Any:
        found = await claim(self, limit, known)
        for job in found.jobs:
            assert await app.job_manager.cancel_job_by_id_async(job.id, abort=True)
            overtaken.append(job.id)
            await asyncio.sleep(0.3)  # for the notification, which is heard meanwhile
        return found

    @app.task
    async def endless() -> None:
        await asyncio.sleep(3600)

    async with working(app, abort_job_polling_interval=60, fetch_job_polling_interval=0.1):
        monkeypatch.setattr(Fetcher, "claim", slow_claim)
        job_id = await endless.defer_async()
        job = await end_of(app, job_id)

    assert (job.status, overtaken) == (Status.ABORTED, [job_id])


async def test_a_request_found_while_the_claim_is_answered_is_obeyed_at_once(
    app: procrastinate.App,
    working: Working,
    monkeypatch: pytest.MonkeyPatch,
    query: Callable[..., Any],
) -> None:
    """Found by looking for it, as after a reconnection, and not again for a minute."""
    claim, look = Fetcher.claim, Housekeeping._look_for_aborts
    houses: list[Housekeeping] = []
    looks: list[int] = []
    make = Housekeeping.__init__

    def noted_make(self: Housekeeping, *args: Any, **options: Any) -> None:
        houses.append(self)
        make(self, *args, **options)

    async def noted_look(self: Housekeeping) -> None:
        await look(self)
        looks.append(1)

    async def slow_claim(self: Fetcher, limit: int, known: Any) -> Any:
        found = await claim(self, limit, known)
        for job in found.jobs:
            query("update procrastinate_jobs set abort_requested = true where id = %s", job.id)
            await noted_look(houses[0])
        return found

    @app.task
    async def endless() -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Housekeeping, "__init__", noted_make)
    monkeypatch.setattr(Housekeeping, "_look_for_aborts", noted_look)
    monkeypatch.setattr(Fetcher, "claim", slow_claim)
    async with working(app, abort_job_polling_interval=60, fetch_job_polling_interval=0.1):
        job = await end_of(app, await endless.defer_async())

    assert job.status is Status.ABORTED


async def test_a_worker_without_jobs_does_not_look_for_requests(
    app: procrastinate.App, working: Working, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    asked: list[str] = []
    run_async = app._gateway.run_async

    async def noted(flow: Any, **options: Any) -> Any:
        asked.append(flow.__name__)
        return await run_async(flow, **options)

    @app.task
    async def endless() -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(app._gateway, "run_async", noted)
    async with working(app, abort_job_polling_interval=0.05, fetch_job_polling_interval=0.05):
        await until(lambda: "abort_requests" in asked)  # the look that follows LISTEN
        del asked[:]
        await until(lambda: len(asked) > 10)
        idle = asked.count("abort_requests")
        job_id = await endless.defer_async()
        await until(lambda: asked.count("abort_requests") > 2)
        await app.job_manager.cancel_job_by_id_async(job_id, abort=True)

    assert idle == 0


async def test_a_request_for_a_job_that_is_elsewhere_is_no_business_of_this_worker(
    app: procrastinate.App, working: Working, query: Callable[..., Any]
) -> None:
    began, done = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> None:
        began.set()
        await done.wait()

    job_id = await work.defer_async()
    async with working(app, abort_job_polling_interval=0.05):
        await began.wait()
        query("select pg_notify('procrastinate_aborts', x) from unnest(%s) as x", ["999", "no", ""])
        elsewhere = await work.configure(queue="elsewhere").defer_async()
        assert await app.job_manager.cancel_job_by_id_async(elsewhere, abort=True)
        done.set()
        job = await end_of(app, job_id)

    assert job.status is Status.SUCCEEDED


async def test_a_request_from_before_the_worker_listened_is_obeyed_once_it_does(
    app: procrastinate.App, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job may have begun, and be aborted, before its worker hears anything."""
    listen, began, asked = Listener.run, asyncio.Event(), asyncio.Event()

    async def listen_late(*args: Any, **options: Any) -> None:
        await asked.wait()
        await asyncio.sleep(0.3)  # the notification is gone, and so is the first look
        await listen(*args, **options)

    @app.task(name="endless")
    async def endless() -> None:
        began.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(Listener, "run", listen_late)
    job_id = await endless.defer_async()
    async with working(app, abort_job_polling_interval=60):
        await asyncio.wait_for(began.wait(), 10)
        await asyncio.sleep(0.3)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        asked.set()
        job = await end_of(app, job_id)

    assert job.status is Status.ABORTED


# At the very end


@pytest.mark.parametrize("retry", [False, True])
async def test_a_request_that_comes_before_the_ending_is_written(
    app: procrastinate.App, working: Working, query: Callable[..., Any], retry: bool
) -> None:
    """It ends the job, whether the attempt was the last one or is to be tried again."""

    @app.task(retry=retry, pass_context=True)
    async def fails(context: JobContext) -> None:
        query("update procrastinate_jobs set abort_requested = true where id = %s", context.job.id)
        raise ValueError

    job_id = await fails.defer_async()
    await app.run_worker_async(wait=False)
    job = await app.job_manager.get_job_async(job_id)

    assert (job.status, job.attempts) == (Status.ABORTED, 1)
    assert errors_of(job) == ["ValueError", "procrastinate.errors.JobAborted"]


# Where no notification is heard, and while the worker ends


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_without_notifications_requests_are_found_by_polling(
    app: procrastinate.App, working: Working, kind: str
) -> None:
    began = threading.Event()

    async def coroutine() -> None:
        began.set()
        await asyncio.sleep(3600)

    def function(context: JobContext) -> None:
        began.set()
        wait_until_told(context)
        raise JobAborted

    plain = kind == "function"
    task = app.task(pass_context=plain)(function if plain else coroutine)  # type: ignore[call-overload]
    job = await aborted(
        app, working, task, began, listen_notify=False, abort_job_polling_interval=0.2
    )

    assert job.status is Status.ABORTED


@pytest.mark.parametrize("asked", ["before", "after"])
async def test_what_does_not_obey_before_its_worker_ends_is_not_run_again(
    app: procrastinate.App, asked: str
) -> None:
    began, told, let_go = threading.Event(), threading.Event(), threading.Event()

    @app.task(pass_context=True)
    def stubborn(context: JobContext) -> None:
        began.set()
        wait_until_told(context)
        told.set()
        let_go.wait(20)

    job_id = await stubborn.defer_async()
    worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0))
    await asyncio.to_thread(began.wait, 10)
    if asked == "before":
        await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        await asyncio.to_thread(told.wait, 10)
    worker.cancel()
    if asked == "after":
        await asyncio.to_thread(told.wait, 10)
        await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
    await asyncio.wait([worker])
    let_go.set()

    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts) == (Status.ABORTED, 1)
    assert errors_of(job) == ["procrastinate.errors.JobAborted"]


async def test_a_request_during_the_shutdown_is_seen_by_the_task(app: procrastinate.App) -> None:
    began = threading.Event()
    reasons: list[AbortReason | None] = []

    @app.task(pass_context=True)
    def watches(context: JobContext) -> None:
        began.set()
        wait_until_told(context)
        reasons.append(context.abort_reason())
        deadline = time.monotonic() + 10
        while context.abort_reason() is not AbortReason.USER_REQUEST:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        raise JobAborted

    job_id = await watches.defer_async()
    worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0))
    await asyncio.to_thread(began.wait, 10)
    worker.cancel()
    while not reasons:
        await asyncio.sleep(0.005)
    await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
    await asyncio.wait([worker])

    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, reasons) == (Status.ABORTED, [AbortReason.SHUTDOWN])


# From another process


@pytest.mark.parametrize("worker", ["working", "draining"])
@pytest.mark.parametrize("task", ["hour", "hour_async"])
def test_an_hour_is_aborted_from_another_process_without_waiting_for_a_look(
    sync_app: procrastinate.App, start: Any, task: str, worker: str
) -> None:
    """As a function in a thread, and as a coroutine."""
    job_id = sync_app.configure_task(task).defer()
    process = start(log_level="INFO", abort_job_polling_interval=3600)
    assert process.stdout.readline().strip() == "began"
    if worker == "draining":
        process.terminate()
        while "stopping: no more jobs are fetched" not in process.stderr.readline():
            assert process.poll() is None
    assert sync_app.job_manager.cancel_job_by_id(job_id, abort=True)
    if worker == "draining":
        assert process.wait(30) == 0
    deadline = time.monotonic() + 30
    while not (job := sync_app.job_manager.get_job(job_id)).status.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert (job.status, job.attempts) == (Status.ABORTED, 1)
