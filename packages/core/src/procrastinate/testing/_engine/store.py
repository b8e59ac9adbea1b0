"""The store behind an in-memory connector: it runs named statements, one at a time.

The SQL of a `Query` is not looked at, except for the types that it casts its parameters to; the
function of its name does what the SQL says. A statement that fails spoils its transaction, whose
end is then a rollback. Notifications are delivered at commit, each distinct one once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import datetime

from procrastinate import drive
from procrastinate.connector import Notification, Query, Rows
from procrastinate.errors import ConnectionLost, ConnectorException, database_error
from procrastinate.model.claiming.scans import PROMOTED_AT_ONCE
from procrastinate.storage.claim import promote_due
from procrastinate.storage.statements import Statements
from procrastinate.testing._engine import (
    bulk,
    claim,
    counts,
    defer,
    finish,
    fleet,
    jobs,
    lines,
    locks,
    minutes,
    periodic,
    progress,
    queues,
    search,
    workers,
)
from procrastinate.testing._engine.tables import Blocked, Tables, Transaction
from procrastinate.testing._engine.values import JobRow, parameters_of
from procrastinate.testing._engine.view import View
from procrastinate.testing.clock import Clock

#: Seconds that a statement waits for another transaction: code that would hang for good with
#: PostgreSQL, as a thread that waits for its own other session, gets an error instead.
LOCK_TIMEOUT = 10.0

STATEMENTS = {
    **defer.STATEMENTS,
    **finish.STATEMENTS,
    **claim.STATEMENTS,
    **locks.STATEMENTS,
    **lines.STATEMENTS,
    **jobs.STATEMENTS,
    **periodic.STATEMENTS,
    **progress.STATEMENTS,
    **bulk.STATEMENTS,
    **workers.STATEMENTS,
    **fleet.STATEMENTS,
    **search.STATEMENTS,
    **queues.STATEMENTS,
    **minutes.STATEMENTS,
    **counts.STATEMENTS,
}


@dataclass(eq=False)
class Listener:
    """Hears notifications on its event loop, whatever thread they come from."""

    owner: object
    channels: frozenset[str]
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[Notification | None] = field(default_factory=asyncio.Queue)

    def put(self, item: Notification | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and the listener is gone
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)

    async def heard(self) -> AsyncIterator[Notification]:
        while (item := await self.queue.get()) is not None:
            yield item
        raise ConnectionLost("the in-memory connector was closed")


class Store:
    """The data that an in-memory connector and its synchronous half share. Threads may, too."""

    def __init__(self) -> None:
        self.clock = Clock(on_change=self._promote)
        self._mutex = threading.RLock()
        self._listeners: dict[Listener, None] = {}
        self._tables = Tables()

    def reset(self) -> None:
        """Forget all data, start ids from 1 again, and let the clock show the real time."""
        with self._mutex:
            self._tables = Tables()
        self.clock.unfreeze()

    def execute(self, query: Query, transaction: Transaction, now: datetime) -> Rows:
        """Run a statement. Raises `Blocked` when another transaction has to end first."""
        with self._mutex:
            _check_usable(transaction, query)
            view = View(self._tables, transaction, now)
            try:
                rows = _run(query, view)
                _check_may_write(transaction, query, view)
            except BaseException as exc:
                view.undo()
                transaction.failed = not isinstance(exc, Blocked)
                raise
            transaction.written(view.undone_by)
            return rows

    def end(self, transaction: Transaction, *, commit: bool) -> None:
        """End a transaction, and tell those who wait for its end or listen."""
        commit = commit and not transaction.failed
        with self._mutex:
            self._tables.end(transaction, commit=commit)
            if commit:
                self._deliver(transaction.notifications)
            transaction.ended = True
        transaction.gave_way.set_result(None)

    def job_rows(self) -> list[JobRow]:
        """Return the committed jobs, in order of id."""
        with self._mutex:
            committed = self._tables.jobs.committed
            return [committed[job_id] for job_id in sorted(committed)]

    def add_listener(self, listener: Listener) -> None:
        with self._mutex:
            self._listeners[listener] = None

    def remove_listener(self, listener: Listener) -> None:
        with self._mutex:
            self._listeners.pop(listener, None)

    def close_listeners(self, owner: object) -> None:
        """Tell the listeners of a connector that it was closed."""
        with self._mutex:
            for listener in self._listeners:
                if listener.owner is owner:
                    listener.put(None)

    def _deliver(self, notifications: Iterable[Notification]) -> None:
        for notification in notifications:
            for listener in self._listeners:
                if notification.channel in listener.channels:
                    listener.put(notification)

    @contextlib.contextmanager
    def transaction(self, *, block: bool = True, read_only: bool = False) -> Iterator[Transaction]:
        """A transaction, rolled back when it raises: a block of statements, or only one."""
        transaction = Transaction(block=block, read_only=read_only)
        try:
            yield transaction
        except BaseException:
            self.end(transaction, commit=False)
            raise
        self.end(transaction, commit=True)

    def _promote(self) -> None:
        executor = SyncSession(self)
        while drive.run(promote_due(), executor, Statements()).count == PROMOTED_AT_ONCE:
            pass


def _check_usable(transaction: Transaction, query: Query) -> None:
    if transaction.ended:
        raise ConnectorException("the in-memory connection was used after its transaction ended")
    if transaction.failed and query.name != "return_to_savepoint":
        raise database_error(
            "current transaction is aborted: a statement before this one failed", sqlstate="25P02"
        )


def _check_may_write(transaction: Transaction, query: Query, view: View) -> None:
    if transaction.read_only and view.undone_by:
        raise database_error(
            f"{query.name} cannot be executed in a read-only transaction", sqlstate="25006"
        )


def _run(query: Query, view: View) -> Rows:
    function = STATEMENTS.get(query.name)
    if function is None:
        raise database_error(
            f"the in-memory connector runs procrastinate's own statements, not {query.name!r}",
            sqlstate="0A000",
        )
    try:
        return function(view, parameters_of(query))
    except OverflowError as exc:
        raise database_error(f"timestamp out of range: {exc}", sqlstate="22008") from exc


class SyncSession:
    """An executor: in a transaction, or else with each statement a transaction of its own."""

    def __init__(self, store: Store, transaction: Transaction | None = None) -> None:
        self.store = store
        self.transaction = transaction

    def execute(self, query: Query, /) -> Rows:
        if self.transaction is not None:
            return self._execute(query, self.transaction)
        with self.store.transaction(block=False) as transaction:
            return self._execute(query, transaction)

    def sever(self) -> None:
        """Do nothing: there is no connection, and no wait is without an end."""

    def _execute(self, query: Query, transaction: Transaction) -> Rows:
        now, deadline = self.store.clock.now(), time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self.store.execute(query, transaction, now)
            except Blocked as blocked:
                waited_for = blocked.until
            futures.wait([waited_for], max(0, deadline - time.monotonic()))
            _check_ended(waited_for, transaction)


class AsyncSession:
    """The same for coroutines."""

    def __init__(self, store: Store, transaction: Transaction | None = None) -> None:
        self.store = store
        self.transaction = transaction

    async def execute(self, query: Query, /) -> Rows:
        await asyncio.sleep(0)  # others have their turn, as while a real query is under way
        if self.transaction is not None:
            return await self._execute(query, self.transaction)
        with self.store.transaction(block=False) as transaction:
            return await self._execute(query, transaction)

    def sever(self) -> None:
        """Do nothing: there is no connection, and no wait is without an end."""

    async def _execute(self, query: Query, transaction: Transaction) -> Rows:
        now, deadline = self.store.clock.now(), time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self.store.execute(query, transaction, now)
            except Blocked as blocked:
                waited_for = blocked.until
            # asyncio.wait, unlike wait_for, leaves the future alone when it gives up.
            await asyncio.wait(
                [asyncio.wrap_future(waited_for)], timeout=max(0, deadline - time.monotonic())
            )
            _check_ended(waited_for, transaction)


def _check_ended(waited_for: futures.Future[None], transaction: Transaction) -> None:
    if not waited_for.done():
        transaction.failed = True
        raise database_error(
            f"another transaction kept a row locked for {LOCK_TIMEOUT:g} seconds",
            sqlstate="55P03",
        )
