"""Why a job waits, from what the database says of it, of its lock, of workers and of pauses."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from procrastinate.model.job import Job, Status
from procrastinate.model.monitoring.fleet import WorkerInfo
from procrastinate.model.monitoring.search import Count
from procrastinate.model.queues import Pause
from procrastinate.model.states import State
from procrastinate.model.text.printable import counted


class Why(enum.StrEnum):
    """A kind of reason."""

    SCHEDULE = "schedule"
    RETRY = "retry"
    LOCK = "lock"
    PAUSE = "pause"
    NO_WORKER = "no-worker"
    UNKNOWN_TASK = "unknown-task"
    BUSY = "busy"
    READY = "ready"
    RUNNING = "running"
    ABORT_REQUESTED = "abort-requested"
    ENDED = "ended"


@dataclass(frozen=True)
class WaitReason:
    """One of the reasons why a job waits, or why it does not.

    ``kind`` is ``schedule``, ``retry``, ``lock``, ``pause``, ``no-worker``, ``unknown-task``,
    ``busy``, ``ready``, ``running``, ``abort-requested`` or ``ended``. ``text`` is a sentence for
    people, without times. ``until`` is when the reason is over by itself, if that is known (aware,
    in UTC). ``job_id`` is the job that holds the lock, or comes before this one in its line.
    """

    kind: str
    text: str
    until: datetime | None = None
    job_id: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands: in the order of its queue, and in the line of its lock."""

    now: datetime
    abort_requested: bool
    unknown_since: datetime | None
    before: Count  # ready jobs of its queue that come first
    holder: int | None  # of its lock
    first: int | None  # ready one of the line
    in_line: Count  # before it, of its own queue


def reasons(
    job: Job, place: Place, workers: Sequence[WorkerInfo], pauses: Sequence[Pause]
) -> list[WaitReason]:
    """Return the reasons why a job waits, the one that has to end first at the beginning.

    ``workers`` are those that are alive, and ``pauses`` those that are in force.
    """
    if job.status is Status.DOING:
        return list(_running(job, place))
    if job.status is not Status.TODO:
        return [WaitReason(Why.ENDED, f"it has ended: {job.status}")]
    found = [
        *_scheduled(job, place),
        *_locked(job, place),
        *_paused(job, pauses),
        *_unserved(job, workers),
    ]
    if found:
        return found
    return [*_busy(job, workers), _ready(place)]


def _running(job: Job, place: Place) -> Iterator[WaitReason]:
    yield WaitReason(Why.RUNNING, f"it is running, on worker {job.worker}")
    if place.abort_requested:
        yield WaitReason(
            Why.ABORT_REQUESTED, "its abortion was asked for, and its task has not obeyed yet"
        )


def _scheduled(job: Job, place: Place) -> Iterator[WaitReason]:
    if job.state is not State.SCHEDULED or job.scheduled_at is None:
        return
    if job.scheduled_at <= place.now:
        text = "its time has come, and a worker will make it ready within seconds"
        yield WaitReason(Why.SCHEDULE, text, job.scheduled_at)
    elif job.attempts:
        text = f"it waits for its next attempt, after {counted(job.attempts, 'attempt')}"
        yield WaitReason(Why.RETRY, text, job.scheduled_at)
    else:
        yield WaitReason(Why.SCHEDULE, "it is scheduled for later", job.scheduled_at)


def _locked(job: Job, place: Place) -> Iterator[WaitReason]:
    if job.lock is None:
        return
    line = f", and {_jobs(place.in_line)} before it in line" if place.in_line.value else ""
    if place.holder is not None:
        text = f"job {place.holder} holds its lock {job.lock!r}{line}"
        yield WaitReason(Why.LOCK, text, job_id=place.holder)
    elif job.state is State.BEHIND_A_LOCK:
        if place.first is None:
            text = f"its lock {job.lock!r} is free, and workers will look at its line soon{line}"
        else:
            text = f"job {place.first} is first in the line of its lock {job.lock!r}{line}"
        yield WaitReason(Why.LOCK, text, job_id=place.first)


def _paused(job: Job, pauses: Sequence[Pause]) -> Iterator[WaitReason]:
    for pause in pauses:
        if pause.covers(job.queue):
            by = f" by {pause.by}" if pause.by else ""
            why = f": {pause.reason}" if pause.reason else ""
            what = f"its queue {job.queue!r} is" if pause.queue == job.queue else "all queues are"
            yield WaitReason(Why.PAUSE, f"{what} paused{by}{why}", pause.until)


def _unserved(job: Job, workers: Sequence[WorkerInfo]) -> Iterator[WaitReason]:
    serving = _serving(job, workers)
    if not workers:
        yield WaitReason(Why.NO_WORKER, "no worker is alive")
    elif not serving:
        others = (
            f"{counted(len(workers), 'live worker')} {'serves' if len(workers) == 1 else 'serve'}"
        )
        text = f"no live worker serves its queue {job.queue!r}: {others} other queues"
        yield WaitReason(Why.NO_WORKER, text)
    elif not any(_knows(worker, job) for worker in serving):
        text = f"no live worker of its queue knows the task {job.task_name!r}"
        yield WaitReason(Why.UNKNOWN_TASK, text)


def _serving(job: Job, workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    return [each for each in workers if each.queues is None or job.queue in each.queues]


def _knows(worker: WorkerInfo, job: Job) -> bool:
    """Whether a worker knows the job's task, or has not said what it knows."""
    return worker.task_names is None or job.task_name in worker.task_names


def _busy(job: Job, workers: Sequence[WorkerInfo]) -> Iterator[WaitReason]:
    """Yield what keeps the job's workers from claiming it, unless one of them is free."""
    able = [worker for worker in _serving(job, workers) if _knows(worker, job)]
    blocked = [worker for worker in able if worker.blocked_since is not None]
    others = [worker for worker in able if worker.blocked_since is None]
    silent = [worker for worker in others if worker.trusted is False]
    full = [worker for worker in others if worker.trusted is not False and _is_full(worker)]
    if len(blocked) + len(silent) + len(full) < len(able):
        return
    if blocked:
        text = f"{_which(blocked, able)} blocked: a task holds up the event loop"
        yield WaitReason(Why.BUSY, text)
    if silent:
        text = "the database must confirm a sign of life before any claim"
        yield WaitReason(Why.BUSY, f"{_which(silent, able)} not trusted: {text}")
    if full:
        slots = sum(worker.concurrency or 0 for worker in full)
        whose = "of its workers" if len(full) == len(able) else "of the others"
        what = f"the only slot {whose} is" if slots == 1 else f"all {slots} slots {whose} are"
        yield WaitReason(Why.BUSY, f"{what} busy")


def _which(some: Sequence[WorkerInfo], able: Sequence[WorkerInfo]) -> str:
    """Return which of the workers that could run a job, with the verb."""
    if len(able) == 1:
        return f"its only worker {able[0].id} is"
    if len(some) == len(able):
        return f"all {len(able)} of its workers are"
    return f"{len(some)} of its {counted(len(able), 'worker')} {'is' if len(some) == 1 else 'are'}"


def _is_full(worker: WorkerInfo) -> bool:
    if worker.busy is None or worker.concurrency is None:
        return False
    return worker.busy >= worker.concurrency


def _ready(place: Place) -> WaitReason:
    if not place.before.value:
        return WaitReason(Why.READY, "it is ready, and the next of its queue")
    comes = "comes" if place.before.value == 1 else "come"
    text = f"it is ready, and {_jobs(place.before)} of its queue {comes} first"
    return WaitReason(Why.READY, text)


def _jobs(count: Count) -> str:
    return f"{count} job{'s' if count.value != 1 else ''}"
