"""`Observer`: what a program may watch of its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from procrastinate.model.job import Job, NewJob

if TYPE_CHECKING:  # programs that only defer do without
    from procrastinate.observing import events


class Observer:
    """Base class of what watches an app's jobs. Override what you need.

    Give instances to ``App(observers=[...])``, or the names of installed ones. Methods that are not
    overridden are not called, and cost nothing.

    All methods are plain functions, which are called where the event happens: those about
    deferring in the caller's thread or event loop, those of a worker on its event loop, or in one
    of its threads. So each has to return at once. Whatever one raises is logged once for each kind,
    and changes nothing for the jobs.

    Each attempt that is started leads to exactly one of `on_ended`, `on_requeued` and
    `on_lease_lost`, unless its process dies or the database stays away until the worker gives up.
    A job that was given up because its workers died, or because no live worker knows its task, is
    told once by `on_ended`, by the worker that wrote it. Observers are not told of jobs that are
    deleted because they have ended (`delete_jobs`, retention).
    """

    def on_deferred(self, event: events.Deferred) -> None:
        """Jobs were inserted by this program, or by a worker of it for periodic tasks."""

    def on_changed(self, event: events.Changed) -> None:
        """Jobs were cancelled, retried or deleted by hand, through an app of this program.

        A change of many jobs is told in batches, each after it was committed.
        """

    def on_claimed(self, event: events.Claimed) -> None:
        """A worker of this program has got jobs."""

    def on_started(self, event: events.Started) -> None:
        """Attempts have begun."""

    def on_raised(self, event: events.Raised) -> None:
        """An attempt raised; what becomes of its job is decided, and not written yet."""

    def on_ended(self, event: events.Ended) -> None:
        """Jobs have ended, and it is written."""

    def on_requeued(self, event: events.Requeued) -> None:
        """Jobs went back to the queue, and it is written.

        A worker may have claimed them again before this is called.
        """

    def on_lease_lost(self, event: events.LeaseLost) -> None:
        """Jobs were taken from this worker."""

    def on_recovered(self, event: events.Recovered) -> None:
        """Jobs of dead workers were taken over."""

    def on_paused(self, event: events.Paused) -> None:
        """A worker has noticed that a queue which it serves is paused, or no longer."""

    def on_busy(self, event: events.Busy) -> None:
        """Another number of slots has a job; told at most four times a second."""

    def on_worker_started(self, event: events.WorkerStarted) -> None:
        """A worker has begun."""

    def on_worker_stopped(self, event: events.WorkerStopped) -> None:
        """A worker has ended."""

    def around_defer(self, jobs: Sequence[NewJob]) -> AbstractContextManager[object]:
        """Return a context manager that is entered around the insertion of jobs.

        On entering it may set or add to the ``meta`` of each, a dict of JSON values: it comes back
        as ``Job.meta``. A key whose value is not JSON, or with which ``meta`` would be longer than
        16 KiB, is left out, and the log names it once. It is not called for jobs of periodic tasks.
        """
        return nullcontext()

    def around_attempt(self, job: Job) -> AbstractContextManager[object]:
        """Return a context manager that is entered around a task's code, middleware included.

        In the attempt's own context: on the event loop for an ``async def`` task, in its thread
        for a plain function. What the task raises passes through it, and cannot be swallowed.
        """
        return nullcontext()


#: The names of all methods, as one may override them.
HOOKS = tuple(name for name in vars(Observer) if name.startswith(("on_", "around_")))
