"""One app's way to its database: which half of the connector runs a flow, and whether it may.

Rules

- Synchronous calls always run on the synchronous connector: the app's own, or the counterpart of
  its asynchronous one. It makes no difference what else is open.
- Asynchronous calls run on the asynchronous connector; with a synchronous one they run in a thread.
- A call inside the caller's transaction (``connection=``) needs neither an open app nor a pool, and
  it makes no difference which connector the app has: that gives the schema and the functions for
  JSON. What runs on the connection is found by its class (`procrastinate.binders`). A synchronous
  connection runs in a thread in asynchronous calls.
- A connector that runs no SQL keeps the jobs of any connection. Nothing goes through it.
- What finds jobs needs to know into how many partitions the database has put them. That is read
  from it when it is first asked for, and again after `SETTINGS_LAST`: `schema --distribute` may
  have changed it. Defers need it not: the functions that insert jobs know it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from procrastinate import binders, connectors, drive, time_limits
from procrastinate.connector import (
    AsyncConnector,
    AsyncExecutor,
    Binder,
    Connector,
    Executor,
    Rows,
    SyncConnector,
)
from procrastinate.drive import Flow, Limit, Request
from procrastinate.errors import (
    AppNotOpen,
    ConfigurationError,
    ConnectionLost,
    ConnectorException,
    SchemaError,
    SyncConnectorConfigurationError,
)
from procrastinate.model.partitions import Partitions
from procrastinate.observing.observers import NOBODY, Observers
from procrastinate.storage.callers import LookAgain, Place, for_caller, get_place
from procrastinate.storage.settings import read_settings
from procrastinate.storage.statements import Statements
from procrastinate.threads import in_thread
from procrastinate.time_limits import TimeLimit

if TYPE_CHECKING:
    from procrastinate.loop_thread import LoopThreadConnector
    from procrastinate.waiting.room import WaitingRoom

T = TypeVar("T")

SETTINGS_LAST = 10.0  # seconds
LOOK_AGAIN = 2.0  # seconds to wait for a connection of the app's own, to see where it leads


class Gateway:
    """Runs storage flows through a connector."""

    def __init__(
        self, connector: Connector, observers: Observers = NOBODY, *, app: Any = None
    ) -> None:
        self.connector = connector
        # Kept, because to ask for an abstract class takes time in each call.
        self._sync = connector if isinstance(connector, SyncConnector) else None
        self._async = connector if isinstance(connector, AsyncConnector) else None
        self.observers = observers  # of what goes through it
        #: Whose tasks a connector without a database runs, because no worker would.
        self.app = None if connector.runs_sql else app
        self.statements = Statements(connector.schema)
        self._settings_until = 0.0  # on the monotonic clock
        #: What `get_place` says of the app's own tables, once a call has seen them.
        self._place: Place | None = None
        self._looks_for_place = connector.runs_sql
        self._open = connector.always_open
        self._open_async = connector.always_open
        self._counterpart: SyncConnector | None = None
        self._counterpart_opened = False
        self._counterpart_lock = threading.Lock()
        self._waiting_room: WaitingRoom | None = None

    def open(self, pool: Any = None) -> None:
        if isinstance(self.connector, SyncConnector):
            self.connector.open(pool)
        else:
            self._open_counterpart(pool)
        self._open = True

    def close(self) -> None:
        self._open = self.connector.always_open
        if (room := self._room_to_close()) is not None:
            room.close()
        if isinstance(self.connector, SyncConnector):
            self.connector.close()
            self._open_async = self.connector.always_open
        else:
            self._close_counterpart()
        self._forget_place()

    async def open_async(self, pool: Any = None) -> None:
        if isinstance(self.connector, AsyncConnector):
            await self.connector.open_async(pool)
        else:
            await self._counterpart_or_self().call_async(lambda: self.open(pool))
        self._open_async = True

    async def close_async(self) -> None:
        if isinstance(self.connector, AsyncConnector):
            self._open_async = self.connector.always_open
            if (room := self._room_to_close()) is not None:
                await in_thread(room.close)
            await self.connector.close_async()
            counterpart = self._counterpart
            if counterpart is not None and not self._open:
                await counterpart.call_async(self._close_counterpart)
        else:
            await self._counterpart_or_self().call_async(self.close)
        self._open_async = self.connector.always_open
        self._forget_place()

    def _room_to_close(self) -> WaitingRoom | None:
        """Return the waiting room, if it has a thread and the app is not open any more."""
        room = self._waiting_room
        return room if room is not None and room.is_used and not self._is_open else None

    @property
    def _is_open(self) -> bool:
        """Whether it is open for calls of either kind."""
        return self._open or self._open_async

    def check_open(self, *, for_async: bool) -> None:
        """Raise `AppNotOpen` if the app is not open for plain, or for asynchronous, calls."""
        if for_async and isinstance(self.connector, AsyncConnector):
            if not self._open_async:
                raise AppNotOpen(_not_open(self._open, "open_async"))
        elif not self._is_open:
            raise AppNotOpen(_not_open(False, "open"))

    @property
    def waiting_room(self) -> WaitingRoom:
        """Where to wait for the ends of jobs."""
        room = self._waiting_room
        if room is None:
            from procrastinate.waiting.room import WaitingRoom  # not at the top: it needs asyncio

            with self._counterpart_lock:
                room = self._waiting_room = self._waiting_room or WaitingRoom(self)
        return room

    def beside(self, *, max_connections: int, connect_timeout: float) -> Gateway:
        """Return a gateway to the same database, not open yet, for another event loop.

        Raises `ConfigurationError` or TypeError if the connector can have no sibling.
        """
        assert isinstance(self.connector, AsyncConnector)
        sibling = self.connector.sibling(
            max_connections=max_connections, connect_timeout=connect_timeout
        )
        return Gateway(sibling)

    def run(
        self,
        flow: Flow[T],
        *,
        connection: Any = None,
        transaction: bool = False,
        patience: float | None = None,
    ) -> T:
        """Run a flow synchronously: on the caller's connection where one is given.

        ``patience`` is how many seconds to wait for a connection of the app's pool (None: its own).
        """
        if connection is not None and not self._keeps_jobs_of(connection):
            executor = binders.bound(self._binder(connection), connection)
            return self._run_for_caller(flow, executor, transaction)
        connector = self.sync_connector()
        try:
            if (block := time_limits.current()) is not None:
                return self._run_within(block, connector, flow, transaction)
            if runs_on_a_loop(connector):
                # All of it there: to go there for each step took twice the client's time.
                return connector.call(
                    lambda behind: self._run_on(behind, flow, transaction, patience)
                )
            with connector.session(transaction=transaction, timeout=patience) as session:
                value = drive.run(flow, session, self.statements)
                if self._looks_for_place and not transaction:
                    self._look(session)
                return value
        except SchemaError as exc:
            if exc.sqlstate is None:
                raise
            raise self._explained(exc, connector) from exc.__cause__

    async def run_async(
        self,
        flow: Flow[T],
        *,
        connection: Any = None,
        transaction: bool = False,
        limit: Limit | None = None,
    ) -> T:
        """Run a flow asynchronously: on the caller's connection if one is given.

        With a ``limit``, which is for the calls of a worker, it raises `ConnectionLost` if no
        answer came in time, and TimeoutError if there was no connection to be had.
        """
        if connection is not None and not self._keeps_jobs_of(connection):
            return await self._run_for_caller_async(flow, connection, transaction)
        connector = self._async
        if connector is None:
            return await self._counterpart_or_self().call_async(
                lambda: self.run(flow, transaction=transaction)
            )
        if not self._open_async:
            raise AppNotOpen(_not_open(self._open, "open_async"))
        if limit is not None:
            return await self._run_limited(connector, flow, transaction, limit)
        try:
            if (block := time_limits.current()) is not None:
                return await self._run_within_async(block, connector, flow, transaction)
            return await self._run_on(connector, flow, transaction, None)
        except SchemaError as exc:
            if exc.sqlstate is None:
                raise
            raise await self._explained_async(exc, connector) from exc.__cause__

    async def _run_on(
        self, connector: AsyncConnector, flow: Flow[T], transaction: bool, patience: float | None
    ) -> T:
        async with connector.session_async(transaction=transaction, timeout=patience) as session:
            value = await drive.run_async(flow, session, self.statements)
            if self._looks_for_place and not transaction:
                await self._look_async(session)
            return value

    # Within a time limit of the caller's

    def _run_within(
        self, block: TimeLimit, connector: SyncConnector, flow: Flow[T], transaction: bool
    ) -> T:
        if runs_on_a_loop(connector):
            return connector.call(
                lambda behind: self._run_within_async(block, behind, flow, transaction)
            )
        with (
            block.severing() as severing,
            connector.session(transaction=transaction, timeout=block.left()) as session,
        ):
            severing.connected(session)
            return drive.run(flow, session, self.statements.under(block.settings))

    async def _run_within_async(
        self, block: TimeLimit, connector: AsyncConnector, flow: Flow[T], transaction: bool
    ) -> T:
        limit = block.of_a_call()
        try:
            return await self._run_limited(connector, flow, transaction, limit)
        except (TimeoutError, drive.NoAnswer) as exc:
            raise block.over() from exc

    # On a caller's connection

    def _keeps_jobs_of(self, connection: Any) -> bool:
        """Whether the jobs of a foreign connection stay in a connector that runs no SQL."""
        return not self.connector.runs_sql and self.connector.own_binder(connection) is None

    def _binder(self, connection: Any) -> Binder:
        return self.connector.own_binder(connection) or binders.binder_of(connection)

    def _run_for_caller(self, flow: Flow[T], executor: Executor, several: bool) -> T:
        def run(request: Request) -> Rows:
            if isinstance(request, LookAgain):
                return [(self._place_anew(),)]
            return executor.execute(self.statements(request))

        return drive.run_steps(for_caller(flow, self._place, several=several), run)

    async def _run_for_caller_async(self, flow: Flow[T], connection: Any, several: bool) -> T:
        binder = self._binder(connection)
        if binder.bind_async is None:
            call_async = binder.call_async or in_thread
            executor = binders.bound(binder, connection)
            value: T = await call_async(lambda: self._run_for_caller(flow, executor, several))
            return value
        bound = binders.bound_async(binder, connection)

        async def run(request: Request) -> Rows:
            if isinstance(request, LookAgain):
                return [(await self._place_anew_async(),)]
            return await bound.execute(self.statements(request))

        return await drive.run_steps_async(for_caller(flow, self._place, several=several), run)

    # Which tables the app's own connector leads to. To know it is worth no error.

    def _look(self, session: Executor) -> None:
        self._looks_for_place = False
        with contextlib.suppress(ConnectorException):
            self._place = drive.run(get_place(), session, self.statements)

    async def _look_async(self, session: AsyncExecutor) -> None:
        self._looks_for_place = False
        with contextlib.suppress(ConnectorException):
            self._place = await drive.run_async(get_place(), session, self.statements)

    def _forget_place(self) -> None:
        self._place = None
        self._looks_for_place = self.connector.runs_sql

    def _place_anew(self) -> Place | None:
        """Read again which tables are the app's own; None if that cannot be said soon."""
        self._forget_place()
        with (
            contextlib.suppress(ConnectorException, AppNotOpen),
            self.sync_connector().session(timeout=LOOK_AGAIN) as session,
        ):
            self._look(session)
        return self._place

    async def _place_anew_async(self) -> Place | None:
        if not isinstance(self.connector, AsyncConnector):
            return await in_thread(self._place_anew)
        self._forget_place()
        with contextlib.suppress(ConnectorException, AppNotOpen):
            async with self.connector.session_async(timeout=LOOK_AGAIN) as session:
                await self._look_async(session)
        return self._place

    def partitions(self, connection: Any = None) -> Partitions:
        """Return the partitions of the database, which is asked if that is long ago.

        From then on, `statements` are those for such a database.
        """
        if time.monotonic() >= self._settings_until:
            self.learn(self.run(read_settings(), connection=connection))
        return self.statements.partitions

    async def partitions_async(
        self, connection: Any = None, *, limit: Limit | None = None, anew: bool = False
    ) -> Partitions:
        """Return the partitions of the database, or ask for them ``anew``; see `partitions`."""
        if anew or time.monotonic() >= self._settings_until:
            flow = read_settings()
            self.learn(await self.run_async(flow, connection=connection, limit=limit))
        return self.statements.partitions

    def run_by_hand(
        self,
        make: Callable[[Partitions], Flow[T]],
        *,
        connection: Any = None,
        transaction: bool = False,
        patience: float | None = None,
    ) -> T:
        """Run a flow that finds jobs, in whatever partitions they are."""
        flow = make(self.partitions(connection))
        return self.run(flow, connection=connection, transaction=transaction, patience=patience)

    async def run_by_hand_async(
        self,
        make: Callable[[Partitions], Flow[T]],
        *,
        connection: Any = None,
        transaction: bool = False,
        limit: Limit | None = None,
    ) -> T:
        """Run a flow that finds jobs; see `run_by_hand`."""
        flow = make(await self.partitions_async(connection, limit=limit))
        return await self.run_async(
            flow, connection=connection, transaction=transaction, limit=limit
        )

    def learn(self, partitions: Partitions) -> None:
        """Note what the database has said of its partitions."""
        if partitions != self.statements.partitions:
            self.statements = Statements(self.connector.schema, partitions)
        self._settings_until = time.monotonic() + SETTINGS_LAST

    def _explained(self, exc: SchemaError, connector: SyncConnector) -> SchemaError:
        """Say what is wrong with the schema, of which the server only missed a name."""
        from procrastinate.storage.schema import explanation  # not at the top: it needs pathlib

        try:
            with connector.session() as executor:
                return drive.run(explanation(exc), executor, self.statements)
        except ConnectorException:
            return exc

    async def _explained_async(self, exc: SchemaError, connector: AsyncConnector) -> SchemaError:
        from procrastinate.storage.schema import explanation

        try:
            async with connector.session_async() as session:
                return await drive.run_async(explanation(exc), session, self.statements)
        except ConnectorException:
            return exc

    @contextmanager
    def held(self, flow: Flow[T]) -> Iterator[T]:
        """Run a flow in a transaction that lasts for the block."""
        with self.sync_connector().session(transaction=True) as session:
            yield drive.run(flow, session, self.statements)

    @asynccontextmanager
    async def held_async(self, flow: Flow[T]) -> AsyncIterator[T]:
        """Run a flow in a transaction that lasts for the block, on an asynchronous connector."""
        connector = self.connector
        assert isinstance(connector, AsyncConnector)
        if not self._open_async:
            raise AppNotOpen(_not_open(self._open, "open_async"))
        async with connector.session_async(transaction=True) as session:
            yield await drive.run_async(flow, session, self.statements)

    async def _run_limited(
        self, connector: AsyncConnector, flow: Flow[T], transaction: bool, limit: Limit
    ) -> T:
        """Run a flow, and shut its connection down if no answer comes in time.

        Not by cancelling the task: a call to the database ends before a cancellation is delivered.
        """
        from procrastinate.deadline import Deadline  # not at the top: it needs asyncio

        deadline = Deadline(limit.client)
        try:
            async with connector.session_async(transaction=transaction) as executor:
                deadline.connected(executor, anew=not limit.connects)
                prepare = self.statements.under(limit.settings)
                return await drive.run_async(flow, executor, prepare)
        except ConnectionLost as exc:
            if deadline.severed:
                raise drive.no_answer(limit, exc) from exc
            raise
        except BaseException as exc:
            if deadline.is_cause_of(exc):
                raise TimeoutError from exc
            raise
        finally:
            deadline.over()

    def sync_connector(self) -> SyncConnector:
        """Return the open synchronous connector. Raises `AppNotOpen`."""
        if not (self._open or self._open_async):
            raise AppNotOpen(_not_open(False, "open"))
        if self._sync is not None:
            return self._sync
        if not self._counterpart_opened:
            self._open_counterpart(None)
        return self._counterpart_or_self()

    def async_connector(self) -> AsyncConnector:
        """Return the connector for a worker. Raises `SyncConnectorConfigurationError`."""
        if isinstance(self.connector, AsyncConnector):
            return self.connector
        raise SyncConnectorConfigurationError(
            f"{type(self.connector).__name__} is synchronous, and a worker needs an asynchronous"
            f" connector: give the worker's app one of these: {connectors.for_workers()}"
        )

    def _counterpart_or_self(self) -> SyncConnector:
        if isinstance(self.connector, SyncConnector):
            return self.connector
        if not isinstance(self.connector, AsyncConnector):
            raise ConfigurationError(
                f"{type(self.connector).__name__} is neither a SyncConnector nor an AsyncConnector"
            )
        with self._counterpart_lock:
            if self._counterpart is None:
                self._counterpart = self.connector.sync_connector()
            return self._counterpart

    def _open_counterpart(self, pool: Any) -> None:
        self._counterpart_or_self().open(pool)
        self._counterpart_opened = True

    def _close_counterpart(self) -> None:
        counterpart, self._counterpart = self._counterpart, None
        self._counterpart_opened = False
        if counterpart is not None:
            counterpart.close()


def runs_on_a_loop(connector: SyncConnector) -> TypeGuard[LoopThreadConnector]:
    """Return whether an event loop in a thread serves a connector's calls."""
    return connector.runs_on_a_loop


def _not_open(other_half: bool, method: str) -> str:
    if other_half:
        return (
            "the app was opened for synchronous use only: open it with"
            " `async with app.open_async():` for asynchronous calls"
        )
    return (
        f"the app is not open: call app.{method}() first, or use `with app.open():`"
        " or `async with app.open_async():`"
    )
