"""The waiting room of an app: where all that wait for the end of a job wait, in one process.

If the connector can listen, one thread serves all waits, plain and asynchronous
(`procrastinate.waiting.keeper`). It is made at the first wait. Otherwise each looks by itself
(`procrastinate.waiting.looking`).
"""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
from collections import deque

from procrastinate.connector import ListeningConnector
from procrastinate.connector_tools import forks
from procrastinate.errors import AppNotOpen, ConfigurationError
from procrastinate.model import checks
from procrastinate.model.endings import ended
from procrastinate.model.endings.waits import Missing, Outcome
from procrastinate.model.job import Job
from procrastinate.storage.readable import as_it_can
from procrastinate.storage.rows import job_from
from procrastinate.waiting import looking
from procrastinate.waiting.keeper import CONNECT_MAY_TAKE, Keeper, close_out
from procrastinate.waiting.wait import AsyncWait, PlainWait, Wait, give_all
from procrastinate.waiting.way import Way

logger = logging.getLogger("procrastinate.waiting")

#: Seconds. A shorter wait looks by itself, because to make connections takes about as long.
SHORT = 0.25
CONNECTIONS = 2  # one that listens, and one for statements
CLOSING_MAY_TAKE = 8.0  # seconds: a call under way, and what is left to remove
REBORN_AFTER = 1.0  # seconds
_LARGEST_ID = 2**63 - 1
DEATHS = 3
DEATHS_WITHIN = 60.0  # seconds


class WaitingRoom:
    """Waits for the ends of jobs. Threads and event loops share it."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._loads = as_it_can(way.connector.json_loads)
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        forks.call_after_fork(self)

    def until_ended(self, job_id: int, *, timeout: float | None) -> Job | None:
        """Wait until a job has ended and return it as it was then, with its result.

        Returns None if it was there and was removed meanwhile. ``timeout`` is in seconds: None and
        infinity are no limit, 0 is one look. A database that is away is waited for. Raises
        `JobNotFound` if there is no such job at the first look, TimeoutError, and `AppNotOpen`,
        also if the app is closed meanwhile.
        """
        job_id, seconds = _checked(job_id, timeout)
        self._way.check_open(for_async=False)
        wait = PlainWait(job_id)
        if not self._enters(wait, seconds):
            return looking.until_ended(self._way, job_id, seconds, self._loads)
        try:
            return self._job(wait, wait.outcome(seconds))
        except TimeoutError as exc:
            raise ended.not_in_time(job_id, seconds) from exc
        finally:
            self._leave(wait)

    async def until_ended_async(self, job_id: int, *, timeout: float | None) -> Job | None:
        """Wait until a job has ended; see `until_ended`."""
        job_id, seconds = _checked(job_id, timeout)
        self._way.check_open(for_async=True)
        wait = AsyncWait(job_id)
        if not self._enters(wait, seconds):
            return await looking.until_ended_async(self._way, job_id, seconds, self._loads)
        try:
            return self._job(wait, await wait.outcome(seconds))
        except TimeoutError as exc:
            raise ended.not_in_time(job_id, seconds) from exc
        finally:
            self._leave(wait)

    def _job(self, wait: Wait, outcome: Outcome) -> Job | None:
        wait.is_told = True
        if outcome is Missing.REMOVED:
            return None
        if outcome is Missing.NEVER_SEEN:
            raise ended.not_visible(wait.job_id)
        if isinstance(outcome, Exception):
            raise copy.copy(outcome) from outcome.__cause__
        return job_from(outcome, self._loads)

    # Who keeps the waits

    def _enters(self, wait: Wait, seconds: float) -> bool:
        """Hand a wait to the keeper, if there is one for it."""
        if seconds <= SHORT or not isinstance(self._way.connector, ListeningConnector):
            return False
        return self._hand_over(wait)

    def _hand_over(self, wait: Wait) -> bool:
        while True:
            keeper = self._kept_by()
            if keeper is None:
                return False
            if keeper.enter(wait):
                return True
            with self._lock:
                if self._keeper is keeper:
                    self._keeper = None

    def _kept_by(self) -> Keeper | None:
        """Return the keeper, a new one if there is none.

        Returns None if it can have no connections, or if no thread can be started.
        """
        with self._lock:
            if self._keeper is None:
                self._way.check_open(for_async=False)  # it may have been closed meanwhile
                try:
                    keeper = Keeper(self._beside(), self._beside, on_end=self._ended)
                    keeper.start()
                except (ConfigurationError, TypeError, RuntimeError):
                    return None
                self._keeper = keeper
            return self._keeper

    def _beside(self) -> Way:
        return self._way.beside(max_connections=CONNECTIONS, connect_timeout=CONNECT_MAY_TAKE)

    def _leave(self, wait: Wait) -> None:
        wait.is_over = True
        keeper = self._keeper
        if keeper is not None and not wait.is_told:
            keeper.leave(wait)

    def _ended(self, keeper: Keeper, left: list[Wait], died_of: BaseException | None) -> None:
        """Give what a keeper has left to another one; it runs in the thread that ends."""
        with self._lock:
            if self._keeper is keeper:
                self._keeper = None
        if died_of is not None and self._died(died_of):
            give_all([(wait, _given_up(died_of)) for wait in left])
            return
        for wait in left:
            if not self._hand_on(wait):
                close_out([wait])

    def _hand_on(self, wait: Wait) -> bool:
        """Hand a wait of a keeper that has ended to another one, unless the app was closed."""
        try:
            return self._hand_over(wait)
        except AppNotOpen:
            return False

    def _died(self, died_of: BaseException) -> bool:
        """Note a death, and return whether it was one too many."""
        now = time.monotonic()
        self._deaths.append(now)
        too_many = len(self._deaths) == DEATHS and now - self._deaths[0] < DEATHS_WITHIN
        fate = "it has died too often" if too_many else "another one takes its waits up"
        logger.error("the thread that waits for jobs died: %s", fate, exc_info=died_of)
        if not too_many:
            time.sleep(REBORN_AFTER)
        return too_many

    # The app's end, and a fork

    @property
    def is_used(self) -> bool:
        """Whether there is a thread with connections."""
        return self._keeper is not None

    def close(self) -> None:
        """End all waits with `AppNotOpen`, and give the connections back."""
        with self._lock:
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close(CLOSING_MAY_TAKE)

    def after_fork(self) -> None:
        """Leave the thread's connections to the parent; the first wait makes others."""
        self._lock = threading.Lock()
        if self._keeper is not None:
            forks.leave_to_parent(self._keeper)
            self._keeper = None


def _given_up(died_of: BaseException) -> Exception:
    error = AppNotOpen("the thread that waits for jobs died too often: see the log")
    error.__cause__ = died_of
    return error


def _checked(job_id: int, timeout: float | None) -> tuple[int, float]:
    """Return the id and the timeout, checked."""
    return checks.check_int("id", job_id, 0, _LARGEST_ID), math.inf if timeout is None else max(
        0.0, timeout
    )
