"""How many jobs are in which state, as the job manager says."""

from __future__ import annotations

from dataclasses import dataclass

from procrastinate import App
from procrastinate_embedded.demo.tasks import QUEUE


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of jobs; ``ended`` in any way, ``failed`` among them."""

    waiting: int
    running: int
    ended: int
    failed: int

    @property
    def remarks(self) -> str:
        """What is worth saying beside the number of jobs that have ended."""
        return f"{self.failed:,} failed" if self.failed else ""


def counts(app: App) -> Counts:
    """Return the numbers of the demo's jobs now."""
    for queue in app.job_manager.list_queues(queue=QUEUE):
        ended = queue.jobs_count - queue.todo - queue.doing
        return Counts(queue.todo, queue.doing, ended, queue.failed)
    return Counts(0, 0, 0, 0)
