"""How many jobs a worker claims beyond its free slots.

While jobs are much shorter than a round trip to the database, a worker that claims only as many
as it has slots waits most of the time; while they are long, a claimed job that waits could run
elsewhere. So the number of jobs claimed ahead is what the slots get through in a few round trips::

    concurrency * AHEAD * round_trip / job_length

and none at all once a job takes longer than a round trip. Both lengths are moving averages; a
single long job is felt at once, because it weighs by its length.
"""

from __future__ import annotations

MAX_AHEAD = 1_000  # jobs: two claims, so that one can be worked on while the next is under way
AHEAD = 4  # round trips
WEIGHT = 0.1  # of the newest observation in a moving average


class Prefetch:
    """The moving averages, and the number that follows from them."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._job_seconds: float | None = None
        self._claim_seconds: float | None = None

    def job_took(self, seconds: float) -> None:
        """Note how long a job ran."""
        self._job_seconds = _moved(self._job_seconds, seconds)

    def claim_took(self, seconds: float) -> None:
        """Note how long a claim took."""
        self._claim_seconds = _moved(self._claim_seconds, seconds)

    @property
    def size(self) -> int:
        """How many jobs to claim beyond the free slots."""
        if self._job_seconds is None or self._claim_seconds is None:
            return 0
        if self._job_seconds >= self._claim_seconds:
            return 0
        job_seconds = max(self._job_seconds, 1e-6)
        return min(MAX_AHEAD, int(self._concurrency * AHEAD * self._claim_seconds / job_seconds))


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)
