"""Waiting for a reason to go on."""

from __future__ import annotations

import asyncio


async def woken_within(wake: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, at most for these seconds (None: without end)."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
