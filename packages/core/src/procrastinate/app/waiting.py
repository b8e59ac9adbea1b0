"""Waiting for the end of jobs: what `wait_for`, `call` and `wait_until_ended` have in common.

Rules

1. A task must not wait for a queue that its own worker serves: if each slot waits for a slot, none
   becomes free. That is refused before anything is deferred, and also for a job that has ended
   already, because code must not work by luck. Only ``allow_in_worker=True`` permits it.
2. Whether the app that waits leads to the worker's database cannot be known. A queue of the same
   name counts as the same queue.
3. On a connector that runs no SQL no worker is there to wait for. The connector runs what is due.
4. A plain wait in a coroutine would hold up the event loop, and for ever if that loop runs the
   worker. It is refused, but for a mere look (``timeout=0``).
5. A wait never looks inside of a transaction that the application has open, as in Django. There it
   would see the transaction's own jobs, which no worker can end before the commit, and under
   REPEATABLE READ it would never see an end. It looks on a connection of its own, so a job that is
   not committed does not exist.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, cast

from procrastinate.drive import Flow
from procrastinate.errors import InvalidOption
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.endings import ended
from procrastinate.model.job import Job
from procrastinate.model.text.printable import shown
from procrastinate.storage.places import found
from procrastinate.worker.process import inside
from procrastinate.worker.process.inside import Inside

#: How long to wait: seconds or a timedelta; None: without a limit.
Timeout: TypeAlias = float | timedelta | None


class Room(Protocol):
    """Where calls wait for the end of a job."""

    def until_ended(self, job_id: int, *, timeout: float | None) -> Job | None: ...

    async def until_ended_async(self, job_id: int, *, timeout: float | None) -> Job | None: ...


class _RunsWhatIsDue(Protocol):
    """A connector that runs no SQL."""

    def waiting_room(self, app: Any, /) -> Room: ...


@dataclass(frozen=True, slots=True)
class Wait:
    """The options of a wait, checked. ``timeout`` is seconds, None: without a limit."""

    timeout: float | None
    allow_in_worker: bool

    @classmethod
    def of(cls, timeout: Timeout, allow_in_worker: bool) -> Wait:
        """Return what was given. Raises `InvalidOption`."""
        return cls(
            checks.guarded(checks.check_wait, "timeout", timeout),
            checks.check_flag("allow_in_worker", allow_in_worker),
        )

    def check_queue(self, queue: str) -> None:
        """Raise `InvalidOption` if this would wait for the worker around it (rule 1)."""
        worker = self.worker_around
        if worker is not None and worker.serves(queue):
            raise _refusal(f"for a job of the queue {shown(queue)}", worker)

    def check_thread(self) -> None:
        """Raise `InvalidOption` if a plain wait would hold up an event loop (rule 4)."""
        if self.timeout != 0 and _is_on_loop():
            raise InvalidOption(
                "a plain wait would hold up the event loop of this thread, and a worker on it could"
                " not run the job: write `await` and the call whose name ends in _async, or wait in"
                " a thread (`asyncio.to_thread`)"
            )

    @property
    def worker_around(self) -> Inside | None:
        """The worker whose slot is occupied meanwhile, unless that is allowed."""
        return None if self.allow_in_worker else inside.current()


def _is_on_loop() -> bool:
    events = sys.modules.get("asyncio.events")  # who has not imported it has no loop
    return events is not None and events._get_running_loop() is not None


def until_ended(gateway: Gateway, job_id: int, wait: Wait) -> Job:
    """Return a job once it has ended; see `WaitingForJobs.wait_until_ended`."""
    job_id = _checked_id(job_id)
    with gateway.apart() as way:  # rule 5
        worker = wait.worker_around
        if worker is not None:
            flow = _of_other_queue(job_id, worker)
            wait.check_queue(_queue(job_id, way.run_by_hand(lambda at: found(job_id, at, flow))))
        wait.check_thread()
        job = _room(way).until_ended(job_id, timeout=wait.timeout)
    return _still_there(job_id, job)


async def until_ended_async(gateway: Gateway, job_id: int, wait: Wait) -> Job:
    """Return a job once it has ended; see `until_ended`."""
    job_id = _checked_id(job_id)
    async with gateway.apart_async() as way:  # rule 5
        worker = wait.worker_around
        if worker is not None:
            flow = _of_other_queue(job_id, worker)
            job = await way.run_by_hand_async(lambda at: found(job_id, at, flow))
            wait.check_queue(_queue(job_id, job))
        job = await _room(way).until_ended_async(job_id, timeout=wait.timeout)
    return _still_there(job_id, job)


def _checked_id(job_id: int) -> int:
    from procrastinate.app.job_filters import checked_id  # programs that only defer do without

    return checked_id(job_id)


def _of_other_queue(job_id: int, worker: Inside) -> Flow[Job | None]:
    """Return the flow that reads in which queue a job is. A worker of all queues need not ask."""
    if worker.queues is None:
        raise _refusal(f"for job {job_id}", worker)
    from procrastinate.storage import jobs as flows

    return flows.get_job(job_id, lambda text: {})


def _queue(job_id: int, job: Job | None) -> str:
    if job is None:
        raise ended.not_visible(job_id)
    return job.queue


def _refusal(what: str, worker: Inside) -> InvalidOption:
    return InvalidOption(
        f"a task would wait {what}, which is served by its own worker, {shown(worker.worker_name)}:"
        " a slot that waits for a slot can wait for ever. Wait outside of tasks, give the job a"
        " queue that other workers serve, or give allow_in_worker=True"
    )


def _room(gateway: Gateway) -> Room:
    if gateway.connector.runs_sql:
        return gateway.waiting_room
    return cast(_RunsWhatIsDue, gateway.connector).waiting_room(gateway.app)  # rule 3


def _still_there(job_id: int, job: Job | None) -> Job:
    if job is None:
        raise ended.removed(job_id)
    return job


class WaitingApp:
    """The part of an App that waits for results."""

    _gateway: Gateway

    def wait_for(self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False) -> Any:
        """Wait until a job of any task has ended, and return its result.

        The result is what the connector's ``json_loads`` makes of the JSON. See `Task.wait_for`,
        whose return value is typed; the errors are the same.
        """
        wait = Wait.of(timeout, allow_in_worker)
        return ended.value_of(until_ended(self._gateway, id, wait))

    async def wait_for_async(
        self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False
    ) -> Any:
        """Wait until a job of any task has ended, and return its result; see `wait_for`."""
        wait = Wait.of(timeout, allow_in_worker)
        return ended.value_of(await until_ended_async(self._gateway, id, wait))
