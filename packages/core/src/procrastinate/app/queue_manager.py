"""Listing queues, pausing and resuming them.

Each method is a pair: ``x`` for synchronous code, ``x_async`` for coroutines.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from procrastinate.app.listing_queues import ListingQueues
from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.queues import Pause
from procrastinate.storage import queues as flows

BY_LENGTH = 200  # characters
REASON_LENGTH = 2_000  # characters


class QueueManager(ListingQueues):
    """The queues of one app's database.

    ``connection=`` runs the operation inside the caller's transaction. Every method raises
    `InvalidOption` for a value that cannot be, `AppNotOpen`, and `ConnectorException` where the
    database fails.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def pause(
        self,
        queue: str,
        *,
        reason: str | None = None,
        until: datetime | None = None,
        by: str | None = None,
        connection: CallerConnection | None = None,
    ) -> Pause:
        """Let no worker start a job of a queue, until the queue is resumed; return the pause.

        Workers that hear notifications start none from 1 second after this has returned (with
        ``connection=``: after the commit), others from their next poll on. What they had claimed
        goes back to its place, and its attempt does not count. Jobs that run, run on. Jobs are
        deferred to a paused queue as to any other; it need not have any yet. Its jobs do not hold
        up the line before a lock. A schedule adds at most one waiting job to it.

        ``until`` (aware) is when the pause ends by itself; it must lie in the future. ``by`` (up to
        200 characters) and ``reason`` (up to 2,000) are shown to people. Pausing again replaces all
        three.

        ``pause("*")`` pauses every queue except ``builtin``, where procrastinate's own tasks are;
        it ends with ``resume("*")``. A queue that is paused by its name as well stays paused then.

        Raises `InvalidOption`, and `InvalidTimestamp` for a time without a time zone.
        """
        flow = _pause(queue, reason, until, by)
        return self._gateway.run(flow, connection=connection, transaction=True)

    async def pause_async(
        self,
        queue: str,
        *,
        reason: str | None = None,
        until: datetime | None = None,
        by: str | None = None,
        connection: CallerConnection | None = None,
    ) -> Pause:
        """Let no worker start a job of a queue; see `pause`."""
        flow = _pause(queue, reason, until, by)
        return await self._gateway.run_async(flow, connection=connection, transaction=True)

    def resume(self, queue: str, *, connection: CallerConnection | None = None) -> bool:
        """End the pause of a queue; return False if it was not paused by this name.

        A queue stays paused that `pause` was told of as ``"*"`` too, or instead.
        """
        flow = flows.resume_queue(checks.check_name("queue", queue))
        return self._gateway.run(flow, connection=connection, transaction=True)

    async def resume_async(self, queue: str, *, connection: CallerConnection | None = None) -> bool:
        """End the pause of a queue; see `resume`."""
        flow = flows.resume_queue(checks.check_name("queue", queue))
        return await self._gateway.run_async(flow, connection=connection, transaction=True)

    def list_pauses(self, *, connection: CallerConnection | None = None) -> list[Pause]:
        """Return the pauses that are in force, in order of the queues' names."""
        return self._gateway.run(flows.list_pauses(), connection=connection)

    async def list_pauses_async(self, *, connection: CallerConnection | None = None) -> list[Pause]:
        """Return the pauses that are in force; see `list_pauses`."""
        return await self._gateway.run_async(flows.list_pauses(), connection=connection)


def _pause(queue: Any, reason: Any, until: Any, by: Any) -> Flow[Pause]:
    return flows.pause_queue(
        checks.check_name("queue", queue),
        reason=_text("reason", reason, REASON_LENGTH),
        until=None if until is None else checks.check_aware("until", until),
        by=_text("by", by, BY_LENGTH),
    )


def _text(option: str, value: Any, limit: int) -> str | None:
    return None if value is None else checks.check_text(option, value, limit)
