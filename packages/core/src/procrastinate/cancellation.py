"""Waiting for what must come to its end, although the task that waits is cancelled meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


async def end_of(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for a future's end through any number of cancellations, and return the last of them.

    One is not enough: a cancel scope of anyio cancels its tasks in each turn of the loop. The
    future's exception counts as seen.
    """
    import asyncio  # not at the top: synchronous code does without

    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancellation = exc
    if not future.cancelled():
        future.exception()
    return cancellation
