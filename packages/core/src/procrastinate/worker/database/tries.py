"""Making a call once more if that may help: for calls that no later round makes up for.

A connection that breaks under a statement, or a statement that is cancelled, says nothing about
whether the database can be worked with. The next try has another connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from procrastinate.errors import ConnectionLost, ConnectorException, QueryCanceled
from procrastinate.worker.database.backoff import Backoff

T = TypeVar("T")


def _say_nothing(_: ConnectorException) -> None:
    pass


async def with_tries(
    call: Callable[[], Awaitable[T]],
    tries: int = 2,
    on_failure: Callable[[ConnectorException], None] = _say_nothing,
) -> T:
    """Make a call up to ``tries`` times, until one neither loses its connection nor is cancelled.

    Raises what the last one raised. ``call`` makes a new flow each time, and has to bear that the
    database executed the one before without its answer being heard. The time limit is the caller's.
    """
    backoff = Backoff()
    for _ in range(tries - 1):
        try:
            return await call()
        except (ConnectionLost, QueryCanceled) as exc:
            on_failure(exc)
            await asyncio.sleep(backoff.next_wait())
    return await call()
