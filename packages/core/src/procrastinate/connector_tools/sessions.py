"""A session over any driver: one connection for the length of a block (rules 3, 7, 9 and 10).

A connector gives it a `Lease` for each connection and a `Source` that hands leases out, or their
asynchronous forms. Everything else about sessions is here.

Rules

1. A connection is in autocommit mode, so one query is one round trip. A transaction's BEGIN travels
   with its first query (`transactions`).
2. A connection on which anything is doubtful is discarded and not given back: it broke, it was
   severed, it stands on a read-only server, a statement is still under way, a rollback failed.
   After the second and the third of these the source's idle connections are closed too.
3. A COMMIT that the server turned into a rollback is an error: an earlier statement had failed and
   the block went on.
4. The connection can be severed until it is given back, because COMMIT and ROLLBACK may wait too.
5. Most sessions are one query without a transaction. Their way has few steps, because in the time
   of a defer the processor's caches are cold, and each call costs several times what it costs in a
   loop.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.failures import READ_ONLY, session_ended
from procrastinate.connector_tools.transactions import LazyTransaction, aborted
from procrastinate.errors import ConnectionLost, ConnectorException


class _Connection(Protocol):
    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also a failed one. False for a closed connection."""

    @property
    def reusable(self) -> bool:
        """Whether it is open, with no transaction and nothing under way."""

    def sever(self) -> None:
        """Shut the socket down, from any thread. Never raises (rule 10)."""


class Lease(_Connection, Protocol):
    """A connection in the hands of one session. Raises `ConnectorException` only."""

    def run(self, query: Query, begin: str) -> Rows:
        """Execute a query; ``begin`` and the query's settings go in front of it.

        ``begin`` is ``BEGIN;``, ``BEGIN READ ONLY;`` or empty.
        """

    def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK and return the server's command tag for it."""


class AsyncLease(_Connection, Protocol):
    """A connection in the hands of one asynchronous session. Raises `ConnectorException` only."""

    async def run(self, query: Query, begin: str) -> Rows:
        """Execute a query; ``begin`` and the query's settings go in front of it.

        ``begin`` is ``BEGIN;``, ``BEGIN READ ONLY;`` or empty.
        """

    async def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK and return the server's command tag for it."""


L = TypeVar("L", bound=Lease)
A = TypeVar("A", bound=AsyncLease)
C = TypeVar("C", bound=_Connection)
C_contra = TypeVar("C_contra", bound=_Connection, contravariant=True)


class _Taking(Protocol[C_contra]):
    def release(self, lease: C_contra, *, discard: bool = False) -> None:
        """Take back a connection outside of any transaction, or one to be closed."""

    def discard_idle(self) -> None:
        """Close idle connections: they are probably as silent, or lead to the same server."""


class Source(_Taking[L], Protocol[L]):
    """Where sessions take their connections."""

    @property
    def inherited(self) -> bool:
        """Whether this belongs to the process that ours was forked from."""

    def acquire(self, timeout: float | None = None) -> L:
        """Return a live connection; ``timeout`` in seconds, None for the source's own.

        Raises `ConnectionFailed` or `PoolTimeout`.
        """


class AsyncSource(_Taking[A], Protocol[A]):
    """Where asynchronous sessions take their connections."""

    async def acquire(self, timeout: float | None = None) -> A:
        """Return a live connection; ``timeout`` in seconds, None for the source's own.

        Raises `ConnectionFailed` or `PoolTimeout`.
        """


T = TypeVar("T", bound=_Taking[Any])


class _State(Generic[C, T]):
    """What a session knows, and decides without waiting."""

    __slots__ = (
        "_discard",
        "_lease",
        "_on_loan",
        "_read_only",
        "_severed",
        "_source",
        "_timeout",
        "_transaction",
    )

    _transaction: LazyTransaction | None  # None: none is wanted
    _read_only: bool
    _timeout: float | None
    _lease: C | None  # until the block ends
    _on_loan: C | None  # until it is given back (rule 4)
    _discard: bool
    _severed: bool

    def __init__(
        self,
        source: T,
        *,
        transaction: bool = False,
        read_only: bool = False,
        timeout: float | None = None,
    ) -> None:
        wanted = transaction or read_only
        self._transaction = (
            LazyTransaction(wanted=transaction, read_only=read_only) if wanted else None
        )
        self._read_only = read_only
        self._timeout = timeout
        self._lease = self._on_loan = None
        self._discard = self._severed = False
        self._source = source

    def _began(self) -> bool:
        """Return whether there is something to commit. Raises `ConnectorException`."""
        return self._transaction is not None and self._transaction.is_to_commit()

    def sever(self) -> None:
        """Shut the connection down while a statement waits on it; from any thread."""
        lease = self._on_loan
        if lease is not None:
            self._severed = True
            lease.sever()

    def _failed(self, error: ConnectorException) -> None:
        if isinstance(error, ConnectionLost):
            self._discard = True
            is_of_server = error.sqlstate == READ_ONLY and not self._read_only
            if self._severed or is_of_server:
                self._source.discard_idle()

    def _give_back(self, lease: C) -> None:
        self._on_loan = None
        discard = self._discard or self._severed or not lease.reusable
        self._source.release(lease, discard=discard)

    def _is_clean(self, kind: type[BaseException] | None, lease: C) -> bool:
        """Return whether a session has nothing to end: its connection can go back as it is."""
        return (
            kind is None
            and self._transaction is None
            and not (self._discard or self._severed)
            and lease.reusable
        )


class Session(_State[L, Source[L]], Generic[L]):
    """A synchronous session, also as its executor."""

    __slots__ = ()

    def __enter__(self) -> Session[L]:
        self._lease = self._on_loan = self._source.acquire(self._timeout)
        return self

    def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        lease = self._lease
        if lease is None:
            raise session_ended(query)
        transaction = self._transaction
        begin = "" if transaction is None else transaction.prefix()
        error: ConnectorException | None = None
        try:
            return lease.run(query, begin)
        except ConnectorException as exc:
            error = exc
            self._failed(exc)
            raise
        finally:
            if begin and transaction is not None:
                transaction.after_prefix(error, in_transaction=lease.in_transaction)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is None or self._source.inherited:
            return
        if self._is_clean(kind, lease):
            self._on_loan = None
            self._source.release(lease)
            return
        try:
            if kind is None and self._began():
                self._commit(lease)
        finally:
            self._roll_back(lease)
            self._give_back(lease)

    def _commit(self, lease: L) -> None:
        try:
            ended = lease.end("COMMIT")
        except ConnectorException as exc:
            self._failed(exc)
            raise
        if ended == "ROLLBACK":
            raise aborted()

    def _roll_back(self, lease: L) -> None:
        """Roll back what is still open; what goes wrong with that, `_give_back` sees."""
        if self._discard or self._severed or not lease.in_transaction:
            return
        try:
            lease.end("ROLLBACK")
        except ConnectorException:
            self._discard = True


class AsyncSession(_State[A, AsyncSource[A]], Generic[A]):
    """An asynchronous session, also as its executor."""

    __slots__ = ()

    async def __aenter__(self) -> AsyncSession[A]:
        self._lease = self._on_loan = await self._source.acquire(self._timeout)
        return self

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        lease = self._lease
        if lease is None:
            raise session_ended(query)
        transaction = self._transaction
        begin = "" if transaction is None else transaction.prefix()
        error: ConnectorException | None = None
        try:
            return await lease.run(query, begin)
        except ConnectorException as exc:
            error = exc
            self._failed(exc)
            raise
        finally:
            if begin and transaction is not None:
                transaction.after_prefix(error, in_transaction=lease.in_transaction)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._is_clean(kind, lease):
            self._on_loan = None
            self._source.release(lease)
            return
        try:
            if kind is None and self._began():
                await self._commit(lease)
        finally:
            try:
                # A coroutine that is being closed cannot wait for anything.
                if not isinstance(exc, GeneratorExit):
                    await self._roll_back(lease)
            finally:
                self._give_back(lease)

    async def _commit(self, lease: A) -> None:
        try:
            ended = await lease.end("COMMIT")
        except ConnectorException as exc:
            self._failed(exc)
            raise
        if ended == "ROLLBACK":
            raise aborted()

    async def _roll_back(self, lease: A) -> None:
        """Roll back what is still open; what goes wrong with that, `_give_back` sees."""
        if self._discard or self._severed or not lease.in_transaction:
            return
        try:
            await lease.end("ROLLBACK")
        except ConnectorException:
            self._discard = True
