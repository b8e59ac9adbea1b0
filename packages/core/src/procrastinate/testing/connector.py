"""Connectors to a store in memory, for tests: no database, and the same behaviour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from procrastinate.app.app import App
from procrastinate.connector import (
    AsyncSessionExecutor,
    Binder,
    ListeningConnector,
    Notification,
    OwnConnection,
    SessionExecutor,
    SyncConnector,
    begin,
)
from procrastinate.errors import InvalidOption
from procrastinate.testing._engine.store import AsyncSession, Listener, Store, SyncSession
from procrastinate.testing._engine.tables import Transaction
from procrastinate.testing.base import KeepsJobs
from procrastinate.testing.waiting import WaitingInMemory


class InMemoryConnection(OwnConnection):
    """What `transaction` gives, for ``connection=``; it has no methods of its own."""

    def __init__(self, store: Store, transaction: Transaction) -> None:
        self._store = store
        self._transaction = transaction


class _InMemory(KeepsJobs):
    """What both connectors do for others: transactions, and waits for jobs."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[InMemoryConnection]:
        """A block that stands for the application's own transaction, rolled back when it raises.

        Give the connection to ``task.configure(connection=...)``. It is used with ``with`` in
        coroutines, too.
        """
        with self._store.transaction() as transaction:
            yield InMemoryConnection(self._store, transaction)

    def own_binder(self, connection: Any) -> Binder | None:
        """Return what binds a connection of `transaction`; None for any other."""
        if not issubclass(type(connection), InMemoryConnection):  # isinstance() believes a Mock
            return None
        return Binder(
            words="connection of InMemoryConnector.transaction()",
            bind=lambda given: SyncSession(self._store, self._bound(given)),
            bind_async=lambda given: AsyncSession(self._store, self._bound(given)),
        )

    def _bound(self, connection: InMemoryConnection) -> Transaction:
        if connection._store is not self._store:
            raise InvalidOption("connection belongs to another in-memory connector")
        if connection._transaction.ended:
            raise InvalidOption("connection is used after the end of its transaction() block")
        return connection._transaction

    def waiting_room(self, app: App) -> WaitingInMemory:
        """Return where calls of an app wait for a job: there they run what is due."""
        return WaitingInMemory(self._with_worker(app), self.clock)

    def _with_worker(self, app: App) -> App:
        """Return an app with the same tasks, on this store, that can have a worker."""
        return app if app.connector is self else app.with_connector(self)


class InMemorySyncConnector(_InMemory, SyncConnector):
    """The synchronous half of an `InMemoryConnector`: the same store, for plain code."""

    def _with_worker(self, app: App) -> App:
        connector = InMemoryConnector(
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            store=self._store,
        )
        return app.with_connector(connector)

    def open(self, pool: Any = None) -> None:
        """Do nothing. A pool or engine is accepted, for start-up code under test, and not used."""

    def close(self) -> None:
        """Do nothing: the jobs stay."""

    @contextlib.contextmanager
    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> Iterator[SessionExecutor]:
        """Return a block holding one session; nothing has to be opened first, or waited for."""
        begin(transaction=transaction, read_only=read_only)
        if not transaction:
            yield SyncSession(self._store)
            return
        with self._store.transaction(read_only=read_only) as begun:
            yield SyncSession(self._store, begun)


class InMemoryConnector(_InMemory, ListeningConnector):
    """A connector for tests that needs no database and behaves as with one.

    Jobs are deferred, locked, claimed and finished as in PostgreSQL, transactions and
    notifications included; a worker runs on it, and threads may share it. Every instance has
    a store of its own, which lasts until `reset`. Times are those of `clock`.
    """

    async def open_async(self, pool: Any = None) -> None:
        """Do nothing. A pool or engine is accepted, for start-up code under test, and not used."""

    async def close_async(self) -> None:
        """Send `ConnectionLost` to listeners; the jobs stay."""
        self._store.close_listeners(self)

    @contextlib.asynccontextmanager
    async def session_async(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AsyncIterator[AsyncSessionExecutor]:
        """Return a block holding one session; nothing has to be opened first, or waited for."""
        begin(transaction=transaction, read_only=read_only)
        if not transaction:
            yield AsyncSession(self._store)
            return
        with self._store.transaction(read_only=read_only) as begun:
            yield AsyncSession(self._store, begun)

    def sync_connector(self, *, connect_timeout: float | None = None) -> InMemorySyncConnector:
        """Return a new, unopened synchronous connector to the same store."""
        return InMemorySyncConnector(
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            store=self._store,
        )

    @contextlib.asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        """Return a block that hears the notifications of any thread, on the running loop."""
        listener = Listener(self, frozenset(channels), asyncio.get_running_loop())
        self._store.add_listener(listener)
        try:
            yield listener.heard()
        finally:
            self._store.remove_listener(listener)
