"""What is known about a campaign: values that `books` judges, and nothing that reads a clock.

All times come from one clock, the ledger server's or the harness's on the same machine. The clock
of a worker may be shifted, so that no time of a worker is ever compared.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

TICK = 2  # seconds between two ticks of the periodic task
PAUSE = "pause of a queue"  # the kind of trouble
FOREVER = 99  # as `failing` or `crashing`: every attempt does it


class Effect(enum.Enum):
    """What a fault may do to the jobs of the processes that it touches."""

    ENDS = "ends"  # the process ends, at once or after a while
    STILL = "still"  # the process stands still
    AWAY = "away"  # the process cannot reach the database
    BLOCKS = "blocks"  # the process beats, but its claims and writes wait
    FORGETS = "forgets"  # the server forgets the claims of its last moments


@dataclass(frozen=True, slots=True)
class Spec:
    """One job as it is drawn, before it is deferred."""

    n: int
    task: str
    queue: str = "red"
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    delay: float | None = None  # seconds until it is due
    seconds: float = 0.0  # how long a run takes
    failing: int = 0  # attempts that raise
    crashing: int = 0  # attempts that do their deed
    deed: str | None = None  # what the job does to its own process; see `nasty`
    probe: bool = False  # deferred in calm, so that it must start promptly
    waited: bool = False  # whoever deferred it waits for its result


@dataclass(frozen=True, slots=True)
class Asked:
    """One job that a deferrer asked for, and what it was told."""

    spec: Spec
    group: str  # the call that asked for it: all jobs of a call are stored, or none
    asked_at: datetime
    answer: str | None = None  # "acknowledged", "refused" or "unknown"; None: no answer on record
    answered_at: datetime | None = None
    job_id: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """One job as the database has it at the end."""

    id: int
    status: str
    attempts: int
    task: str
    n: int | None = None  # None for a tick
    tick: int | None = None  # the planned moment of a periodic job, seconds since the epoch
    lock: str | None = None
    finished_at: datetime | None = None
    last_error: str | None = None  # the type of the last exception on record
    result: str | None = None  # the token of a run, where the task keeps it


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait for the result of a job: what it came to, if it came to something."""

    n: int
    way: str  # "plain" or "asynchronous", and the connector
    began: datetime
    ended: datetime | None = None
    answer: str | None = None  # the status that it was told, or the error that it met
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job: two rows of the ledger. Its token is what the task returns."""

    token: str
    job_id: int
    attempt: int
    process: str
    began: datetime
    ended: datetime | None = None
    outcome: str | None = None  # "ok", "failed" or "interrupted"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of a queue, from the moment that the call returned until it was to be resumed."""

    queue: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault that struck."""

    name: str
    kind: str
    began: datetime
    ended: datetime
    effects: frozenset[Effect] = frozenset()
    processes: frozenset[str] | None = None  # None: all of them
    seen: bool = True
    back_by: datetime | None = None  # when a job must have begun that only its processes run
    awaited: int | None = None  # the number of that job
    pause: Pause | None = None

    def touches(self, process: str) -> bool:
        """Return whether a process felt it."""
        return self.processes is None or process in self.processes


@dataclass(frozen=True, slots=True)
class Terms:
    """Times that the books allow."""

    stalled: timedelta = timedelta(seconds=10)  # the workers' stalled_worker_timeout
    heartbeat: timedelta = timedelta(seconds=2)  # their update_heartbeat_interval
    reconnecting: timedelta = timedelta(seconds=5)  # longest pause before the next try
    forgotten: timedelta = timedelta(seconds=2)  # commits that a crashed server may forget
    line: timedelta = timedelta(seconds=8)  # until a job that is ready is surely in its line
    prompt: timedelta = timedelta(seconds=2)  # from acknowledgement to begin, in calm
    paused: timedelta = timedelta(seconds=3)  # from a pause to the last begin: 1, on a busy machine

    @property
    def lets_go(self) -> timedelta:
        """How long a worker must be silent before others may take its jobs.

        Its last beat that arrived may be one interval old when the silence begins.
        """
        return self.stalled - 2 * self.heartbeat


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that must not be."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """All that the books need."""

    asked: Sequence[Asked]
    stored: Sequence[Stored]
    runs: Sequence[Run]
    troubles: Sequence[Trouble]
    waits: Sequence[Wait] = ()
    deaths: Mapping[str, datetime] = field(default_factory=dict)  # process: when it was gone
    terms: Terms = Terms()
