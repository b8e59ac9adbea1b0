"""What a worker calls for a task of Django's: signals, the context, and the function itself.

The signals of a start and an end are sent in the thread of a plain function, and awaited around a
coroutine. What a receiver raises is logged by Django and changes nothing for the job. There is one
``task_finished`` for a job: an attempt that will be tried again has not finished it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from traceback import format_exception
from typing import Any

from django.utils import timezone

from procrastinate import JobContext
from procrastinate.errors import JobAborted
from procrastinate_django.djangos import (
    DEFAULT_TASK_BACKEND_ALIAS,
    Status,
    TaskContext,
    changed,
    normalize_json,
    task_finished,
    task_started,
)
from procrastinate_django.results import error_of, result_of

#: What ends an attempt from outside; most often the job is handed back then.
_INTERRUPTIONS = (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)


def runner(task: Any) -> Callable[..., Any]:
    """Return the function that procrastinate registers for a task: a coroutine if the task is."""
    return _coroutine(task) if inspect.iscoroutinefunction(task.func) else _function(task)


def _function(task: Any) -> Callable[..., Any]:
    def run(
        context: JobContext,
        args: list[Any],
        kwargs: dict[str, Any],
        backend: str = DEFAULT_TASK_BACKEND_ALIAS,
        **besides: Any,
    ) -> Any:
        result = result_of(context.job, backend)
        sender = type(result.task.get_backend())
        task_started.send_robust(sender, task_result=result)
        try:
            value = normalize_json(task.func(*_before(task, result), *args, **kwargs))
        except BaseException as exc:
            if _is_last(context, exc):
                task_finished.send_robust(sender, task_result=_failed(result, exc))
            raise
        task_finished.send_robust(sender, task_result=_succeeded(result, value))
        return value

    return run


def _coroutine(task: Any) -> Callable[..., Any]:
    async def run(
        context: JobContext,
        args: list[Any],
        kwargs: dict[str, Any],
        backend: str = DEFAULT_TASK_BACKEND_ALIAS,
        **besides: Any,
    ) -> Any:
        result = result_of(context.job, backend)
        sender = type(result.task.get_backend())
        await task_started.asend_robust(sender, task_result=result)
        try:
            value = normalize_json(await task.func(*_before(task, result), *args, **kwargs))
        except BaseException as exc:
            if _is_last(context, exc):
                await task_finished.asend_robust(sender, task_result=_failed(result, exc))
            raise
        await task_finished.asend_robust(sender, task_result=_succeeded(result, value))
        return value

    return run


def _before(task: Any, result: Any) -> tuple[Any, ...]:
    """Return what goes in front of a job's own arguments."""
    return (TaskContext(task_result=result),) if task.takes_context else ()


def _is_last(context: JobContext, exc: BaseException) -> bool:
    """Return whether a job that raises this will not be tried again."""
    if isinstance(exc, _INTERRUPTIONS):
        return False
    strategy = context.task.definition.retry
    if strategy is None or isinstance(exc, JobAborted) or context.should_abort():
        return True
    try:
        return strategy.get_retry_decision(exception=exc, job=context.job) is None
    except Exception:  # the job fails, and says why
        return True


def _failed(result: Any, exc: BaseException) -> Any:
    error = error_of(type(exc), "".join(format_exception(exc)))
    return changed(
        result,
        status=Status.FAILED,
        finished_at=timezone.now(),
        errors=[*result.errors, error],
    )


def _succeeded(result: Any, value: Any) -> Any:
    return changed(
        result, status=Status.SUCCESSFUL, finished_at=timezone.now(), _return_value=value
    )
