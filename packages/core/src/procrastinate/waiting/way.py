"""What waiting needs of an app's gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from procrastinate.connector import Connector
from procrastinate.drive import Flow, Limit
from procrastinate.errors import (
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    PoolTimeout,
    QueryCanceled,
)
from procrastinate.model.partitions import Partitions
from procrastinate.storage.statements import Statements

T = TypeVar("T")

#: Of a call. A node that is silent keeps the waits for jobs of other nodes for as long, once.
CALL = Limit(server=3.0, client=4.0)

#: Classes of SQLSTATEs: a lack of resources, the server's state, an operator's interference, a
#: failed commit or deadlock. All of these go away by themselves.
_PASSING = ("53", "55P03", "57", "58", "40")


class Way(Protocol):
    """A gateway, as `procrastinate.gateway.Gateway` is one."""

    connector: Connector
    statements: Statements

    def check_open(self, *, for_async: bool) -> None:
        """Raise `AppNotOpen` if the app is not open for such calls."""

    def beside(self, *, max_connections: int, connect_timeout: float) -> Way:
        """Return another one to the same database, not open yet, for another event loop."""

    def run_by_hand(
        self, make: Callable[[Partitions], Flow[T]], *, patience: float | None = None
    ) -> T:
        """Run a flow that finds jobs."""

    async def run_by_hand_async(
        self,
        make: Callable[[Partitions], Flow[T]],
        *,
        limit: Limit | None = None,
    ) -> T:
        """Run a flow that finds jobs."""

    async def run_async(self, flow: Flow[T], *, limit: Limit | None = None) -> T:
        """Run a flow."""

    def learn(self, partitions: Partitions) -> None:
        """Note what the database has said of its partitions."""

    async def open_async(self, pool: Any = None) -> None:
        """Open it."""

    async def close_async(self) -> None:
        """Close it."""


def passes(exc: BaseException) -> bool:
    """Return whether an error says that the database is away, or too busy: it is waited for."""
    if isinstance(exc, ConnectionFailed | ConnectionLost | PoolTimeout | QueryCanceled):
        return True
    if isinstance(exc, ConnectorException):
        return exc.sqlstate is not None and exc.sqlstate.startswith(_PASSING)
    return isinstance(exc, TimeoutError)
