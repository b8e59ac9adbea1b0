"""Running flows: on the connector, within time limits, or on a caller's connection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from procrastinate import drive, time_limits
from procrastinate.connector import AsyncConnector, Connector, SyncConnector
from procrastinate.drive import Flow, Limit
from procrastinate.errors import (
    AppNotOpen,
    ConnectionLost,
    ConnectorException,
    InvalidOption,
    SchemaError,
)
from procrastinate.gateway.callers import Callers
from procrastinate.gateway.halves import Halves, not_open, runs_on_a_loop
from procrastinate.gateway.place import OwnPlace
from procrastinate.model.partitions import Partitions
from procrastinate.observing.observers import NOBODY, Observers
from procrastinate.storage.settings import read_settings
from procrastinate.storage.statements import Statements
from procrastinate.threads import in_thread
from procrastinate.time_limits import TimeLimit

if TYPE_CHECKING:
    from procrastinate.waiting.room import WaitingRoom

T = TypeVar("T")

SETTINGS_LAST = 10.0  # seconds


class Gateway(Halves):
    """Runs storage flows through a connector."""

    def __init__(
        self, connector: Connector, observers: Observers = NOBODY, *, app: Any = None
    ) -> None:
        super().__init__(connector)
        self.observers = observers  # of what goes through it
        #: Whose tasks a connector without a database runs, because no worker would.
        self.app = None if connector.runs_sql else app
        self._settings_until = 0.0  # on the monotonic clock
        self._place = OwnPlace(self)
        self._callers = Callers(self, self._place)
        self._waiting_room: WaitingRoom | None = None

    def close(self) -> None:
        """Close the half for plain calls, and the waiting room if it cannot be used any more."""
        self._open = self.connector.always_open
        if (room := self._room_to_close()) is not None:
            room.close()
        super().close()
        self._place.closed()

    async def close_async(self) -> None:
        """Close the half for asynchronous calls; see `close`."""
        if isinstance(self.connector, AsyncConnector):
            self._open_async = self.connector.always_open
            if (room := self._room_to_close()) is not None:
                await in_thread(room.close, own=True)  # jobs may have taken all others
        await super().close_async()
        self._place.closed()

    def _room_to_close(self) -> WaitingRoom | None:
        """Return the waiting room, if it has a thread and the app is not open any more."""
        room = self._waiting_room
        return room if room is not None and room.is_used and not self._is_open else None

    @property
    def waiting_room(self) -> WaitingRoom:
        """Where to wait for the ends of jobs."""
        room = self._waiting_room
        if room is None:
            from procrastinate.waiting.room import WaitingRoom  # not at the top: it needs asyncio

            with self._lock:
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

    @contextmanager
    def apart(self) -> Iterator[Gateway]:
        """A block with a gateway that is part of no transaction of the application's.

        Raises `InvalidOption` if there is such a transaction, and the connector has no way beside.
        """
        if not self.is_in_transaction(None):
            yield self
            return
        gateway = self._apart()
        gateway.open()
        try:
            yield gateway
        finally:
            gateway.close()

    @asynccontextmanager
    async def apart_async(self) -> AsyncIterator[Gateway]:
        """A block with a gateway that is part of no transaction; see `apart`."""
        if not await self.is_in_transaction_async(None):
            yield self
            return
        gateway = self._apart()
        await gateway.open_async()
        try:
            yield gateway
        finally:
            await gateway.close_async()

    def _apart(self) -> Gateway:
        connector = None if self._sync is None else self._sync.apart()
        if connector is None:
            raise InvalidOption(
                "a job cannot be waited for inside of a transaction on this connection: commit"
                " first"
            )
        return Gateway(connector)

    def run(
        self,
        flow: Flow[T],
        *,
        connection: Any = None,
        transaction: bool = False,
        patience: float | None = None,
    ) -> T:
        """Run a flow synchronously: on the caller's connection if one is given.

        ``patience`` is how many seconds to wait for a connection of the app's pool (None: its own).
        """
        if connection is not None and not self._callers.keeps_jobs_of(connection):
            return self._callers.run(flow, connection, several=transaction)
        connector = self._sync
        if connector is None or not (self._open or self._open_async):
            connector = self.sync_connector()
        try:
            if (block := time_limits.current()) is not None:
                return self._run_within(block, connector, flow, transaction)
            if runs_on_a_loop(connector):
                # The whole flow runs there: a switch for each step took twice the client's time.
                return connector.call(
                    lambda behind: self._run_on(behind, flow, transaction, patience)
                )
            with connector.session(transaction=transaction, timeout=patience) as session:
                value = drive.run(flow, session, self.statements)
                if self._place.is_looked_for and not transaction:
                    self._place.look(session)
                return value
        except SchemaError as exc:
            if exc.sqlstate is None:
                raise self.connector.worded(exc) from exc.__cause__
            raise self.connector.worded(self._explained(exc, connector)) from exc.__cause__

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
        if connection is not None and not self._callers.keeps_jobs_of(connection):
            return await self._callers.run_async(flow, connection, several=transaction)
        connector = self._async
        if connector is None:
            return await self._counterpart_or_self().call_async(
                lambda: self.run(flow, transaction=transaction)
            )
        if not self._open_async:
            raise AppNotOpen(not_open(self._open, "open_async"))
        if limit is not None:
            try:
                return await self._run_limited(connector, flow, transaction, limit)
            except SchemaError as exc:  # told as it is: to ask for more would have no limit
                raise self.connector.worded(exc) from exc.__cause__
        try:
            if (block := time_limits.current()) is not None:
                return await self._run_within_async(block, connector, flow, transaction)
            return await self._run_on(connector, flow, transaction, None)
        except SchemaError as exc:
            if exc.sqlstate is None:
                raise self.connector.worded(exc) from exc.__cause__
            explained = await self._explained_async(exc, connector)
            raise self.connector.worded(explained) from exc.__cause__

    async def _run_on(
        self, connector: AsyncConnector, flow: Flow[T], transaction: bool, patience: float | None
    ) -> T:
        async with connector.session_async(transaction=transaction, timeout=patience) as session:
            value = await drive.run_async(flow, session, self.statements)
            if self._place.is_looked_for and not transaction:
                await self._place.look_async(session)
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
            self.statements = Statements(
                self.connector.schema, partitions, chooses_plans=self.connector.chooses_plans
            )
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
            raise AppNotOpen(not_open(self._open, "open_async"))
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
