"""In which partition the jobs of a worker are."""

from __future__ import annotations

from collections.abc import Iterable

from procrastinate.model.job import Job
from procrastinate.model.partitions import Partitions


class Places:
    """Says the partition of a job that was claimed.

    Ids say it, but for those of jobs from before the database was distributed. These are noted.
    """

    def __init__(self, partitions: Partitions) -> None:
        self.partitions = partitions
        self._noted: dict[int, int] = {}

    def note(self, jobs: Iterable[Job], partition: int) -> None:
        """Note that jobs were claimed from a partition."""
        boundary = self.partitions.boundary_id
        if boundary:
            self._noted |= {job.id: partition for job in jobs if job.id <= boundary}

    def of(self, job_id: int) -> int:
        """Return the partition of a job that was claimed and is not forgotten."""
        partition = self.partitions.of_id(job_id)
        return self._noted[job_id] if partition is None else partition

    def forget(self, ids: Iterable[int]) -> None:
        """Forget jobs whose endings are written."""
        if self._noted:
            for job_id in ids:
                self._noted.pop(job_id, None)
