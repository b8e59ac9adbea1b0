"""The status of a job, and the states that people speak of.

The database has a status, and a *hold* that says why a job that waits may not begin yet. A state
is both: a waiting job is ready, scheduled, or behind a lock.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence


class Status(enum.StrEnum):
    """Where a job is in its life."""

    TODO = "todo"
    DOING = "doing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"

    @property
    def is_final(self) -> bool:
        """Whether a job in this status has ended."""
        return self not in (Status.TODO, Status.DOING)


class State(enum.StrEnum):
    """What a job does or waits for now, or how it ended.

    That its queue is paused is not part of it: the job stays as it is. A job whose lock is held is
    ready until a worker comes to it, and behind a lock from then on. One that a worker has
    claimed is running, also before its task has begun.
    """

    READY = "ready"
    SCHEDULED = "scheduled"
    BEHIND_A_LOCK = "behind-a-lock"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"

    @property
    def status(self) -> Status:
        """The status of a job in this state."""
        return _STATUSES[self]

    @property
    def hold(self) -> str | None:
        """Why a job in this state may not begin yet; None if nothing holds it."""
        return _HOLDS.get(self)


_HOLDS = {State.SCHEDULED: "schedule", State.BEHIND_A_LOCK: "lock"}
_WAITING: dict[str | None, State] = {
    None: State.READY,
    **{hold: state for state, hold in _HOLDS.items()},
}
_STATUSES = {
    **dict.fromkeys(_WAITING.values(), Status.TODO),
    State.RUNNING: Status.DOING,
    **{State(status.value): status for status in Status if status.is_final},
}
_OTHERS = {status: state for state, status in _STATUSES.items() if status is not Status.TODO}


def state_of(status: Status, hold: str | None) -> State:
    """Return the state of a job with this status and hold."""
    return _WAITING.get(hold, State.READY) if status is Status.TODO else _OTHERS[status]


def statuses_of(states: Collection[State]) -> list[Status]:
    """Return the statuses that jobs in these states have, in order."""
    return [status for status in Status if any(state.status is status for state in states)]


def holds_of(states: Collection[State]) -> Sequence[str] | None:
    """Return the holds that waiting jobs in these states have ("" for none); None if any is right.

    Any is right also if jobs that wait are not among them: their status is not, either.
    """
    waiting = [state for state in _WAITING.values() if state in states]
    if len(waiting) in (0, len(_WAITING)):
        return None
    return [state.hold or "" for state in waiting]
