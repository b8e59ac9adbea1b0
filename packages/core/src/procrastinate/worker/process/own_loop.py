"""The worker's own tasks and its own event loop: jobs can neither cancel nor stop them.

Rules

1. Code that cancels every task of the loop means those that it knows of. The worker's own tasks are
   not in `asyncio.all_tasks()`; the worker cancels them itself when it ends.
2. A task factory that a job leaves behind is dropped when it fails, see `task_factories`.
3. A job may stop the loop: by ``loop.stop()``, or by a `SystemExit` or `KeyboardInterrupt` in a
   callback or in a task that it started. If the process belongs to the worker, the loop goes on.
   (Ctrl-C raises nothing while the worker handles SIGINT.)
4. A `SystemExit` of the worker's program does not pass through the loop. It would stop the loop
   once more while the loop is being closed, and then nothing would be closed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from procrastinate.model.text import failure, printable
from procrastinate.worker.log import logger
from procrastinate.worker.process.event_loop import new_event_loop
from procrastinate.worker.process.signals import INT, Found, found
from procrastinate.worker.process.task_factories import guard

T = TypeVar("T")


def own_task(coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Return a task of the running loop that is hidden, and that no task factory has made."""
    task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), name=name)
    hide(task)
    return task


def hide(task: asyncio.Task[Any]) -> None:
    """Keep a task out of `asyncio.all_tasks()`."""
    asyncio._unregister_task(task)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a worker's program as `asyncio.run` does, but go on if a job has stopped the loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        guard(runner.get_loop())
        task = runner.get_loop().create_task(_keeping_exit(main))
        hide(task)
        try:
            ended = _run_until_done(runner, task)
        finally:
            if not task.done():
                asyncio._register_task(task)  # so that the runner cancels it and waits for its end
    if isinstance(ended, _Exit):
        raise ended.exc
    return ended


@dataclass(frozen=True)
class _Exit:
    """A request to end the process, which the program raised."""

    exc: SystemExit


async def _keeping_exit(main: Coroutine[Any, Any, T]) -> T | _Exit:
    try:
        return await main
    except SystemExit as exc:
        return _Exit(exc)


def _run_until_done(runner: asyncio.Runner, task: asyncio.Task[T]) -> T:
    while True:
        try:
            return runner.run(_result_of(task))
        except (SystemExit, KeyboardInterrupt, RuntimeError) as exc:
            if task.done() or runner.get_loop().is_closed():
                raise
            if isinstance(exc, KeyboardInterrupt) and not _is_by_a_job():
                raise
            logger.error("a job stopped the event loop; it goes on: %s", _shown(exc))


def _is_by_a_job() -> bool:
    """Whether a KeyboardInterrupt was raised by code, because Ctrl-C would raise none."""
    return found(signal.getsignal(INT)) is Found.HANDLED


def _shown(exc: BaseException) -> str:
    return printable.line(failure.headline_of(exc))


async def _result_of(task: asyncio.Task[T]) -> T:
    current = asyncio.current_task()
    assert current is not None
    hide(current)
    return await task
