"""A connection that nothing else uses, for a companion; each call on it has a limit.

It stands on a synchronous connector. For a connector without a synchronous half there can be
another class with the same methods, which runs an event loop in the companion's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from procrastinate import drive
from procrastinate.connector import Query, SessionExecutor, SyncConnector
from procrastinate.drive import Flow, Limit, Prepare, Request
from procrastinate.errors import ConnectionLost
from procrastinate.model.partitions import Partitions
from procrastinate.storage.statements import Statements
from procrastinate.watchdog import Watchdog

CALL = Limit(server=10.0, client=15.0)


class Line:
    """A companion's way to the database. ``make`` returns an unopened connector."""

    def __init__(
        self, make: Callable[[], SyncConnector], statements: Statements, watchdog: Watchdog
    ) -> None:
        self._make = make
        self._statements = statements
        self._watchdog = watchdog
        self._connector: SyncConnector | None = None
        self._is_cut = False

    @property
    def partitions(self) -> Partitions:
        """The partitions of the database."""
        return self._statements.partitions

    def run(
        self, flow: Flow[drive.T], *, transaction: bool = False, limit: Limit | None = None
    ) -> drive.T:
        """Run a flow to its end and return its value. Raises `ConnectorException`."""
        limit = limit or CALL
        executor: SessionExecutor | None = None
        bitten = False

        def bite() -> None:
            nonlocal bitten
            if executor is not None:  # else it connects, for which the connector has a limit
                bitten = True
                executor.sever()

        connector = self._opened()
        try:
            with (
                self._watchdog.watching(limit.client, bite),
                connector.session(transaction=transaction) as executor,
            ):
                prepare = self._statements.under(limit.settings)
                return drive.run(flow, executor, self._unless_cut(prepare))
        except ConnectionLost as exc:
            if bitten:
                raise drive.no_answer(limit, exc) from exc
            raise

    def cut(self) -> None:
        """Let no statement be sent from now on; from any thread."""
        self._is_cut = True

    def _unless_cut(self, prepare: Prepare) -> Prepare:
        def prepared(request: Request) -> Query:
            if self._is_cut:
                raise ConnectionLost("nothing more is sent, because the worker has left")
            return prepare(request)

        return prepared

    def _opened(self) -> SyncConnector:
        if self._connector is None:
            self._connector = self._make()
        self._connector.open()  # twice is harmless; the first may have failed
        return self._connector

    def close(self) -> None:
        """Leave the database; the next call has a new connection."""
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.close()
