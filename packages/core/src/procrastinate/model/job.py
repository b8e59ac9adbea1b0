"""A job, its status, and every legal change of status.

A transition that is not in `TRANSITIONS` does not happen: the SQL statements that write a status
name the statuses they start from.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


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


#: From each status, the statuses that a job may go to, and by what.
TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.TODO: {
        Status.DOING: "claimed by a worker",
        Status.CANCELLED: "cancelled while waiting",
        Status.TODO: "retried earlier than planned",
    },
    Status.DOING: {
        Status.SUCCEEDED: "the task returned",
        Status.FAILED: "the task raised and has no attempt left, or keeps killing its worker",
        Status.ABORTED: "raised JobAborted, or did not succeed after abortion was asked for",
        Status.CANCELLED: "a twin with the same queueing lock is waiting and will do the work",
        Status.TODO: "retried, handed back, or recovered, unless abortion was asked for",
    },
    Status.SUCCEEDED: {},
    Status.FAILED: {Status.TODO: "retried by hand"},
    Status.CANCELLED: {Status.TODO: "retried by hand"},
    Status.ABORTED: {Status.TODO: "retried by hand"},
}


def may_become(current: Status, new: Status) -> bool:
    """Whether a job may go from one status to another."""
    return new in TRANSITIONS[current]


@dataclass(slots=True)
class NewJob:
    """A job as it is about to be inserted.

    At most one of ``scheduled_at`` (aware) and ``schedule_in_us`` (microseconds from the moment
    of insertion, by the server's clock) is set; with neither the job is due at once.
    """

    task_name: str
    queue: str = "default"
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    args: str = "{}"
    scheduled_at: datetime | None = None
    schedule_in_us: int | None = None


@dataclass(frozen=True)
class Job:
    """A job as the database holds it. All times are aware, in UTC.

    ``started_at`` and ``finished_at`` belong to the latest attempt; ``attempts`` counts the
    attempts that were begun, including a running one, since the job was deferred or last retried by
    hand. ``worker`` is the id of the worker that
    holds the job, or held it last. Each entry of ``errors`` describes one failed attempt:
    ``attempt``, ``at`` (ISO 8601, UTC), ``type``, ``message``, ``traceback``.

    A retry by hand sets ``attempts`` to 0. ``lease`` counts the claims and never falls: a worker's
    writes name it, so a worker that has lost the job changes nothing. ``crashes`` counts the
    workers that died while they held the job.
    """

    id: int
    status: Status
    queue: str
    task_name: str
    task_kwargs: dict[str, Any]
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    attempts: int = 0
    deferred_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    lease: int = 0
    crashes: int = 0

    @property
    def call_string(self) -> str:
        """The job as the call that it stands for, with long arguments cut: for people and logs."""
        arguments = ", ".join(
            f"{key}={_shortened(value)}" for key, value in self.task_kwargs.items()
        )
        return f"{self.task_name}[{self.id}]({arguments})"


def _shortened(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
