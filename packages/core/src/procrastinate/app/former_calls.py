"""Calls of the job manager that are kept for code written for releases up to 3.x."""

from __future__ import annotations

import warnings
from datetime import datetime

from procrastinate.app.changing_jobs import ChangingJobs
from procrastinate.model.job import Job


class FormerCalls(ChangingJobs):
    """What works as it did, with a DeprecationWarning."""

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> bool:
        """Make a job due again. Deprecated: use `retry_job_by_id_async`.

        A job that runs is left alone, also if its worker is dead: other workers recover it.
        """
        warnings.warn(
            "retry_job(job) is called retry_job_by_id_async(job.id) now",
            DeprecationWarning,
            stacklevel=2,
        )
        return await self.retry_job_by_id_async(job.id, retry_at, priority, queue, lock)
