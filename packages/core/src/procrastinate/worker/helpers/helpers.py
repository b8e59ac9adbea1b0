"""The tasks that run on the event loop beside a shift's main one, and must live as long as it.

Rules

1. No death goes unseen. If a helper raises, or returns before its time, the shift is told by name.
2. Code that runs on the same loop may cancel all tasks that it finds. That is no death: the helper
   starts again at once.
3. A helper's `KeyboardInterrupt` or `SystemExit` is a death like any other. Without the wrapper,
   asyncio would end the loop and everything on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from procrastinate.worker.log import logger


class Helpers:
    """Runs helpers until `stop`, and calls ``on_death`` once for each that ends before that."""

    def __init__(self, on_death: Callable[[str, BaseException], None]) -> None:
        self._on_death = on_death
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def start(self, name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a helper, or start it once more after its death."""
        # Not by the loop's task factory, which may be one that a job has left behind.
        loop = asyncio.get_running_loop()
        task = asyncio.Task(self._live(name, make), loop=loop, name=f"procrastinate-{name}")
        task.add_done_callback(lambda ended: self._ended(name, make, ended))
        self._tasks[name] = task

    async def stop(self) -> None:
        """End all helpers and wait for them."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _live(self, name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await make()
        except (KeyboardInterrupt, SystemExit) as exc:
            raise HelperDied(f"{name}: {type(exc).__name__}") from exc  # rule 3

    def _ended(
        self,
        name: str,
        make: Callable[[], Coroutine[Any, Any, None]],
        task: asyncio.Task[None],
    ) -> None:
        if task.cancelled():
            if not self._stopping:
                logger.warning("%s was cancelled by other code on the event loop: it goes on", name)
                self.start(name, make)
            return
        exc = task.exception() or HelperDied(f"{name} has ended before its time")
        if not self._stopping:
            self._on_death(name, exc)


class HelperDied(Exception):
    """What a helper died of, if that was nothing that a task can raise."""
