"""Calls that block, for asynchronous callers."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from procrastinate.cancellation import end_of

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, own: bool = False) -> T:
    """Run a blocking function in a thread. A cancellation is delivered once it has ended.

    It waits for a thread of the loop's default executor, which other calls may have taken for ever.
    With ``own`` it has one that is made for it.
    """
    running = _begun_in_thread(function, own=own)
    cancellation = await end_of(running)
    if cancellation is not None:
        raise cancellation
    return running.result()


def _begun_in_thread(function: Callable[[], T], *, own: bool) -> asyncio.Future[T]:
    """Begin a call; also if a task has shut the loop's default executor down."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    call = functools.partial(contextvars.copy_context().run, function)
    if not own:
        with contextlib.suppress(RuntimeError):
            return loop.run_in_executor(None, call)
    spare = ThreadPoolExecutor(1)
    try:
        return loop.run_in_executor(spare, call)
    finally:
        spare.shutdown(wait=False)
