"""Calls that block, for asynchronous callers."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread. A cancellation is delivered once it has ended."""
    import asyncio  # not at the top: synchronous code does without

    running = asyncio.ensure_future(_begun_in_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen; the cancellation is what the caller gets
        raise


def _begun_in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Begin a call in the loop's default executor or, if a task has shut that down, in another."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    call = functools.partial(contextvars.copy_context().run, function)
    try:
        return loop.run_in_executor(None, call)
    except RuntimeError:
        spare = ThreadPoolExecutor(1)
        try:
            return loop.run_in_executor(spare, call)
        finally:
            spare.shutdown(wait=False)
