"""Hearing the database: LISTEN through every loss of the connection.

Rules

1. Anybody who may connect can send any payload on any channel. So a payload is short and of the
   right kind, or it is nothing; and what it says is only a reason to look at the tables.
2. A connection can be lost without a sign of it, because a listener sends nothing. So this worker
   notifies itself, on a channel of its own and by another connection: once in `PROBE_EVERY`
   seconds, at the beginning, and when another connection was lost. If that is not heard, it
   connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.errors import ConnectorException
from procrastinate.model.checks import NAME_LENGTH
from procrastinate.storage.queues import CHANNEL
from procrastinate.storage.workers import notify_listener
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.log import logger

JOBS = "procrastinate_jobs"  # a job is ready; the payload is its queue ...
SCHEDULE = "procrastinate_schedule"  # ... as of a job that is due within a minute
#: Characters of such a payload. With several partitions it says the job's, after an ``@``.
NEWS_LENGTH = NAME_LENGTH + len("@351")
PAUSES = CHANNEL  # a queue was paused or resumed; the payload is its name
ABORTS = "procrastinate_aborts"  # a running job is to be aborted; the payload is its id
PROBE = "procrastinate_probe_{worker_id}"  # to this worker's listener, from itself
PROBE_EVERY = 60.0  # seconds
PROBE_AGAIN_AFTER = 1.0  # seconds, if it could not be sent
PROBE_MAY_TAKE = 10.0  # seconds from the notification to its being heard
LISTEN_MAY_TAKE = 15.0  # seconds to connect, and for LISTEN to be in force
LARGEST_ID = 2**63 - 1


class Listener:
    """Passes on what is heard for one worker.

    ``on_listening`` is called each time LISTEN is in force. Notifications sent before it were
    missed, so a look at the tables has to follow. ``on_failed`` is called each time LISTEN fails.
    """

    def __init__(
        self,
        connector: ListeningConnector,
        calls: Calls,
        worker_id: int,
        *,
        on_queue: Callable[[str], None],
        on_schedule: Callable[[str], None],
        on_abort: Callable[[int], None],
        on_pause: Callable[[], None],
        on_listening: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._connector = connector
        self._calls = calls
        self._probe = PROBE.format(worker_id=worker_id)
        self._channels = [JOBS, SCHEDULE, ABORTS, PAUSES, self._probe]
        self._probe_heard = asyncio.Event()
        self._doubt = asyncio.Event()  # set if there is a reason to probe now
        self._on_queue = on_queue
        self._on_schedule = on_schedule
        self._on_abort = on_abort
        self._on_pause = on_pause
        self._on_listening = on_listening
        self._on_failed = on_failed
        self._backoff = Backoff()

    def doubt(self) -> None:
        """Probe now, because another connection of this worker was lost."""
        self._doubt.set()

    async def run(self) -> None:
        """Listen until cancelled. Raises if the connector is set up so that it cannot listen."""
        while True:
            try:
                await self._listen()
            except (ConnectorException, TimeoutError) as exc:
                self._on_failed(exc)
                if not self._backoff.failing:
                    reason = str(exc) or "the connection is silent"
                    logger.warning("not listening to the database until it is back: %s", reason)
            await asyncio.sleep(self._backoff.next_wait())

    async def _listen(self) -> None:
        async with asyncio.timeout(LISTEN_MAY_TAKE) as patience:
            async with self._connector.listen(self._channels) as heard:
                patience.reschedule(None)
                self._on_listening()
                self._doubt.set()  # some poolers accept LISTEN and pass nothing on
                probing = asyncio.create_task(self._keep_probing())
                probing.add_done_callback(functools.partial(_give_up, patience))
                try:
                    async for notification in heard:
                        self._hear(notification)
                finally:
                    probing.cancel()

    async def _keep_probing(self) -> None:
        """Return once this worker does not hear itself any more."""
        heard = True
        while heard:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_EVERY):
                    await self._doubt.wait()
            self._doubt.clear()
            self._probe_heard.clear()
            try:
                await self._calls.run_async(notify_listener(self._probe))
                async with asyncio.timeout(PROBE_MAY_TAKE):
                    heard = await self._probe_heard.wait()
            except ConnectorException:
                await asyncio.sleep(PROBE_AGAIN_AFTER)  # nothing was sent
                self._doubt.set()
            except TimeoutError:
                heard = False

    def _hear(self, notification: Notification) -> None:
        self._backoff.reset()  # not before: a connection on which nothing is heard is a failure
        channel, payload = notification.channel, notification.payload
        if channel == self._probe:
            self._probe_heard.set()
        elif channel == ABORTS:
            job_id = job_id_in(payload)
            if job_id is not None:
                self._on_abort(job_id)
        elif channel == PAUSES:
            self._on_pause()
        elif len(payload) <= NEWS_LENGTH:
            if channel == SCHEDULE:
                self._on_schedule(payload)
            elif channel == JOBS:
                self._on_queue(payload)


def _give_up(listening: asyncio.Timeout, probing: asyncio.Task[None]) -> None:
    """End the block in which LISTEN is in force, because probing has ended by itself."""
    if not probing.cancelled():
        if (died_of := probing.exception()) is not None:
            logger.error("the listener's connection cannot be probed", exc_info=died_of)
        listening.reschedule(0.0)


def job_id_in(payload: str) -> int | None:
    """Return the job's id that a payload is, or None if it is anything else."""
    if len(payload) > len(str(LARGEST_ID)) or not (payload.isascii() and payload.isdecimal()):
        return None
    job_id = int(payload)
    return job_id if job_id <= LARGEST_ID else None
