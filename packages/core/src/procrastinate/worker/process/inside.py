"""Whether code runs inside of a task, and which queues the worker around it serves.

A context variable says so, which follows into threads by `asyncio.to_thread` and into new tasks of
the loop, but not into a thread that the task starts by itself.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inside:
    """The worker around a task. ``queues`` is None if it serves all.

    ``connector`` is the one that the worker runs on.
    """

    worker_name: str
    queues: tuple[str, ...] | None
    connector: object = None

    def serves(self, queue: str) -> bool:
        """Whether this worker also runs the jobs of a queue."""
        return self.queues is None or queue in self.queues


_INSIDE: ContextVar[Inside | None] = ContextVar("procrastinate_inside", default=None)


def mark(context: Context, inside: Inside) -> None:
    """Let code that runs in a context, or in a copy of it, know that it is inside of a task."""
    context.run(_INSIDE.set, inside)


def current() -> Inside | None:
    """Return the worker around the running code; None outside of tasks."""
    return _INSIDE.get()
