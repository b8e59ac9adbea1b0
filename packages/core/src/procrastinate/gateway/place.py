"""Which tables the app's own connector leads to: a caller's connection must lead to the same.

If that cannot be found out, no call fails for it.
"""

from __future__ import annotations

import contextlib

from procrastinate import drive
from procrastinate.connector import AsyncConnector, AsyncExecutor, Executor
from procrastinate.errors import AppNotOpen, ConnectorException
from procrastinate.gateway.halves import Halves
from procrastinate.storage.callers import Place, get_place
from procrastinate.threads import in_thread

LOOK_AGAIN = 2.0  # seconds to wait for a connection of the app's own, to see where it leads


class OwnPlace:
    """The place of the app's own tables, as the first session that was asked has said."""

    def __init__(self, halves: Halves) -> None:
        self._halves = halves
        self.known: Place | None = None
        #: Whether the next session is to be asked.
        self.is_looked_for = halves.connector.runs_sql

    def look(self, session: Executor) -> None:
        """Note where a session of the app's own leads."""
        self.is_looked_for = False
        with contextlib.suppress(ConnectorException):
            self._note(drive.run(get_place(), session, self._halves.statements))

    async def look_async(self, session: AsyncExecutor) -> None:
        """Note where a session of the app's own leads."""
        self.is_looked_for = False
        with contextlib.suppress(ConnectorException):
            self._note(await drive.run_async(get_place(), session, self._halves.statements))

    def _note(self, place: Place | None) -> None:
        """Note it, unless there are no tables yet: then the next session is asked again."""
        if place is not None and not place.table:
            self.is_looked_for = True
        else:
            self.known = place

    def closed(self) -> None:
        """Ask the next session again: the app may be opened on another database.

        Until then, what was seen is still compared: a difference is looked at again.
        """
        self.is_looked_for = self._halves.connector.runs_sql

    def forget(self) -> None:
        """Forget what was seen."""
        self.known = None
        self.closed()

    def anew(self) -> Place | None:
        """Read again which tables are the app's own; None if that cannot be said soon."""
        self.forget()
        with (
            contextlib.suppress(ConnectorException, AppNotOpen),
            self._halves.sync_connector().session(timeout=LOOK_AGAIN) as session,
        ):
            self.look(session)
        return self.known

    async def anew_async(self) -> Place | None:
        """Read again which tables are the app's own; see `anew`."""
        if not isinstance(self._halves.connector, AsyncConnector):
            return await in_thread(self.anew)
        self.forget()
        with contextlib.suppress(ConnectorException, AppNotOpen):
            async with self._halves.connector.session_async(timeout=LOOK_AGAIN) as session:
                await self.look_async(session)
        return self.known
