"""Hearing the database: LISTEN for ever, through every loss of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.errors import ConnectorException
from procrastinate.worker.backoff import Backoff
from procrastinate.worker.log import logger

JOBS = "procrastinate_jobs"  # a job is ready; the payload is its queue
SCHEDULE = "procrastinate_schedule"  # a job is due within a minute; the payload is its queue
ABORTS = "procrastinate_aborts"  # a running job is to be aborted; the payload is its id


async def listen(
    connector: ListeningConnector,
    *,
    on_notification: Callable[[Notification], None],
    on_listening: Callable[[], None],
    on_failed: Callable[[Exception], None],
) -> None:
    """Pass on every notification until cancelled.

    ``on_listening`` is called each time LISTEN is in force. Notifications sent before it were
    missed, so a look at the tables has to follow. ``on_failed`` is called each time LISTEN fails.
    """
    backoff = Backoff()
    while True:
        try:
            async with connector.listen([JOBS, SCHEDULE, ABORTS]) as notifications:
                backoff.reset()
                on_listening()
                async for notification in notifications:
                    on_notification(notification)
        except ConnectorException as exc:
            on_failed(exc)
            if not backoff.failing:
                logger.warning("not listening to the database until it is back: %s", exc)
        await asyncio.sleep(backoff.next_wait())
