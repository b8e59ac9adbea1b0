"""What a fetcher hears between its claims, and what its plan makes of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from procrastinate.model.claiming.scans import ScanPlan
from procrastinate.model.job import Job


class Hearing:
    """Tells a plan of scans what became ready, what went back, and when something may be missed.

    ``serves`` says whether a queue is one of those that are claimed from.
    """

    def __init__(
        self, plan: ScanPlan, serves: Callable[[str], bool], clock: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._clock = clock
        self.serves = serves

    def hear(self, queue: str) -> bool:
        """Note that a job became ready in a queue, and return whether it is served."""
        is_served = self.serves(queue)
        if is_served:
            self.heard_of(queue)
        return is_served

    def heard_of(self, queue: str) -> None:
        """Note that a job of a queue that is served became ready."""
        self._plan = self._plan.heard_of(queue)

    def hear_of_schedule(self, queue: str = "") -> None:
        """Note that a job was scheduled for the near future."""
        self._plan = self._plan.schedule_changed()

    def went_back(self, jobs: Sequence[Job], partition: int = 0) -> None:
        """Note what was written: these jobs went back to their places, or a lock was freed."""
        if jobs:
            self._plan = self._plan.went_back(jobs)

    def poll(self) -> None:
        """Look at everything, because nothing was heard for a polling interval."""
        self.look_at_everything()

    def look_at_everything(self) -> None:
        """Make the next claim a full one, schedule included: after a gap in what was heard."""
        self._plan = self._plan.gap_in_what_was_heard()

    def found(self, queue: str | None) -> None:
        """Note that jobs which were not announced are ready, of one queue or of several (None)."""
        if queue is None:
            self.look_at_everything()
        else:
            self._plan = self._plan.found_in(queue)

    @property
    def unsure(self) -> bool:
        """Whether the last claim met jobs that another transaction was deciding about."""
        return self._plan.undecided > 0

    @property
    def seconds_to_next_look(self) -> float:
        """How long to wait at the most, if nothing is heard."""
        return self._plan.seconds_to_next_look(self._clock())
