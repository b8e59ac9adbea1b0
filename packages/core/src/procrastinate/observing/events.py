"""What observers are told: one class for each event, with the jobs that it is about.

All are immutable. Durations are seconds, and times are aware, in UTC. Events of workers say which
worker it is: its name, and its id in ``procrastinate_workers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.queues import Pause


@dataclass(frozen=True, slots=True)
class Deferred:
    """Jobs were inserted: ``jobs``, and in the same order their ``ids``.

    With ``in_transaction`` they are part of the caller's transaction, which may still roll back.
    """

    jobs: Sequence[NewJob]
    ids: Sequence[int]
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """Jobs were changed by hand: what ``change`` says was done to those with these ``ids``.

    - ``"cancelled"``: they were waiting, and have ended with the status ``cancelled``.
    - ``"abort requested"``: they run, and were asked to end. Their worker tells how they ended.
    - ``"retried"``: they are due again, or at another time.
    - ``"deleted"``: they were waiting, and are gone.

    With ``in_transaction`` that is part of the caller's transaction, which may still roll back.
    """

    change: Literal["cancelled", "abort requested", "retried", "deleted"]
    ids: Sequence[int]
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """A worker has got jobs, and will start them as it has free slots."""

    worker_name: str
    worker_id: int
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Started:
    """Attempts have begun: each of these jobs has a slot.

    A job may still be handed back before its first line runs, for instance because the worker
    stops; then it is requeued with ``duration`` None.
    """

    worker_name: str
    worker_id: int
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Raised:
    """An attempt raised ``exception``, and this is to be written of it.

    ``status`` is what the job is to become: ``todo`` if it will be tried again. ``duration`` is
    seconds. ``error`` is the entry that ``Job.errors`` gets: ``attempt``, ``at``, ``type``,
    ``message``, ``traceback``. Do not keep the exception: it keeps the task's variables alive.
    """

    worker_name: str
    worker_id: int
    job: Job
    exception: BaseException
    status: Status
    duration: float
    error: Mapping[str, Any]


class Attempted(Protocol):
    """An attempt whose outcome is written, or a job that has ended without one at this worker.

    The latter are jobs that were given up because their workers died, and those whose task no live
    worker knows. Of such a ``job`` only id, queue and task name are known; ``duration`` is None.
    """

    @property
    def job(self) -> Job:
        """The job as it was claimed; its ``status`` is ``doing``."""

    @property
    def status(self) -> Status:
        """The status that the job has now."""

    @property
    def duration(self) -> float | None:
        """Seconds that the attempt took; None if its task was not called."""

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The entry that ``Job.errors`` got, if the attempt failed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs have ended, and the database has it. ``status`` of each says how."""

    worker_name: str
    worker_id: int
    attempts: Sequence[Attempted]


@dataclass(frozen=True, slots=True)
class Requeued:
    """Jobs are back in the queue, and the database has it.

    They failed and will be tried again (then each has an ``error``), or were interrupted, or did
    not begin (``duration`` is None).
    """

    worker_name: str
    worker_id: int
    attempts: Sequence[Attempted]


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Jobs are no longer this worker's, and what it made of them was not written.

    Others took the worker for dead, or the server lost the claim in a crash.
    """

    worker_name: str
    worker_id: int
    jobs: Sequence[Job]


class TakenOver(Protocol):
    """A job whose worker died."""

    @property
    def job_id(self) -> int:
        """The job's id."""

    @property
    def queue(self) -> str:
        """The job's queue."""

    @property
    def task_name(self) -> str:
        """The name of the job's task."""

    @property
    def status(self) -> Status:
        """The status that the job has now: ``todo`` if it runs again."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """This worker has taken jobs from workers that died.

    Those that have ended by that are told by `Ended` too, after this.
    """

    worker_name: str
    worker_id: int
    jobs: Sequence[TakenOver]


@dataclass(frozen=True, slots=True)
class Paused:
    """A worker starts no more jobs of a queue, or starts them again: then ``pause`` is None.

    ``queue`` is ``"*"`` for a pause of all queues. If the pause of a queue is changed, it is told
    again.
    """

    worker_name: str
    worker_id: int
    queue: str
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class Busy:
    """How many of a worker's slots (``concurrency``) have a job now: ``busy``."""

    worker_name: str
    worker_id: int
    busy: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker is registered, and begins. ``queues`` is None if it serves all."""

    worker_name: str
    worker_id: int
    queues: Sequence[str] | None
    concurrency: int


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker has ended, after its last write."""

    worker_name: str
    worker_id: int
