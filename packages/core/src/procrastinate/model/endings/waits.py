"""Who waits for the end of which job, and what is to be asked of the database next.

Rules

1. A wait is registered before its job's status is read. An ending that comes after the row is there
   notifies; one that came before it is read.
2. The statement that ends a job may have begun before the row was there, and be committed after the
   status was read. So it is read once more after `LOOK_AGAIN` seconds.
3. All that are waited for are looked at every `POLL_EVERY` seconds, in one statement for each
   partition and `AT_ONCE` jobs. That finds what no notification said. If nothing is heard, or no
   row can be written, this is the only way: then it is done every `POLL_DEAF` seconds.
4. A notification only says which jobs to read. A job that is not ended when it is read, because it
   was retried since, is still waited for.
5. A job that was never seen does not exist. One that was seen and is gone was removed.
6. Rows are renewed every `RENEW_EVERY` seconds, and all written anew if a connection was lost: a
   server that crashed has none of them any more. They are removed, several at a time, once no wait
   is left for their job.
7. A step that failed is put back. Meanwhile others are taken, if it failed because of one node.
8. What was to be read whole may have been too much for the time of one statement. So after a
   failure the next one is about half as many jobs. Each that succeeds doubles that again.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from procrastinate.model.job import Status
from procrastinate.model.partitions import ONE, Partitions

LOOK_AGAIN = 0.1  # seconds
POLL_EVERY = 5.0  # seconds
POLL_DEAF = 1.0  # seconds
RENEW_EVERY = 20.0  # seconds
REMOVE_AFTER = 0.1  # seconds from the first row that is not needed until such rows are removed
AT_ONCE = 1_000  # jobs in one statement
#: Seconds from one read to the next: under load, each is about more jobs.
READ_EVERY = 0.005
READ_AT_ONCE = 200  # jobs in one statement that reads them whole, with a result of up to 256 KiB

W = TypeVar("W", bound=Hashable)


class Kind(enum.Enum):
    """What a step does, the most urgent kind first."""

    READ = "read"  # whole, because they have probably ended
    LOCATE = "locate"  # find the partition of jobs whose ids do not say it
    REGISTER = "register"
    LOOK = "look"  # at their status
    REMOVE = "remove"  # their rows


@dataclass(frozen=True, slots=True)
class Step:
    """What to ask of the database about some jobs. ``partition`` is None only to locate them."""

    kind: Kind
    partition: int | None
    ids: list[int]


class Missing(enum.Enum):
    """Why there is no job to give to those who wait."""

    NEVER_SEEN = "never seen"
    REMOVED = "removed"


#: What a wait ends with: the row of the job, why there is none, or what went wrong.
Outcome: TypeAlias = "tuple[Any, ...] | Missing | Exception"


class _Awaited(Generic[W]):
    """A job that is waited for."""

    __slots__ = ("has_row", "partition", "waits", "was_seen")

    def __init__(self, partition: int | None) -> None:
        self.partition = partition
        self.waits: dict[W, None] = {}
        self.has_row = False
        self.was_seen = False


class Waits(Generic[W]):
    """The waits of one process for jobs of one app. All times are of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.partitions: Partitions = ONE
        self.away: Collection[int] = ()  # the partitions of which nothing is asked at present
        #: How each wait ended that has ended, until it is told.
        self.ended: list[tuple[W, Outcome]] = []
        self._jobs: dict[int, _Awaited[W]] = {}
        #: By kind and partition, the ids that a step is due for; some may need none any more.
        self._due: dict[Kind, dict[int | None, dict[int, None]]] = {kind: {} for kind in Kind}
        self._again: deque[tuple[float, int]] = deque()
        self._hears = False
        self._has_been_deaf = False  # since it heard last
        self._keeps_rows = True
        self._poll_at = now + POLL_DEAF
        self._renew_at = now + RENEW_EVERY
        #: By partition, the jobs whose rows are not needed any more, until these are removed.
        self._unneeded: dict[int | None, dict[int, None]] = {}
        self._remove_at = math.inf
        self._read_at = 0.0
        self._read_at_once = READ_AT_ONCE  # jobs in one statement, at present: rule 8

    def __len__(self) -> int:
        """Return how many jobs are waited for."""
        return len(self._jobs)

    def all(self) -> list[W]:
        """Return all waits."""
        return [wait for job in self._jobs.values() for wait in job.waits]

    # Who waits

    def enter(self, job_id: int, wait: W) -> None:
        """Note a wait for a job."""
        job = self._jobs.get(job_id)
        if job is None:
            job = self._jobs[job_id] = _Awaited(self.partitions.of_id(job_id))
            self._begin(job_id, job)
        elif job.partition is not None:
            self._add(Kind.LOOK, job.partition, job_id)  # it may have ended without a word
        job.waits[wait] = None

    def leave(self, job_id: int, wait: W) -> None:
        """Note that a wait is over."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.waits.pop(wait, None)
        if not job.waits:
            del self._jobs[job_id]
            self._no_row_needed(job_id, job)

    def _begin(self, job_id: int, job: _Awaited[W]) -> None:
        """Note the first step for a job: rule 1."""
        if job.partition is None:
            self._add(Kind.LOCATE, None, job_id)
        else:
            kind = Kind.REGISTER if self._keeps_rows else Kind.LOOK
            self._add(kind, job.partition, job_id)

    def _no_row_needed(self, job_id: int, job: _Awaited[W]) -> None:
        if job.has_row and self._keeps_rows:
            self._unneeded.setdefault(job.partition, {})[job_id] = None

    # What is known

    def heard(self, ids: Iterable[int]) -> None:
        """Note that these jobs have ended or were removed, as a notification says."""
        for job_id in ids:
            job = self._jobs.get(job_id)
            if job is not None and job.partition is not None:
                job.was_seen = True
                self._add(Kind.READ, job.partition, job_id)

    def listening(self, hears: bool, now: float) -> None:
        """Note whether notifications are heard from now on. What was missed is looked for."""
        if hears and self._has_been_deaf:
            self.anew()  # the server may have crashed
        elif hears and not self._hears:
            self._poll_at = now
        self._has_been_deaf = not hears and (self._hears or self._has_been_deaf)
        self._hears = hears
        self._poll_at = min(self._poll_at, now + self._poll_every)

    def without_rows(self, now: float) -> None:
        """Note that the database refuses our rows: rule 3."""
        self._keeps_rows = False
        self._due[Kind.REGISTER].clear()
        self._due[Kind.REMOVE].clear()
        self._unneeded.clear()
        self._poll_at = now

    def divided(self, partitions: Partitions) -> None:
        """Note into which partitions the database has put its jobs."""
        if partitions == self.partitions:
            return
        self.partitions = partitions
        for job_id, job in self._jobs.items():
            job.partition = partitions.of_id(job_id)
        self.anew()

    def anew(self) -> None:
        """Register and look at all jobs again, because a connection was lost."""
        self._due = {kind: {} for kind in Kind}
        self._keeps_rows = True  # another server may take them
        for job_id, job in self._jobs.items():
            self._begin(job_id, job)

    # What is to be done

    def next(self, now: float) -> Step | None:
        """Return the next step, which is then under way; None if nothing is due now."""
        self._fall_due(now)
        for kind, places in self._due.items():
            if kind is Kind.READ and now < self._read_at:
                continue
            for partition in list(places):
                if self._answers(partition) and (ids := self._taken(kind, places, partition)):
                    if kind is Kind.READ and not places:
                        self._read_at = now + READ_EVERY
                    return Step(kind, partition, ids)
        return None

    def due_at(self) -> float:
        """Return when there is a next step, if nothing happens before."""
        if self._unneeded and self._remove_at == math.inf:
            return -math.inf  # `next` says when
        if not self._jobs:
            return self._remove_at
        again = self._again[0][0] if self._again else math.inf
        if any(map(self._answers, self._due[Kind.READ])):
            again = min(again, self._read_at)
        return min(self._poll_at, self._renew_at, self._remove_at, again)

    def _answers(self, partition: int | None) -> bool:
        """Whether a step can be taken. To locate a job (None) takes all partitions."""
        return not self.away if partition is None else partition not in self.away

    def put_back(self, step: Step) -> None:
        """Note that a step has failed and is still due: rules 7 and 8."""
        if step.kind is Kind.READ:
            self._read_at_once = max(1, len(step.ids) // 2)
        for job_id in step.ids:
            self._add(step.kind, step.partition, job_id)

    def _fall_due(self, now: float) -> None:
        while self._again and self._again[0][0] <= now:
            self._look_at(self._again.popleft()[1])
        if self._unneeded and self._remove_at == math.inf:
            self._remove_at = now + REMOVE_AFTER
        if now >= self._remove_at:
            self._remove_rows()
        if now >= self._renew_at:
            self._renew_at = now + RENEW_EVERY
            for job_id, job in self._jobs.items():
                self._begin(job_id, job)
        if now >= self._poll_at:
            self._poll_at = now + self._poll_every
            for job_id in self._jobs:
                self._look_at(job_id)

    def _remove_rows(self) -> None:
        self._remove_at = math.inf
        unneeded, self._unneeded = self._unneeded, {}
        for partition, ids in unneeded.items():
            self._due[Kind.REMOVE].setdefault(partition, {}).update(ids)

    def only_removals(self) -> None:
        """Wait for nothing any more. All that is due then is to remove all rows, now."""
        for job_id, job in self._jobs.items():
            self._no_row_needed(job_id, job)
        self._jobs.clear()
        self._due = {kind: {} if kind is not Kind.REMOVE else self._due[kind] for kind in Kind}
        self._remove_rows()

    @property
    def _poll_every(self) -> float:
        return POLL_EVERY if self._hears and self._keeps_rows else POLL_DEAF

    def _look_at(self, job_id: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.partition is not None:
            self._add(Kind.LOOK, job.partition, job_id)

    def _add(self, kind: Kind, partition: int | None, job_id: int) -> None:
        self._due[kind].setdefault(partition, {})[job_id] = None

    def _taken(
        self, kind: Kind, places: dict[int | None, dict[int, None]], partition: int | None
    ) -> list[int]:
        """Take ids out for a step: those that need it, as many as one statement may be about."""
        due = places[partition]
        ids: list[int] = []
        size = self._read_at_once if kind is Kind.READ else AT_ONCE
        while due and len(ids) < size:
            job_id = next(iter(due))
            del due[job_id]
            if (job_id in self._jobs) is not (kind is Kind.REMOVE):
                ids.append(job_id)
        if not due:
            del places[partition]
        return ids

    # What came of a step

    def located(self, step: Step, places: Mapping[int, int]) -> None:
        """Note in which partitions these jobs are; those that are in none do not exist."""
        for job_id, job in self._under_way(step):
            if job_id in places:
                job.partition = places[job_id]
                self._begin(job_id, job)
            else:
                self._is_missing(job_id, job)

    def registered(self, step: Step) -> None:
        """Note that these jobs have their rows; now they are looked at."""
        for job_id in step.ids:
            job = self._jobs.get(job_id)
            if job is None:
                self._add(Kind.REMOVE, step.partition, job_id)
            else:
                job.has_row = True
                self._add(Kind.LOOK, step.partition, job_id)

    def looked(self, step: Step, statuses: Mapping[int, Status], now: float) -> None:
        """Note the status of those of these jobs that are there."""
        for job_id, job in self._under_way(step):
            status = statuses.get(job_id)
            if status is None:
                self._is_missing(job_id, job)
                continue
            if not job.was_seen:
                job.was_seen = True
                self._again.append((now + LOOK_AGAIN, job_id))
            if status.is_final:
                self._add(Kind.READ, step.partition, job_id)

    def read(self, step: Step, found: Mapping[int, tuple[Status, tuple[Any, ...]]]) -> None:
        """Note the status and the row of those of these jobs that are there."""
        self._read_at_once = min(2 * self._read_at_once, READ_AT_ONCE)
        for job_id, job in self._under_way(step):
            if job_id not in found:
                self._is_missing(job_id, job)
                continue
            job.was_seen = True
            status, row = found[job_id]
            if status.is_final:
                self._end(job_id, job, row)

    def failed(self, step: Step | None, exc: Exception) -> None:
        """Give up these jobs, or all (None), because of an error that will not go away."""
        ids = self._jobs if step is None else step.ids
        for job_id in list(ids):
            if job_id in self._jobs:
                self._end(job_id, self._jobs[job_id], exc)

    def _under_way(self, step: Step) -> list[tuple[int, _Awaited[W]]]:
        jobs = self._jobs
        return [(job_id, jobs[job_id]) for job_id in step.ids if job_id in jobs]

    def _is_missing(self, job_id: int, job: _Awaited[W]) -> None:
        self._end(job_id, job, Missing.REMOVED if job.was_seen else Missing.NEVER_SEEN)

    def _end(self, job_id: int, job: _Awaited[W], outcome: Outcome) -> None:
        del self._jobs[job_id]
        self.ended.extend((wait, outcome) for wait in job.waits)
        self._no_row_needed(job_id, job)


# Looking without a row


def pause_after(waited: float) -> float:
    """Return the seconds to the next look of a wait without notifications."""
    return min(1.0, max(0.02, waited / 10))
