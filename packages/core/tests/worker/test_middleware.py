"""What middleware sees of an attempt, and what it may make of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import (
    AbortReason,
    AsyncCallNext,
    CallNext,
    Job,
    JobAborted,
    JobContext,
    RunningWorker,
    Status,
)
from procrastinate.testing import InMemoryConnector

KINDS = pytest.mark.parametrize("kind", ["coroutine", "function"])


async def ran(app: procrastinate.App, task: Any, **options: Any) -> Job:
    job_id = await task.defer_async()
    await app.run_worker_async(wait=False, **options)
    return await app.job_manager.get_job_async(job_id)


def task_of_kind(app: procrastinate.App, kind: str, body: Callable[[], Any], **options: Any) -> Any:
    """A task of this kind that does the same."""

    async def coroutine() -> Any:
        return body()

    return app.task(name="task", **options)(coroutine if kind == "coroutine" else lambda: body())


def of_kind(kind: str, around: Callable[[Callable[[], Any]], Any]) -> Any:
    """Middleware of this kind that does what ``around`` does, which does not run the task."""

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        return around(call_next)

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        return around(call_next)

    return on_loop if kind == "coroutine" else plain


def noting(notes: list[str], name: str, kind: str) -> Any:
    """Middleware that notes when the attempt enters and leaves it."""

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        notes.append(f"{name} in")
        try:
            return call_next()
        finally:
            notes.append(f"{name} out")

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        notes.append(f"{name} in")
        try:
            return await call_next()
        finally:
            notes.append(f"{name} out")

    return on_loop if kind == "coroutine" else plain


@KINDS
async def test_the_first_is_outermost_and_the_workers_are_outside_of_the_tasks(
    any_app: procrastinate.App, kind: str
) -> None:
    notes: list[str] = []
    inner = [noting(notes, name, kind) for name in ("task 1", "task 2")]
    outer = [noting(notes, name, kind) for name in ("worker 1", "worker 2")]
    task = task_of_kind(any_app, kind, lambda: notes.append("task"), middleware=inner)

    job = await ran(any_app, task, middleware=outer)

    names = ["worker 1", "worker 2", "task 1", "task 2"]
    assert job.status is Status.SUCCEEDED
    assert notes == [
        *[f"{name} in" for name in names],
        "task",
        *[f"{name} out" for name in reversed(names)],
    ]


@KINDS
async def test_middleware_gets_what_the_task_returns_and_raises(
    any_app: procrastinate.App, kind: str
) -> None:
    results: list[Any] = []

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        results.append(call_next())

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        results.append(await call_next())

    task = task_of_kind(
        any_app, kind, lambda: 42, middleware=on_loop if kind == "coroutine" else plain
    )

    assert (await ran(any_app, task)).status is Status.SUCCEEDED
    assert results == [42]


@KINDS
async def test_what_middleware_raises_the_task_has_raised(
    any_app: procrastinate.App, kind: str
) -> None:
    done = []

    def raises_before(call_next: Any) -> Any:
        raise JobAborted("not today") if not done else KeyError("never")

    middleware = of_kind(kind, raises_before)
    task = task_of_kind(any_app, kind, lambda: done.append(1), middleware=middleware, retry=3)
    job = await ran(any_app, task)

    assert (job.status, job.attempts, done) == (Status.ABORTED, 1, [])


@KINDS
async def test_an_error_of_middleware_is_retried_like_one_of_the_task(
    any_app: procrastinate.App, kind: str
) -> None:
    attempts: list[int] = []

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        attempts.append(context.job.attempts)
        result = call_next()
        if len(attempts) < 3:
            raise KeyError("afterwards")
        return result

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        attempts.append(context.job.attempts)
        result = await call_next()
        if len(attempts) < 3:
            raise KeyError("afterwards")
        return result

    middleware: Any = on_loop if kind == "coroutine" else plain
    job = await ran(
        any_app, task_of_kind(any_app, kind, lambda: None, middleware=middleware, retry=True)
    )

    assert (job.status, attempts) == (Status.SUCCEEDED, [1, 2, 3])
    assert [error["type"] for error in job.errors] == ["KeyError", "KeyError"]


@KINDS
async def test_what_middleware_swallows_has_succeeded(
    any_app: procrastinate.App, kind: str
) -> None:
    def fails() -> None:
        raise ValueError

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        try:
            return call_next()
        except ValueError:
            return None

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        try:
            return await call_next()
        except ValueError:
            return None

    middleware: Any = on_loop if kind == "coroutine" else plain
    job = await ran(any_app, task_of_kind(any_app, kind, fails, middleware=middleware))

    assert (job.status, job.errors) == (Status.SUCCEEDED, [])


@KINDS
async def test_a_task_that_middleware_does_not_call_has_succeeded_without_running(
    any_app: procrastinate.App, kind: str
) -> None:
    runs: list[int] = []
    middleware = of_kind(kind, lambda call_next: "skipped")
    task = task_of_kind(any_app, kind, lambda: runs.append(1), middleware=middleware)

    assert ((await ran(any_app, task)).status, runs) == (Status.SUCCEEDED, [])


@KINDS
async def test_an_attempt_runs_its_task_once_however_often_it_is_called(
    any_app: procrastinate.App, kind: str
) -> None:
    runs: list[int] = []

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        call_next()
        call_next()

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        await call_next()
        await call_next()

    middleware: Any = on_loop if kind == "coroutine" else plain
    job = await ran(
        any_app, task_of_kind(any_app, kind, lambda: runs.append(1), middleware=middleware)
    )

    assert (job.status, runs) == (Status.FAILED, [1])
    assert job.errors[0]["message"].startswith("call_next() was called twice")


async def test_plain_middleware_runs_in_the_jobs_thread_and_context(
    any_app: procrastinate.App,
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[Any] = []

    def sets(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        variable.set(f"for job {context.job.id}")
        seen.append(threading.current_thread())
        return call_next()

    @any_app.task(name="look", middleware=sets)
    def look() -> None:
        seen.extend([threading.current_thread(), variable.get()])

    job = await ran(any_app, look)

    assert seen[0] is seen[1]
    assert seen[0] is not threading.main_thread()
    assert seen[2] == f"for job {job.id}"


async def test_a_workers_async_middleware_wraps_tasks_of_both_kinds_on_the_loop(
    any_app: procrastinate.App,
) -> None:
    seen: list[Any] = []

    async def timed(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        on_loop = threading.current_thread() is threading.main_thread()
        seen.append((context.task.name, on_loop, await call_next()))

    @any_app.task(name="coroutine")
    async def coroutine() -> bool:
        return threading.current_thread() is threading.main_thread()

    @any_app.task(name="function")
    def function() -> bool:
        return threading.current_thread() is threading.main_thread()

    await coroutine.defer_async()
    assert (await ran(any_app, function, middleware=timed)).status is Status.SUCCEEDED
    assert seen == [("coroutine", True, True), ("function", True, False)]


async def test_a_workers_plain_middleware_is_refused_at_its_start_where_async_tasks_are(
    any_app: procrastinate.App,
) -> None:
    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any: ...

    @any_app.task(name="coroutine")
    async def coroutine() -> None: ...

    with pytest.raises(procrastinate.InvalidOption, match=r"plain .* cannot wrap task 'coroutine'"):
        await any_app.run_worker_async(wait=False, middleware=plain)


async def test_an_async_task_that_comes_later_fails_rather_than_run_unwrapped(
    any_app: procrastinate.App,
) -> None:
    runs: list[int] = []

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        return call_next()

    @any_app.task(name="registers")
    def registers() -> None:
        @any_app.task(name="late")
        async def late() -> None:
            runs.append(1)

    await registers.defer_async()
    job = await ran(any_app, any_app.configure_task("late"), middleware=plain)

    assert (job.status, runs) == (Status.FAILED, [])
    assert job.errors[0]["type"] == "procrastinate.errors.InvalidOption"


async def test_middleware_sees_the_context_of_tasks_that_do_not(
    any_app: procrastinate.App,
) -> None:
    seen: list[Any] = []

    async def look(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        seen.append((context.job.task_kwargs, context.app, context.worker_name, worker.name))
        seen.append(context.task.name)
        seen.append(context.additional_context["pool"])
        return await call_next()

    @any_app.task(name="add", aliases=["sum"], middleware=look)
    async def add(a: int) -> None: ...

    pool = object()
    await any_app.configure_task("sum").defer_async(a=1)
    await any_app.run_worker_async(wait=False, name="bob", additional_context={"pool": pool})

    assert seen == [({"a": 1}, any_app, "bob", "bob"), "add", pool]


@KINDS
async def test_middleware_may_stop_the_worker_from_anywhere_and_more_than_once(
    any_app: procrastinate.App, kind: str
) -> None:
    """The job that runs ends as if nothing had happened; the next one stays."""
    workers: list[RunningWorker] = []

    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        workers.append(worker)
        worker.stop()
        worker.stop()
        return call_next()

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        workers.append(worker)
        worker.stop()
        worker.stop()
        await asyncio.sleep(0.05)
        return await call_next()

    middleware: Any = on_loop if kind == "coroutine" else plain
    task = task_of_kind(any_app, kind, lambda: time.sleep(0.05), middleware=middleware)
    ids = await task.batch_defer_async({}, {})
    await asyncio.wait_for(any_app.run_worker_async(), 20)
    workers[0].stop()  # after the end

    jobs = await any_app.job_manager.list_jobs_async(id=ids)
    assert [(job.status, job.attempts) for job in jobs] == [
        (Status.SUCCEEDED, 1),
        (Status.TODO, 0),
    ]


async def test_a_worker_may_be_stopped_when_its_loop_is_gone(dsn: str) -> None:
    workers: list[RunningWorker] = []
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))

    @app.task(name="task")
    def task() -> None: ...

    async def keep(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        workers.append(worker)

    async def defer() -> None:
        async with app.open_async():
            await task.defer_async()

    await asyncio.to_thread(asyncio.run, defer())
    await asyncio.to_thread(app.run_worker, wait=False, middleware=keep)
    workers[0].stop()


async def test_additional_context_is_one_read_only_mapping_for_all_jobs(
    any_app: procrastinate.App,
) -> None:
    given: dict[str, Any] = {"counts": []}
    seen: list[Any] = []

    @any_app.task(name="task", pass_context=True)
    async def count(context: JobContext) -> None:
        context.additional_context["counts"].append(context.job.id)
        seen.append(context.additional_context)
        context.additional_context["mine"] = 1  # type: ignore[index]

    ids = await count.batch_defer_async({}, {})
    await any_app.run_worker_async(wait=False, additional_context=given)

    assert given == {"counts": ids}
    assert seen[0] is seen[1]
    assert dict(seen[0]) == given
    jobs = await any_app.job_manager.list_jobs_async(id=ids)
    assert [job.errors[0]["type"] for job in jobs] == ["TypeError", "TypeError"]


# Requests to end


async def abort_when(
    app: procrastinate.App, working: Callable[..., Any], task: Any, began: Any, **options: Any
) -> Job:
    job_id = await task.defer_async()
    async with working(app, **options):
        while not began.is_set():
            await asyncio.sleep(0.005)
        assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
        async with asyncio.timeout(10):
            while not (job := await app.job_manager.get_job_async(job_id)).status.is_final:
                await asyncio.sleep(0.01)
    return job


async def test_middleware_that_waits_on_the_loop_is_cancelled_before_a_function_begins(
    any_app: procrastinate.App, working: Callable[..., Any]
) -> None:
    began, runs = asyncio.Event(), []

    async def waits(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        began.set()
        await asyncio.sleep(3600)
        return await call_next()

    @any_app.task(name="function")
    def function() -> None:
        runs.append(1)

    job = await abort_when(any_app, working, function, began, middleware=waits)

    assert (job.status, runs) == (Status.ABORTED, [])


async def test_middleware_that_waits_for_a_thread_is_not_cancelled_and_the_function_is_told(
    any_app: procrastinate.App, working: Callable[..., Any]
) -> None:
    began, notes = threading.Event(), []

    async def waits(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        result = await call_next()
        notes.append((result, context.abort_reason()))

    @any_app.task(name="task", pass_context=True)
    def function(context: JobContext) -> str:
        began.set()
        while not context.should_abort():
            time.sleep(0.005)
        return "done all the same"

    job = await abort_when(any_app, working, function, began, middleware=waits)

    assert job.status is Status.SUCCEEDED
    assert notes == [("done all the same", AbortReason.USER_REQUEST)]


async def test_a_timeout_of_middleware_waits_for_the_thread(any_app: procrastinate.App) -> None:
    """A job whose thread runs on must not seem to have ended, and be tried again beside it."""
    running = most = 0

    async def impatient(
        call_next: AsyncCallNext, context: JobContext, worker: RunningWorker
    ) -> Any:
        async with asyncio.timeout(0.02):
            await call_next()

    @any_app.task(name="function", retry=1)
    def function() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.1)
        running -= 1

    job = await ran(any_app, function, middleware=impatient, concurrency=2)

    assert (job.status, job.attempts, most) == (Status.FAILED, 2, 1)
    assert [error["type"] for error in job.errors] == ["TimeoutError", "TimeoutError"]


@KINDS
async def test_a_tasks_timeout_holds_for_its_middleware_too(
    any_app: procrastinate.App, kind: str
) -> None:
    def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        while not context.should_abort():
            time.sleep(0.005)
        raise JobAborted

    async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        await asyncio.sleep(3600)

    middleware: Any = on_loop if kind == "coroutine" else plain
    task = task_of_kind(any_app, kind, lambda: None, middleware=middleware, timeout=0.05)
    job = await ran(any_app, task)

    assert job.status is Status.FAILED
    assert [error["type"] for error in job.errors] == ["procrastinate.errors.TaskTimeout"]


async def test_middleware_of_a_job_that_was_handed_back_ends_in_peace(
    app: procrastinate.App,
) -> None:
    """The worker has left; what the thread still does changes nothing."""
    began, let_go, notes = threading.Event(), threading.Event(), []
    ended = threading.Event()

    def notes_end(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
        try:
            return call_next()
        finally:
            worker.stop()
            notes.append(context.abort_reason())
            ended.set()

    async def outside(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        return await call_next()

    @app.task(name="stubborn", middleware=notes_end, timeout=0.05)
    def stubborn() -> None:
        began.set()
        let_go.wait(20)

    job_id = await stubborn.defer_async()
    options = {"shutdown_graceful_timeout": 0, "middleware": outside}
    worker = asyncio.create_task(app.run_worker_async(**options))
    await asyncio.to_thread(began.wait, 10)
    worker.cancel()
    await asyncio.wait([worker])
    let_go.set()
    await asyncio.to_thread(ended.wait, 10)
    await asyncio.sleep(0.05)

    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, job.attempts, notes) == (Status.TODO, 1, [AbortReason.SHUTDOWN])


async def test_a_loop_that_ends_does_not_wait_for_a_thread_behind_middleware() -> None:
    """A worker in the background, of a program that ends without a word to it."""
    app = procrastinate.App(connector=InMemoryConnector())
    began, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    @app.task(name="stubborn")
    def stubborn() -> None:
        began.set()
        let_go.wait(20)
        ended.set()

    async def outside(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
        return await call_next()

    async def program() -> None:
        async with app.open_async():
            await stubborn.defer_async()
            worker = asyncio.create_task(
                app.run_worker_async(middleware=outside, install_signal_handlers=False)
            )
            await asyncio.to_thread(began.wait, 10)
            assert not worker.done()

    await asyncio.to_thread(asyncio.run, program())
    assert not ended.is_set()
    let_go.set()


async def test_plain_middleware_refuses_a_coroutine_that_it_would_lose(
    any_app: procrastinate.App,
) -> None:
    runs: list[int] = []

    async def hidden() -> None:
        runs.append(1)

    def forgets(call_next: CallNext, context: JobContext, worker: RunningWorker) -> None:
        call_next()

    task = any_app.task(name="wrapper", middleware=forgets)(lambda: hidden())
    job = await ran(any_app, task)

    assert (job.status, runs) == (Status.FAILED, [])
    assert "make it an `async def`" in job.errors[0]["message"]


async def test_the_context_has_the_task_and_the_app_which_defer_jobs() -> None:
    memory = InMemoryConnector()
    app = procrastinate.App(connector=memory)
    blueprint = procrastinate.Blueprint()

    @blueprint.task(name="count", aliases=["old"], pass_context=True, queue="counting")
    def count(context: JobContext, n: int) -> None:
        if n:
            context.task.defer(n=n - 1)
        else:
            context.app.configure_task("last").defer()

    @app.task(name="last")
    def last() -> None: ...

    app.add_tasks_from(blueprint, namespace="b")
    app.configure_task("b:old").defer(n=2)
    await app.run_worker_async(wait=False, queues=["default", "counting"])
    assert [(job.task_name, job.queue, job.task_kwargs) for job in memory.jobs] == [
        ("b:count", "counting", {"n": 2}),
        ("b:count", "counting", {"n": 1}),
        ("b:count", "counting", {"n": 0}),
        ("last", "default", {}),
    ]
