"""A job, and every legal change of its status.

A transition that is not in `TRANSITIONS` does not happen: the SQL statements that write a status
name the statuses they start from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias

from procrastinate.former import WasMapping
from procrastinate.model.progress import Progress
from procrastinate.model.states import State, state_of
from procrastinate.model.states import Status as Status
from procrastinate.model.text import printable

NAME_SHOWN, VALUE_SHOWN = 200, 60  # characters of a task's or an argument's name, and of its value
ARGUMENTS_SHOWN = 30


#: From each status, the statuses that a job may go to, and by what.
TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.TODO: {
        Status.DOING: "claimed by a worker",
        Status.CANCELLED: "cancelled while waiting",
        Status.FAILED: "no live worker knows its task, and its patience is over",
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


def sources_of(*new: Status) -> tuple[Status, ...]:
    """Return the statuses from which a job may go to each of these."""
    return tuple(old for old, following in TRANSITIONS.items() if following.keys() >= set(new))


#: The statuses that an attempt may lead to.
AFTER_AN_ATTEMPT = tuple(status for status in Status if status is not Status.DOING)
#: Those of a job that its worker holds: a statement that writes what became of an attempt starts
#: from them.
HELD = sources_of(*AFTER_AN_ATTEMPT)


def may_become(current: Status, new: Status) -> bool:
    """Whether a job may go from one status to another."""
    return new in TRANSITIONS[current]


@dataclass(slots=True)
class NewJob:
    """A job as it is about to be inserted.

    At most one of ``scheduled_at`` (aware) and ``schedule_in_us`` (microseconds from the moment
    of insertion, by the server's clock) is set; with neither the job is due at once. On a
    distributed database, jobs with one ``partition_key`` are kept together. ``args`` are its
    arguments as JSON. ``meta`` is a JSON object that observers may add to, such as the context of
    a trace.
    """

    task_name: str
    queue: str = "default"
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    args: str = "{}"
    scheduled_at: datetime | None = None
    schedule_in_us: int | None = None
    partition_key: str | None = None
    meta: dict[str, Any] | None = None

    @property
    def key(self) -> str | None:
        """What decides about its partition, if anything does."""
        keys = (self.partition_key, self.lock, self.queueing_lock)
        return next((key for key in keys if key is not None), None)


class UnreadableArguments(dict[str, Any]):
    """Stands for arguments that cannot be decoded. It is empty, and says why.

    ``text`` is their JSON, and ``reason`` what the decoder raised.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__()
        self.text = text
        self.reason = reason


#: One entry of a job's ``errors``.
Error: TypeAlias = dict[str, Any]


#: What a job was asked for up to release 3.
FORMER_NAMES = (
    *("abort_requested", "args", "asdict", "evolve", "from_row", "log_context", "queue_name"),
    "worker_id",
)


@dataclass(frozen=True)
class Job(WasMapping, former_names=FORMER_NAMES):
    """A job as the database holds it. All times are aware, in UTC.

    To change an object changes nothing in the database; type checkers refuse it.

    ``started_at`` and ``finished_at`` belong to the latest attempt. ``attempts`` counts those that
    were begun, including a running one, since the job was deferred or last retried by hand.
    ``first_started_at`` is when the first of these began; None in a task's own `JobContext`.
    ``worker`` is the id of the worker that holds the job, or held it last.

    Each entry of ``errors`` describes one failed attempt: ``attempt``, ``at`` (ISO 8601, UTC),
    ``type``, ``message``, ``traceback``. At most 20 are kept, the first one and the last ones; the
    entry after the gap says in ``omitted`` how many are missing. The first entry and the last three
    have a traceback. In a task, the errors are read from the database when they are first asked
    for, which may raise `ConnectorException`.

    A retry by hand sets ``attempts`` to 0. ``lease`` counts the claims and never falls: a worker's
    writes name it, so a worker that has lost the job changes nothing. ``crashes`` counts the
    workers that died while they held the job. ``meta`` is what observers gave the job when it was
    deferred, such as the context of a trace; None for most jobs.

    ``progress`` is what a running job last said with `JobContext.progress`, and None once it has
    ended. It is read where it can be: a standby of the database does not have it.

    ``result`` is what the task returned, decoded as arguments are, if ``has_result``: it may be
    None. Else ``result_error`` says why a result that was to be kept is not, or cannot be decoded.
    They are there once the job has succeeded, but not in a task's own `JobContext`; a retry by hand
    removes them.

    ``hold`` is why a waiting job may not begin yet: "schedule" or "lock"; None if it may. With the
    status it makes the `state`.
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
    errors: list[Error] = field(default_factory=list, repr=False)
    lease: int = 0
    crashes: int = 0
    meta: dict[str, Any] | None = None
    progress: Progress | None = None
    result: Any = field(default=None, repr=False)
    has_result: bool = False
    result_error: str | None = None
    hold: str | None = None
    first_started_at: datetime | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: the fields alone, and not what reads the errors."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def state(self) -> State:
        """What people mean by status: one that waits is ready, scheduled, or behind a lock."""
        return state_of(self.status, self.hold)

    @property
    def waited(self) -> float | None:
        """How many seconds a job that runs had waited for a worker, since it could have begun.

        That is from when it was due, or deferred if that was later, to its first claim. None for a
        later claim: it is not noted when a job came back to its queue.
        """
        if self.lease != 1 or self.deferred_at is None or self.started_at is None:
            return None
        since = self.deferred_at
        if self.scheduled_at is not None and self.scheduled_at > since:
            since = self.scheduled_at
        return max(0.0, (self.started_at - since).total_seconds())

    @property
    def call_string(self) -> str:
        """The job as the call that it stands for, as one line for people and logs.

        Names and arguments are cut and escaped. An argument that cannot be shown is a mere "…".
        """
        name = printable.line(self.task_name, NAME_SHOWN)
        return f"{name}[{self.id}]({_arguments(self.task_kwargs)})"


class _Errors:
    """The attribute `Job.errors`: a claimed job reads its errors when they are first asked for.

    They are of no use to most attempts, and may be long.
    """

    def __get__(self, job: Job | None, owner: type[Job]) -> Any:
        if job is None:
            return self
        state = job.__dict__
        if "errors" not in state:
            read = state.get("_read_errors")
            is_first = job.attempts <= 1 and job.lease <= 1
            state["errors"] = [] if read is None or is_first else read(job.id)
        return state["errors"]

    def __set__(self, job: Job, errors: list[Error]) -> None:
        job.__dict__["errors"] = errors


Job.errors = _Errors()  # type: ignore[assignment]

# For type checkers alone a job is frozen. A class that checks each assignment cannot be filled
# quickly, and a worker makes an object for each job that it runs.
del Job.__setattr__, Job.__delattr__


def sets_going(job: Job) -> bool:
    """Whether the end of a job lets something else begin: the next job in the line of its lock."""
    return job.lock is not None


def those_that_set_going(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs of which that is true: a worker asks it of all that it ends."""
    return [job for job in jobs if job.lock is not None]


def errors_read_by(job: Job, read: Callable[[int], list[Error]]) -> None:
    """Let a claimed job read its errors by this function of its id, when they are asked for."""
    job._read_errors = read  # type: ignore[attr-defined]


def _arguments(task_kwargs: Any) -> str:
    """Arguments for people; a user's own ``json_loads`` may have made them of anything."""
    try:
        shown = ", ".join(
            f"{printable.line(str(key), NAME_SHOWN)}={_argument(value)}"
            for key, value in islice(task_kwargs.items(), ARGUMENTS_SHOWN)
        )
        return shown if len(task_kwargs) <= ARGUMENTS_SHOWN else f"{shown}, …"
    except BaseException:
        return "…"


def _argument(value: Any) -> str:
    try:
        text = printable.exact(_beginning(value, VALUE_SHOWN), VALUE_SHOWN + 1)
    except BaseException:
        return "…"
    return printable.line(text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…")


def _beginning(value: Any, room: int) -> str:
    """At least ``room`` characters of a value's repr, without making all of it."""
    if type(value) is str:
        return repr(value[: max(room, 0)])
    if type(value) is list:
        return f"[{_joined((_beginning(each, room - 1) for each in value), room)}]"
    if type(value) is dict:
        items = (
            f"{_beginning(key, room - 1)}: {_beginning(each, room - 1)}"
            for key, each in value.items()
        )
        return f"{{{_joined(items, room)}}}"
    return repr(value)


def _joined(texts: Iterator[str], room: int) -> str:
    joined = ""
    while len(joined) <= room and (text := next(texts, None)) is not None:
        joined += f", {text}" if joined else text
    return joined
