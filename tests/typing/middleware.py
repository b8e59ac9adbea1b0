"""What a type checker knows of middleware, timeouts and the context. Never run, only checked."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, assert_type

import procrastinate
from procrastinate import (
    AbortReason,
    App,
    AsyncCallNext,
    AsyncMiddleware,
    Blueprint,
    CallNext,
    JobContext,
    Middleware,
    RunningWorker,
)

app = App(connector=procrastinate.AiopgConnector(host="somehost"))
blueprint = Blueprint()


def plain(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
    assert_type(context.job.attempts, int)
    assert_type(context.app, App)
    assert_type(context.task.name, str)
    assert_type(context.task.defer(a=1), int)
    assert_type(context.app.configure_task("other").defer(b=2), int)
    assert_type(context.app.tasks["other"].defer(b=2), int)
    context.task.configure(colour="red")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    assert_type(context.additional_context, Mapping[str, Any])
    assert_type(context.abort_reason(), AbortReason | None)
    assert_type(worker.name, str)
    worker.stop()
    return call_next()


async def on_loop(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
    return await call_next()


def wrong(call_next: CallNext) -> Any: ...


a_plain_one: Middleware = plain
an_async_one: AsyncMiddleware = on_loop
not_one: Middleware = wrong  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


@app.task(middleware=plain, timeout=5)
def function(a: int) -> int:
    return a


@app.task(middleware=[on_loop, on_loop], timeout=datetime.timedelta(minutes=1))
async def coroutine(a: int) -> int:
    return a


@blueprint.task(middleware=(plain,), timeout=None, pass_context=True)
def with_context(context: JobContext, a: int) -> int:
    return a


def a_wrapped_task_is_deferred_like_any_other() -> None:
    assert_type(function.defer(a=1), int)
    assert_type(coroutine.defer(a=1), int)
    assert_type(with_context.defer(a=1), int)
    function.defer(b=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
