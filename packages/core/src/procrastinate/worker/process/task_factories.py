"""A task factory that a job leaves behind must not keep the worker from making tasks.

The listener, the connectors and `asyncio.Runner` make tasks by the event loop's factory. One that
raises `SystemExit`, or returns no task, would end them and so the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from procrastinate.model.text import failure, printable
from procrastinate.worker.log import logger


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """Let each factory that is given to a loop be dropped at its first failure."""
    set_factory: Any = loop.set_task_factory

    def set_guarded(factory: Any) -> None:
        set_factory(None if factory is None else _Guarded(factory, loop))

    try:
        loop.set_task_factory = set_guarded  # type: ignore[method-assign]
    except AttributeError:
        pass  # a loop that is written in C, uvloop's for instance, keeps its method


class _Guarded:
    def __init__(self, factory: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._factory = factory
        self._loop: Any = loop

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **given: Any
    ) -> Any:
        try:
            task = self._factory(loop, coroutine, **given)
            if asyncio.isfuture(task):
                return task
            raise TypeError(f"it returned a {type(task).__name__}, not a task")
        except BaseException as broken:
            if self._loop.get_task_factory() is self:
                self._loop.set_task_factory(None)
            what = failure.headline_of(broken)
            logger.error(
                "the event loop's task factory failed, and is dropped: %s", printable.line(what)
            )
            return asyncio.Task(coroutine, loop=loop, **given)
