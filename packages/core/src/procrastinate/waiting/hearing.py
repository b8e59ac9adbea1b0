"""Hearing which jobs have ended: LISTEN on a channel of this process's own.

Rules

1. Anybody who may connect can send any payload on any channel. What is no list of ids is nothing,
   and what it says is only a reason to read these jobs.
2. Some poolers accept LISTEN and pass nothing on, and a connection can be lost without a sign. So
   this process notifies itself by another connection, with an empty payload: at the beginning, and
   once in `PROBE_EVERY` seconds. Until that is heard, nothing counts as heard.
3. After a loss it connects again soon. If it hears nothing time after time, as behind a pooler, it
   tries less and less often.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from procrastinate.connector import Connector, ListeningConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException, ProcrastinateException
from procrastinate.storage.workers import notify_listener

logger = logging.getLogger("procrastinate.waiting")

PROBE_EVERY = 60.0  # seconds
PROBE_MAY_TAKE = 5.0  # seconds from the notification to its being heard
LISTEN_MAY_TAKE = 15.0  # seconds to connect, and for LISTEN to be in force
AGAIN_AFTER = 1.0  # seconds, at most, from a loss to the next try
LONGEST_PAUSE = 16.0  # seconds, at most, to the next try after many that heard nothing
LONGEST_PAYLOAD = 8_000  # bytes: what the server passes on
_LARGEST_ID = 2**63 - 1
_MOST_DIGITS = len(str(_LARGEST_ID))


class Hearing:
    """Listens until it is cancelled.

    ``open`` opens the connector, and ``send`` runs a flow on another connection. ``on_ended`` is
    called with the ids of jobs that have ended, and ``on_change`` each time that it begins or
    ceases to hear.
    """

    def __init__(
        self,
        connector: Connector,
        channel: str,
        *,
        open: Callable[[], Awaitable[None]],
        send: Callable[[Flow[None]], Awaitable[None]],
        on_ended: Callable[[Iterable[int]], None],
        on_change: Callable[[bool], None],
    ) -> None:
        self._connector = connector
        self._channel = channel
        self._open = open
        self._send = send
        self._on_ended = on_ended
        self._on_change = on_change
        self._probe_heard = asyncio.Event()
        self._in_vain = 0  # tries since it heard last

    async def run(self) -> None:
        """Listen, and try again after each loss."""
        while True:
            try:
                await self._listen()
            except (ConnectorException, TimeoutError) as exc:
                logger.debug("the ends of jobs are not heard for now: %s", exc)
            except ProcrastinateException as exc:  # it is set up so that it cannot listen
                logger.warning("the ends of jobs are looked for once a second: %s", exc)
                return
            except Exception:  # a fault of a driver's
                logger.exception("the ends of jobs are looked for once a second")
                return
            finally:
                self._on_change(False)
            await asyncio.sleep(longest_pause(self._in_vain) * random.uniform(0.2, 1.0))
            self._in_vain += 1

    async def _listen(self) -> None:
        connector = self._connector
        assert isinstance(connector, ListeningConnector)
        async with asyncio.timeout(LISTEN_MAY_TAKE) as patience:
            await self._open()
            async with connector.listen([self._channel]) as heard:
                patience.reschedule(None)
                probing = asyncio.create_task(self._keep_probing())
                probing.add_done_callback(functools.partial(_give_up, patience))
                try:
                    async for notification in heard:
                        self._hear(notification.payload)
                finally:
                    probing.cancel()

    async def _keep_probing(self) -> None:
        """Return once this process does not hear itself any more."""
        while True:
            self._probe_heard.clear()
            try:
                await self._send(notify_listener(self._channel))
                async with asyncio.timeout(PROBE_MAY_TAKE):
                    await self._probe_heard.wait()
            except ConnectorException:
                await asyncio.sleep(AGAIN_AFTER)  # nothing was sent
                continue
            except TimeoutError:
                return
            await asyncio.sleep(PROBE_EVERY)

    def _hear(self, payload: str) -> None:
        if payload:
            self._on_ended(ids_in(payload))
        else:
            self._probe_heard.set()
            self._in_vain = 0
            self._on_change(True)


def longest_pause(in_vain: int) -> float:
    """Return the most seconds to the next try, if ``in_vain`` tries have heard nothing: rule 3."""
    return min(AGAIN_AFTER * 2.0 ** min(in_vain, 10), LONGEST_PAUSE)


def _give_up(listening: asyncio.Timeout, probing: asyncio.Task[None]) -> None:
    """End the block in which LISTEN is in force, because probing has ended by itself."""
    if not probing.cancelled():
        if (died_of := probing.exception()) is not None:
            logger.error("the listening connection cannot be probed", exc_info=died_of)
        listening.reschedule(0.0)


def ids_in(payload: str) -> list[int]:
    """Return the jobs' ids in a payload; none if it is anything else."""
    words = payload.split(" ") if len(payload) <= LONGEST_PAYLOAD else []
    if not all(_is_number(word) for word in words):
        return []
    return [job_id for job_id in map(int, words) if job_id <= _LARGEST_ID]


def _is_number(word: str) -> bool:
    return len(word) <= _MOST_DIGITS and word.isascii() and word.isdecimal()
