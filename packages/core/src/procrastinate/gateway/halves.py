"""The two halves of an app's connector: for plain calls, and for asynchronous ones."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeGuard

from procrastinate import connectors
from procrastinate.connector import AsyncConnector, Connector, SyncConnector
from procrastinate.errors import AppNotOpen, ConfigurationError, SyncConnectorConfigurationError
from procrastinate.storage.statements import Statements

if TYPE_CHECKING:
    from procrastinate.loop_thread import LoopThreadConnector


class Halves:
    """A connector and its counterpart, which of them is open, and the statements for both."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.statements = Statements(connector.schema)
        # Kept, because to ask for an abstract class takes time in each call.
        self._sync = connector if isinstance(connector, SyncConnector) else None
        self._async = connector if isinstance(connector, AsyncConnector) else None
        self._open = connector.always_open
        self._open_async = connector.always_open
        self._counterpart: SyncConnector | None = None
        self._counterpart_opened = False
        self._lock = threading.Lock()

    def open(self, pool: Any = None) -> None:
        """Open the half for plain calls."""
        if isinstance(self.connector, SyncConnector):
            self.connector.open(pool)
        else:
            self._open_counterpart(pool)
        self._open = True

    def close(self) -> None:
        """Close the half for plain calls; all of it, if the connector is a synchronous one."""
        self._open = self.connector.always_open
        if isinstance(self.connector, SyncConnector):
            self.connector.close()
            self._open_async = self.connector.always_open
        else:
            self._close_counterpart()

    async def open_async(self, pool: Any = None) -> None:
        """Open the half for asynchronous calls."""
        if isinstance(self.connector, AsyncConnector):
            await self.connector.open_async(pool)
        else:
            await self._counterpart_or_self().call_async(lambda: self.open(pool))
        self._open_async = True

    async def close_async(self) -> None:
        """Close the half for asynchronous calls, and a counterpart that was not opened itself."""
        if isinstance(self.connector, AsyncConnector):
            self._open_async = self.connector.always_open
            await self.connector.close_async()
            counterpart = self._counterpart
            if counterpart is not None and not self._open:
                await counterpart.call_async(self._close_counterpart)
        else:
            await self._counterpart_or_self().call_async(self.close)
        self._open_async = self.connector.always_open

    @property
    def _is_open(self) -> bool:
        """Whether it is open for calls of either kind."""
        return self._open or self._open_async

    def check_open(self, *, for_async: bool) -> None:
        """Raise `AppNotOpen` if the app is not open for plain, or for asynchronous, calls."""
        if for_async and isinstance(self.connector, AsyncConnector):
            if not self._open_async:
                raise AppNotOpen(not_open(self._open, "open_async"))
        elif not self._is_open:
            raise AppNotOpen(not_open(False, "open"))

    def sync_connector(self) -> SyncConnector:
        """Return the open synchronous connector. Raises `AppNotOpen`."""
        if not (self._open or self._open_async):
            raise AppNotOpen(not_open(False, "open"))
        if self._sync is not None:
            return self._sync
        if not self._counterpart_opened:
            self._open_counterpart(None)
        return self._counterpart_or_self()

    def is_in_transaction(self, connection: Any) -> bool:
        """Whether a call with this ``connection=`` is part of a transaction of the caller's."""
        return connection is not None or (self._sync is not None and self._sync.is_in_transaction())

    async def is_in_transaction_async(self, connection: Any) -> bool:
        """Whether it is, asked in the thread where the connector's calls run."""
        if connection is not None or self._sync is None or not self.connector.runs_sql:
            return connection is not None
        return await self._sync.call_async(self._sync.is_in_transaction)

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
        with self._lock:
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


def not_open(other_half: bool, method: str) -> str:
    """Return what to do about a half that is not open: ``other_half`` says whether the other is."""
    if other_half:
        return (
            "the app was opened for synchronous use only: open it with"
            " `async with app.open_async():` for asynchronous calls"
        )
    return (
        f"the app is not open: call app.{method}() first, or use `with app.open():`"
        " or `async with app.open_async():`"
    )
