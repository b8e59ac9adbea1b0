"""The part of the job manager that waits for the end of jobs, and gives their results."""

from __future__ import annotations

from typing import Any

from procrastinate.app.reading_jobs import ReadingJobs, _found
from procrastinate.app.waiting import Timeout, Wait, until_ended, until_ended_async
from procrastinate.connector import CallerConnection
from procrastinate.model.endings import ended
from procrastinate.model.job import Job


class WaitingForJobs(ReadingJobs):
    """Ends and results of jobs of any task."""

    def wait_until_ended(
        self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False
    ) -> Job:
        """Wait until a job has ended, however it does, and return it as it had ended.

        ``timeout`` is in seconds, or a timedelta; None waits as long as it takes, 0 looks once.
        Retries in between do not end the wait. In memory, waiting runs what is due.

        Raises TimeoutError, `JobNotFound` if there is no such job when the wait begins, and
        `ResultLost` if it is removed meanwhile. Raises `InvalidOption` inside of a task whose
        worker serves the job's queue, unless ``allow_in_worker`` is true, and in a coroutine, where
        `wait_until_ended_async` is to be awaited.
        """
        return until_ended(self._gateway, id, Wait.of(timeout, allow_in_worker))

    async def wait_until_ended_async(
        self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False
    ) -> Job:
        """Wait until a job has ended; see `wait_until_ended`."""
        return await until_ended_async(self._gateway, id, Wait.of(timeout, allow_in_worker))

    def get_result(self, id: int, *, connection: CallerConnection | None = None) -> Any:
        """Return the result of a job that has ended, without waiting.

        Raises TimeoutError if it has not ended, `JobFailed`, `JobWasCancelled` or `JobWasAborted`
        if it did not succeed, `ResultNotKept`, and `JobNotFound`.
        """
        flow = self._get(id, self._loads_as_it_can)
        return ended.value_of(_found(id, self._gateway.run_by_hand(flow, connection=connection)))

    async def get_result_async(self, id: int, *, connection: CallerConnection | None = None) -> Any:
        """Return the result of a job that has ended; see `get_result`."""
        flow = self._get(id, self._loads_as_it_can)
        job = await self._gateway.run_by_hand_async(flow, connection=connection)
        return ended.value_of(_found(id, job))
