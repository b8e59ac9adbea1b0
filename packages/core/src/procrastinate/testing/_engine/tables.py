"""The in-memory tables, with row versions that behave as PostgreSQL's do at READ COMMITTED.

Rules

1. A row has one committed version and at most one pending version, which belongs to the one
   transaction that wrote it. A transaction sees its own pending rows, and else committed ones.
2. A statement that would write what another transaction has pending is `Blocked`: it waits for
   that one to end and is then done again from its start. Statements that say SKIP LOCKED leave
   such rows out.
3. No session holds a lock of Python's for longer than one statement: code with two sessions on one
   thread or loop works as it would with a database.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from procrastinate.connector import Notification
from procrastinate.errors import database_error
from procrastinate.model.job import Status
from procrastinate.testing._engine.values import (
    ACTIVE,
    JobRow,
    MinuteRow,
    PauseRow,
    PeriodicRow,
    ProgressRow,
    WorkerRow,
    check_job,
)

K = TypeVar("K")
R = TypeVar("R")

QUEUEING_LOCK_KEY = "procrastinate_jobs_queueing_lock_key"


@dataclass
class Savepoint:
    """Where a transaction can return to: what it then had to deliver, and what undoes the rest."""

    notifications: dict[Notification, None]
    undo: list[Callable[[], None]] = field(default_factory=list)


class Transaction:
    """What one transaction has to deliver when it commits, and whether it can.

    A statement on its own (autocommit) is one, too, but no ``block``.
    """

    def __init__(self, *, block: bool, read_only: bool = False) -> None:
        self.block = block
        self.read_only = read_only
        self.notifications: dict[Notification, None] = {}
        self.savepoints: list[Savepoint] = []
        self.failed = False
        self.ended = False
        #: Done once others may look again at what this transaction had written.
        self.gave_way: Future[None] = Future()

    def written(self, undo: list[Callable[[], None]]) -> None:
        """Remember what undoes a statement, while there is a savepoint to return to."""
        if self.savepoints:
            self.savepoints[-1].undo.extend(undo)

    def set_savepoint(self) -> None:
        """Begin what can be undone. Raises outside of a block."""
        if not self.block:
            raise database_error(
                "SAVEPOINT can only be used in transaction blocks", sqlstate="25P01"
            )
        self.savepoints.append(Savepoint(dict(self.notifications)))

    def drop_savepoint(self) -> None:
        """Let what was written since belong to the savepoint before, or to the transaction."""
        self.written(self.savepoints.pop().undo)

    def return_to_savepoint(self) -> None:
        """Undo what was written since, also after a statement that failed."""
        savepoint = self.savepoints.pop()
        while savepoint.undo:
            savepoint.undo.pop()()
        self.notifications = savepoint.notifications
        self.failed = False
        waited_for, self.gave_way = self.gave_way, Future()
        waited_for.set_result(None)


class Blocked(Exception):
    """The statement has to wait until another transaction ends, or takes back what it wrote."""

    def __init__(self, by: Transaction) -> None:
        super().__init__()
        self.until = by.gave_way


class Table(Generic[K, R]):
    """One table: rows by their key."""

    def __init__(self) -> None:
        self.committed: dict[K, R] = {}
        self.pending: dict[K, R | None] = {}  # None: deleted
        self.owners: dict[K, Transaction] = {}

    def get(self, key: K, reader: Transaction) -> R | None:
        if self.owners.get(key) is reader:
            return self.pending[key]
        return self.committed.get(key)

    def rows(self, reader: Transaction) -> list[R]:
        if not self.pending:
            return list(self.committed.values())
        found = (self.get(key, reader) for key in {**self.committed, **self.pending})
        return [row for row in found if row is not None]

    def other_owner(self, key: K, reader: Transaction) -> Transaction | None:
        owner = self.owners.get(key)
        return None if owner is reader else owner

    def write(self, key: K, row: R | None, writer: Transaction) -> Callable[[], None]:
        """Write a row's pending version and return what undoes that."""
        other = self.other_owner(key, writer)
        if other is not None:
            raise Blocked(other)
        was_owned, before = key in self.owners, self.pending.get(key)
        self.owners[key], self.pending[key] = writer, row

        def undo() -> None:
            if was_owned:
                self.pending[key] = before
            else:
                del self.owners[key], self.pending[key]

        return undo

    def end(self, transaction: Transaction, *, commit: bool) -> list[K]:
        """Make a transaction's rows the committed ones, or forget them; return their keys."""
        keys = [key for key, owner in self.owners.items() if owner is transaction]
        for key in keys:
            del self.owners[key]
            row = self.pending.pop(key)
            if commit and row is not None:
                self.committed[key] = row
            elif commit:
                self.committed.pop(key, None)
        return keys


class JobTable(Table[int, JobRow]):
    """The jobs, with an index that holds at least the ids of those that wait or run."""

    def __init__(self) -> None:
        super().__init__()
        self._active: set[int] = set()

    def active(self, reader: Transaction) -> list[JobRow]:
        """Return the jobs that wait or run, in order of id."""
        found = (self.get(key, reader) for key in sorted(self._active))
        return [row for row in found if row is not None and row.status in ACTIVE]

    def has_twin(
        self, queueing_lock: str | None, reader: Transaction, *, besides: int | None = None
    ) -> bool:
        """Whether a (or another) job with this queueing lock waits, as the reader sees it."""
        if queueing_lock is None:
            return False
        found = (self.get(key, reader) for key in self._active if key != besides)
        return any(_waits_for(row, queueing_lock) for row in found)

    def has_settled_twin(
        self, queueing_lock: str | None, reader: Transaction, *, besides: int | None = None
    ) -> bool:
        """The same, once no other transaction may yet bring such a job or take it away."""
        for key, owner in self.owners.items():
            versions = (self.committed.get(key), self.pending[key])
            if owner is not reader and any(_waits_for(row, queueing_lock) for row in versions):
                raise Blocked(owner)
        return self.has_twin(queueing_lock, reader, besides=besides)

    def parking_behind(self, lock: str, reader: Transaction) -> Transaction | None:
        """Return another transaction that parks a job behind this lock and has not ended yet."""
        for key, owner in self.owners.items():
            before, after = self.committed.get(key), self.pending[key]
            was_parked = before is not None and before.hold == "lock"
            if after is None or was_parked or (after.hold, after.lock) != ("lock", lock):
                continue
            if owner is not reader:
                return owner
        return None

    def write(self, key: int, row: JobRow | None, writer: Transaction) -> Callable[[], None]:
        if row is not None:
            check_job(row)
            self._check_unique(row, writer)
            self._active.add(key)
        return super().write(key, row, writer)

    def _check_unique(self, row: JobRow, writer: Transaction) -> None:
        if row.status is not Status.TODO or row.queueing_lock is None:
            return
        if self.has_settled_twin(row.queueing_lock, writer, besides=row.id):
            raise database_error(
                f'duplicate key value violates unique constraint "{QUEUEING_LOCK_KEY}"',
                sqlstate="23505",
                constraint=QUEUEING_LOCK_KEY,
            )

    def end(self, transaction: Transaction, *, commit: bool) -> list[int]:
        keys = super().end(transaction, commit=commit)
        for key in keys:
            row = self.committed.get(key)
            if row is None or row.status not in ACTIVE:
                self._active.discard(key)
        return keys


def _waits_for(row: JobRow | None, queueing_lock: str | None) -> bool:
    return (
        row is not None
        and row.queueing_lock is not None
        and row.queueing_lock == queueing_lock
        and row.status is Status.TODO
    )


class Tables:
    """All tables and their sequences, which no rollback takes back."""

    def __init__(self) -> None:
        self.jobs = JobTable()
        self.locks: Table[str, tuple[str, int]] = Table()  # the lock, and the job that holds it
        self.workers: Table[int, WorkerRow] = Table()
        self.periodics: Table[tuple[str, str], PeriodicRow] = Table()
        self.progress: Table[int, ProgressRow] = Table()
        self.pauses: Table[str, PauseRow] = Table()
        self.minutes: Table[tuple[datetime, int, str, str], MinuteRow] = Table()
        self.job_ids = itertools.count(1)
        self.worker_ids = itertools.count(1)

    def end(self, transaction: Transaction, *, commit: bool) -> None:
        """Make what a transaction wrote the committed state, or forget it."""
        self.jobs.end(transaction, commit=commit)
        self.locks.end(transaction, commit=commit)
        self.workers.end(transaction, commit=commit)
        self.periodics.end(transaction, commit=commit)
        self.progress.end(transaction, commit=commit)
        self.pauses.end(transaction, commit=commit)
        self.minutes.end(transaction, commit=commit)
