"""Waiting without notifications: to look now and then, on the caller's own connections.

Rules

1. This is for connectors that cannot listen, for those that can make no connection of their own
   beside a pool that was handed in, and for waits too short to make a connection for.
2. There is at least one look, whatever the timeout is.
3. A database that is away is waited for until the timeout. The only look of a wait without any time
   raises what it raises.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator
from typing import TypeAlias

from procrastinate.connector import AsyncConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.model.endings import ended
from procrastinate.model.endings.waits import pause_after
from procrastinate.model.job import Job
from procrastinate.model.partitions import Partitions
from procrastinate.storage import waits as flows
from procrastinate.storage.rows import Loads
from procrastinate.storage.waits import Look
from procrastinate.waiting.way import CALL, Way, passes

#: Yields the seconds to wait for before each look, and is sent what that found, or None if the
#: database did not say. Returns the job, or None if it was removed.
Looks: TypeAlias = Generator[float, "Look | ConnectorException | TimeoutError", "Job | None"]
Make: TypeAlias = Callable[[Partitions], Flow[Look]]


def looks(job_id: int, timeout: float, clock: Callable[[], float] = time.monotonic) -> Looks:
    """Say when to look for a job, until it has ended.

    Raises `JobNotFound`, TimeoutError, and what the database says if that will not go away.
    """
    began = clock()
    pause, was_seen = 0.0, False
    while True:
        found = yield pause
        if isinstance(found, Look):
            if not found.is_there:
                if was_seen:
                    return None
                raise ended.not_visible(job_id)
            if found.job is not None:
                return found.job
            was_seen = True
        elif timeout <= 0 or not passes(found):
            raise found
        waited = clock() - began
        if waited >= timeout:
            raise ended.not_in_time(job_id, timeout)
        pause = min(pause_after(waited), timeout - waited)


def until_ended(way: Way, job_id: int, timeout: float, loads: Loads) -> Job | None:
    """Look until a job has ended."""
    steps, make = looks(job_id, timeout), _make(job_id, loads)
    began = time.monotonic()
    try:
        pause = next(steps)
        while True:
            time.sleep(pause)
            left = max(0.0, timeout - (time.monotonic() - began))
            try:
                found: Look | ConnectorException = way.run_by_hand(
                    make, patience=None if left == math.inf or timeout <= 0 else left
                )
            except ConnectorException as exc:
                found = exc
            pause = steps.send(found)
    except StopIteration as stop:
        job: Job | None = stop.value
        return job
    finally:
        steps.close()


async def until_ended_async(way: Way, job_id: int, timeout: float, loads: Loads) -> Job | None:
    """Look until a job has ended."""
    steps, make = looks(job_id, timeout), _make(job_id, loads)
    limit = CALL if isinstance(way.connector, AsyncConnector) else None
    try:
        pause = next(steps)
        while True:
            if pause:
                await asyncio.sleep(pause)
            try:
                found: Look | ConnectorException | TimeoutError = await way.run_by_hand_async(
                    make, limit=limit
                )
            except (ConnectorException, TimeoutError) as exc:
                found = exc
            pause = steps.send(found)
    except StopIteration as stop:
        job: Job | None = stop.value
        return job
    finally:
        steps.close()


def _make(job_id: int, loads: Loads) -> Make:
    return lambda partitions: flows.look(job_id, partitions, loads)
