"""What a task's timeout does to its attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import procrastinate
import procrastinate.testing
from procrastinate import AbortReason, JobAborted, JobContext, RetryStrategy, Status, TaskTimeout

TIMED_OUT = "procrastinate.errors.TaskTimeout"


def wait_until_told(context: JobContext) -> AbortReason | None:
    deadline = time.monotonic() + 10
    while not context.should_abort():
        assert time.monotonic() < deadline, "was not told to abort"
        time.sleep(0.005)
    return context.abort_reason()


async def ran(app: procrastinate.App, task: Any, **options: Any) -> procrastinate.Job:
    job_id = await task.defer_async()
    await app.run_worker_async(wait=False, **options)
    return await app.job_manager.get_job_async(job_id)


async def test_a_coroutine_is_cancelled_and_has_failed(any_app: procrastinate.App) -> None:
    cleaned = []

    @any_app.task(timeout=timedelta(milliseconds=50))
    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append("up")

    job = await ran(any_app, endless)

    assert (job.status, job.attempts, cleaned) == (Status.FAILED, 1, ["up"])
    assert [(error["type"], error["message"]) for error in job.errors] == [
        (TIMED_OUT, "the attempt took longer than its timeout of 0.05 s")
    ]
    assert job.started_at is not None
    assert job.finished_at is not None
    assert timedelta(seconds=0.04) < job.finished_at - job.started_at < timedelta(seconds=5)


@pytest.mark.parametrize("raised", [JobAborted("told to"), KeyError("clean-up")], ids=repr)
async def test_a_function_is_told_and_has_failed_whatever_it_raises(
    any_app: procrastinate.App, raised: Exception
) -> None:
    reasons = []

    @any_app.task(timeout=0.05, pass_context=True)
    def polls(context: JobContext) -> None:
        reasons.append(wait_until_told(context))
        raise raised

    job = await ran(any_app, polls)

    assert (job.status, reasons) == (Status.FAILED, [AbortReason.TIMEOUT])
    assert [error["type"] for error in job.errors] == [TIMED_OUT]
    assert type(raised).__name__ in job.errors[0]["traceback"]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_what_returns_all_the_same_has_succeeded(
    any_app: procrastinate.App, kind: str
) -> None:
    async def coroutine(context: JobContext) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            assert context.abort_reason() is AbortReason.TIMEOUT

    def function(context: JobContext) -> None:
        wait_until_told(context)

    decorate = any_app.task(timeout=0.05, pass_context=True)
    job = await ran(any_app, decorate(coroutine if kind == "coroutine" else function))

    assert (job.status, job.errors) == (Status.SUCCEEDED, [])


async def test_each_attempt_has_its_own_time_and_the_strategy_decides(
    any_app: procrastinate.App,
) -> None:
    strategy = RetryStrategy(max_attempts=2, retry_exceptions=[TaskTimeout])

    @any_app.task(timeout=0.05, retry=strategy)
    async def endless() -> None:
        await asyncio.sleep(3600)

    job = await ran(any_app, endless)

    assert (job.status, job.attempts) == (Status.FAILED, 3)
    assert [error["type"] for error in job.errors] == [TIMED_OUT] * 3


async def test_a_timeout_error_of_the_tasks_own_is_an_error_like_any_other(
    any_app: procrastinate.App,
) -> None:
    @any_app.task(timeout=60)
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(3600)

    job = await ran(any_app, impatient)

    assert [error["type"] for error in job.errors] == ["TimeoutError"]


async def test_a_task_that_ends_in_time_is_never_told(any_app: procrastinate.App) -> None:
    contexts: list[JobContext] = []

    @any_app.task(timeout=0.2, pass_context=True)
    async def quick(context: JobContext) -> None:
        contexts.append(context)

    job = await ran(any_app, quick)
    await asyncio.sleep(0.25)  # past the time that it would have had

    assert (job.status, contexts[0].should_abort()) == (Status.SUCCEEDED, False)


async def test_what_fails_in_time_keeps_its_error_on_a_blocked_loop(
    app: procrastinate.App,
) -> None:
    """The loop hears of the end and of the timeout at once, and late."""
    failing = threading.Event()

    @app.task(timeout=2)
    def fails() -> None:
        failing.set()
        raise ValueError("in time")

    @app.task
    async def blocks() -> None:
        failing.wait(10)
        time.sleep(2.2)  # noqa: ASYNC251  the very mistake

    ids = [await fails.defer_async(), await blocks.defer_async()]
    await app.run_worker_async(wait=False, concurrency=2)

    job = await app.job_manager.get_job_async(ids[0])
    assert [error["type"] for error in job.errors] == ["ValueError"]


@pytest.mark.parametrize("request_first", [True, False])
async def test_a_request_is_what_it_is_beside_a_timeout(
    app: procrastinate.App, working: Callable[..., Any], request_first: bool
) -> None:
    began, timed_out = threading.Event(), threading.Event()
    timeout = 0.4 if request_first else 0.05

    @app.task(timeout=timeout, pass_context=True, retry=True)
    def polls(context: JobContext) -> None:
        began.set()
        deadline = time.monotonic() + timeout + 0.1
        wait_until_told(context)
        while time.monotonic() < deadline:
            time.sleep(0.005)
        timed_out.set()
        while context.abort_reason() is not AbortReason.USER_REQUEST:
            time.sleep(0.005)
        raise JobAborted

    job_id = await polls.defer_async()
    async with working(app):
        await asyncio.to_thread((began if request_first else timed_out).wait, 10)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        async with asyncio.timeout(10):
            while not (job := await app.job_manager.get_job_async(job_id)).status.is_final:
                await asyncio.sleep(0.01)

    assert (job.status, job.attempts) == (Status.ABORTED, 1)


async def test_a_shutdown_is_what_it_is_beside_a_timeout(app: procrastinate.App) -> None:
    told = asyncio.Event()

    @app.task(timeout=0.05)
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            told.set()
            await asyncio.sleep(3600)

    job_id = await slow_to_end.defer_async()
    worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0))
    await asyncio.wait_for(told.wait(), 10)
    worker.cancel()
    await asyncio.wait([worker])

    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts, job.errors) == (Status.TODO, 1, [])


@pytest.mark.parametrize(
    "timeout", [0, -1, True, "5", float("nan"), float("inf"), timedelta(0), [1]], ids=repr
)
def test_a_timeout_that_cannot_be_is_refused_at_definition(timeout: Any) -> None:
    blueprint = procrastinate.Blueprint()

    with pytest.raises(procrastinate.InvalidOption, match="timeout must be a number of seconds"):
        blueprint.task(name="task", timeout=timeout)(lambda: None)


def test_a_timeout_is_seconds_whatever_it_was_given_as_and_goes_along_with_a_namespace() -> None:
    blueprint = procrastinate.Blueprint()
    blueprint.task(name="task", timeout=timedelta(minutes=1))(lambda: None)
    app = procrastinate.App(connector=procrastinate.testing.InMemoryConnector())
    app.add_tasks_from(blueprint, namespace="ns")

    assert app.tasks["ns:task"].definition.timeout == 60.0


def test_a_task_timeout_is_a_timeout_error() -> None:
    assert issubclass(TaskTimeout, TimeoutError)
    assert issubclass(TaskTimeout, procrastinate.ProcrastinateException)
