"""Waiting for a job in memory: no worker is there to wait for, so to wait is to run what is due.

Rules

1. A job that has ended is returned as it is, and with a timeout of 0 nothing is run.
2. What is due is run as `run_jobs` does it. What tasks raise is kept in their jobs, not raised. A
   task that runs longer than the timeout is not interrupted.
3. A job that is scheduled for later than the timeout cannot end in time, nor can one that is
   scheduled at all while the clock stands. That is a TimeoutError at once.
4. Otherwise time passes as it does in reality. A worker of the test's own may have the job.
5. Coroutines that begin to wait together have one worker, with a slot for each: with a worker for
   each, 800 took 16 seconds. None joins a worker that runs already, which may run a job that waits
   for this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Generator
from typing import ClassVar, TypeAlias

from procrastinate import drive
from procrastinate.app.app import App
from procrastinate.model.endings import ended
from procrastinate.model.job import Job, Status
from procrastinate.model.worker_options import MAX_CONCURRENCY
from procrastinate.testing.clock import Clock
from procrastinate.testing.running import run_jobs, run_jobs_async

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.1  # seconds until the next look

#: Seconds to let pass; None: run what is due.
_Step: TypeAlias = float | None


class WaitingInMemory:
    """Where the calls of one app wait for jobs in memory."""

    def __init__(self, app: App, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    def until_ended(self, job_id: int, *, timeout: float | None) -> Job | None:
        """Return a job once it has ended, None if it was removed meanwhile.

        ``timeout`` is in seconds. Raises TimeoutError and `JobNotFound`.
        """
        return drive.run_steps(self._steps(job_id, timeout), self._run_step)

    async def until_ended_async(self, job_id: int, *, timeout: float | None) -> Job | None:
        """Return a job once it has ended; see `until_ended`."""
        return await drive.run_steps_async(self._steps(job_id, timeout), self._run_step_async)

    def _steps(self, job_id: int, timeout: float | None) -> Generator[_Step, None, Job | None]:
        limit = math.inf if timeout is None else timeout
        deadline = time.monotonic() + limit
        job = self._look(job_id)
        if job is None:
            raise ended.not_visible(job_id)
        if limit > 0 and not job.status.is_final:
            yield None
            job = self._look(job_id)
        pause = SHORTEST_PAUSE
        while job is not None and not job.status.is_final:
            left = deadline - time.monotonic()
            due_in = self._seconds_until_due(job)
            if left <= 0 or due_in > left:
                raise ended.not_in_time(job_id, limit)
            yield min(pause, left)
            if due_in <= 0:
                yield None
            job = self._look(job_id)
            pause = min(pause * 2, LONGEST_PAUSE)
        return job

    def _look(self, job_id: int) -> Job | None:
        found = self._app.job_manager.list_jobs(id=job_id)
        return found[0] if found else None

    def _seconds_until_due(self, job: Job) -> float:
        if job.status is not Status.TODO or job.scheduled_at is None:
            return 0.0
        now = self._clock.now()
        if job.scheduled_at > now and self._clock.is_frozen:
            raise TimeoutError(
                f"job {job.id} cannot end: it is scheduled for {job.scheduled_at.isoformat()}, and"
                f" the clock stands at {now.isoformat()}"
            )
        return (job.scheduled_at - now).total_seconds()

    def _run_step(self, step: _Step) -> None:
        if step is None:
            run_jobs(self._app, raise_errors=False)
        else:
            time.sleep(step)

    async def _run_step_async(self, step: _Step) -> None:
        if step is None:
            await _Together.of(self._app).run()
        else:
            await asyncio.sleep(step)


class _Together:
    """Waits that begin together, and the worker that runs what is due for all of them (rule 5)."""

    #: Those whose worker has not begun, by event loop and app.
    _forming: ClassVar[dict[tuple[asyncio.AbstractEventLoop, App], _Together]] = {}

    def __init__(self, app: App) -> None:
        self._app = app
        self._waits = 0
        self._key = asyncio.get_running_loop(), app
        self._forming[self._key] = self
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._begun)

    @classmethod
    def of(cls, app: App) -> _Together:
        """Return the waits that are about to begin on the running loop, or the first of others."""
        return cls._forming.get((asyncio.get_running_loop(), app)) or cls(app)

    def _begun(self, *_: object) -> None:
        if self._forming.get(self._key) is self:
            del self._forming[self._key]

    async def _work(self) -> None:
        self._begun()
        slots = min(self._waits, MAX_CONCURRENCY)
        await run_jobs_async(self._app, raise_errors=False, concurrency=slots)

    async def run(self) -> None:
        """Run what is due. If all waits are cancelled, so is the worker."""
        self._waits += 1
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._waits == 1:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
            raise
        finally:
            self._waits -= 1
