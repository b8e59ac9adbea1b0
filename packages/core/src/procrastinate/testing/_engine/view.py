"""What the function of a statement works with: the tables as its transaction sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from procrastinate.connector import Notification, Rows
from procrastinate.model.job import Status
from procrastinate.model.queues import are_pauses_of
from procrastinate.testing._engine.tables import Blocked, Tables, Transaction
from procrastinate.testing._engine.values import (
    JobRow,
    MinuteRow,
    PauseRow,
    PeriodicRow,
    ProgressRow,
    WorkerRow,
)


class View:
    """The tables as one statement sees and changes them, at one time ``now``."""

    def __init__(self, tables: Tables, transaction: Transaction, now: datetime) -> None:
        self.now = now
        self.transaction = transaction
        self._tables = tables
        #: What takes back what the statement has written so far, from its end to its start.
        self.undone_by: list[Callable[[], None]] = []

    def undo(self) -> None:
        """Take back what the statement has written so far."""
        while self.undone_by:
            self.undone_by.pop()()

    def notify(self, channel: str, payload: str) -> str:
        """Announce something at commit; returns what ``pg_notify(...)::text`` returns."""
        self.transaction.notifications[Notification(channel, payload)] = None
        return ""

    def wake(self, queues: Iterable[str]) -> None:
        """Wake the workers of queues."""
        for queue in sorted(set(queues)):
            self.notify("procrastinate_jobs", queue)

    # jobs

    def next_job_id(self) -> int:
        return next(self._tables.job_ids)

    def job(self, job_id: int) -> JobRow | None:
        return self._tables.jobs.get(job_id, self.transaction)

    def jobs(self) -> list[JobRow]:
        """Return all jobs, in order of id."""
        return sorted(self._tables.jobs.rows(self.transaction), key=lambda job: job.id)

    def active_jobs(self, status: Status) -> list[JobRow]:
        """Return the jobs that wait (todo) or run (doing), in order of id."""
        return [job for job in self._tables.jobs.active(self.transaction) if job.status is status]

    def unlocked(self, jobs: Iterable[JobRow]) -> list[JobRow]:
        """Leave out the jobs that another transaction has pending: SKIP LOCKED."""
        other_owner = self._tables.jobs.other_owner
        return [job for job in jobs if other_owner(job.id, self.transaction) is None]

    def has_twin(self, queueing_lock: str | None, *, besides: int | None = None) -> bool:
        """Whether a (or another) job with this queueing lock waits."""
        return self._tables.jobs.has_twin(queueing_lock, self.transaction, besides=besides)

    def conflicts(self, queueing_lock: str | None) -> bool:
        """The same for ON CONFLICT, which waits for the transactions that will decide it."""
        return self._tables.jobs.has_settled_twin(queueing_lock, self.transaction)

    def write_job(self, job: JobRow) -> JobRow:
        self.undone_by.append(self._tables.jobs.write(job.id, job, self.transaction))
        return job

    def delete_job(self, job: JobRow) -> None:
        self.undone_by.append(self._tables.jobs.write(job.id, None, self.transaction))

    # locks: the id of the job that holds each

    def held_locks(self) -> dict[str, int]:
        return dict(self._tables.locks.rows(self.transaction))

    def holder(self, lock: str) -> int | None:
        """Return who holds a lock, once no other transaction has changed that without an end."""
        locks = self._tables.locks
        other = locks.other_owner(lock, self.transaction)
        if other is not None and locks.pending[lock] != locks.committed.get(lock):
            raise Blocked(other)
        row = locks.get(lock, self.transaction)
        return None if row is None else row[1]

    def sees_holder(self, lock: str) -> bool:
        """Whether a lock is held as far as this transaction can see."""
        return self._tables.locks.get(lock, self.transaction) is not None

    def is_held_firmly(self, lock: str) -> bool:
        """Whether a lock is held, and not in the grip of another transaction."""
        other = self._tables.locks.other_owner(lock, self.transaction)
        return other is None and self.holder(lock) is not None

    def grip_lock(self, lock: str) -> None:
        """Keep others from relying on a held lock, until the end of the transaction.

        A claim that is parking jobs behind the lock, and has not ended, shares it until it does.
        """
        claim = self._tables.jobs.parking_behind(lock, self.transaction)
        if claim is not None:
            raise Blocked(claim)
        row = self._tables.locks.get(lock, self.transaction)
        self.undone_by.append(self._tables.locks.write(lock, row, self.transaction))

    def hold_lock(self, lock: str, job_id: int) -> None:
        self.undone_by.append(self._tables.locks.write(lock, (lock, job_id), self.transaction))

    def release_lock(self, lock: str) -> None:
        self.undone_by.append(self._tables.locks.write(lock, None, self.transaction))

    # workers

    def next_worker_id(self) -> int:
        return next(self._tables.worker_ids)

    def worker(self, worker_id: int) -> WorkerRow | None:
        return self._tables.workers.get(worker_id, self.transaction)

    def workers(self) -> list[WorkerRow]:
        return self._tables.workers.rows(self.transaction)

    def write_worker(self, worker: WorkerRow) -> None:
        self.undone_by.append(self._tables.workers.write(worker.id, worker, self.transaction))

    def delete_worker(self, worker_id: int) -> None:
        self.undone_by.append(self._tables.workers.write(worker_id, None, self.transaction))

    # periodic tasks

    def periodics(self) -> list[PeriodicRow]:
        return self._tables.periodics.rows(self.transaction)

    def periodic(self, task_name: str, periodic_id: str) -> PeriodicRow | None:
        return self._tables.periodics.get((task_name, periodic_id), self.transaction)

    def settled_periodic(self, task_name: str, periodic_id: str) -> PeriodicRow | None:
        """Return a schedule's row, once no other transaction has changed it without an end."""
        other = self._tables.periodics.other_owner((task_name, periodic_id), self.transaction)
        if other is not None:
            raise Blocked(other)
        return self.periodic(task_name, periodic_id)

    def is_locked_periodic(self, task_name: str, periodic_id: str) -> bool:
        """Whether another transaction has a schedule's row pending: SKIP LOCKED leaves it out."""
        key = (task_name, periodic_id)
        return self._tables.periodics.other_owner(key, self.transaction) is not None

    def write_periodic(self, row: PeriodicRow) -> PeriodicRow:
        key = (row.task_name, row.periodic_id)
        self.undone_by.append(self._tables.periodics.write(key, row, self.transaction))
        return row

    # what running jobs say of themselves

    def progress(self) -> list[ProgressRow]:
        return self._tables.progress.rows(self.transaction)

    def progress_of(self, job_id: int) -> ProgressRow | None:
        return self._tables.progress.get(job_id, self.transaction)

    def write_progress(self, row: ProgressRow) -> None:
        self.undone_by.append(self._tables.progress.write(row.job_id, row, self.transaction))

    def delete_progress(self, job_id: int) -> None:
        self.undone_by.append(self._tables.progress.write(job_id, None, self.transaction))

    # paused queues

    def pauses(self) -> list[PauseRow]:
        """Return the pauses that are in force, in order of the queues' names."""
        rows = sorted(self._tables.pauses.rows(self.transaction), key=lambda row: row.queue_name)
        return [row for row in rows if self.is_in_force(row)]

    def ended_pauses(self) -> list[PauseRow]:
        """Return the pauses that have ended by themselves, of which no other has one in hand."""
        table = self._tables.pauses
        rows = [row for row in table.rows(self.transaction) if not self.is_in_force(row)]
        return [row for row in rows if not table.other_owner(row.queue_name, self.transaction)]

    def pause(self, queue_name: str) -> PauseRow | None:
        return self._tables.pauses.get(queue_name, self.transaction)

    def is_paused(self, queue: str | None) -> bool:
        """Whether a pause covers a queue."""
        names = {row.queue_name for row in self.pauses()}
        return queue is not None and are_pauses_of(names, queue)

    def is_in_force(self, row: PauseRow) -> bool:
        return row.paused_until is None or row.paused_until > self.now

    def write_pause(self, row: PauseRow) -> None:
        self.undone_by.append(self._tables.pauses.write(row.queue_name, row, self.transaction))

    def delete_pause(self, queue_name: str) -> None:
        self.undone_by.append(self._tables.pauses.write(queue_name, None, self.transaction))

    # what ended in each minute

    def minutes(self) -> list[MinuteRow]:
        return self._tables.minutes.rows(self.transaction)

    def minute(self, key: tuple[datetime, int, str, str]) -> MinuteRow | None:
        return self._tables.minutes.get(key, self.transaction)

    def write_minute(self, row: MinuteRow) -> None:
        self.undone_by.append(self._tables.minutes.write(row.key, row, self.transaction))

    def delete_minute(self, key: tuple[datetime, int, str, str]) -> None:
        self.undone_by.append(self._tables.minutes.write(key, None, self.transaction))


Params: TypeAlias = Mapping[str, Any]
Function: TypeAlias = Callable[[View, Params], Rows]
