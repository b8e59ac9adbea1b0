"""A time limit for the calls to the database that are made by hand: `time_limit`.

Rules

1. The limit is one of the block, and not of each call in it: the calls share its time.
2. A call that is under way when the time is over has its connection shut down, as a worker's call
   has (`procrastinate.drive.Limit`). A plain call cannot do that itself, because it waits: the
   watchdog of the block does it. Its thread is started by the first plain call.
3. The server's own limit for a statement is shorter, so that a statement that is only slow is
   ended there, and does not go on for a caller who has left.
4. A task or thread that goes on after the end of the block in which it began has no limit any more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from procrastinate.connector import SessionExecutor
from procrastinate.drive import Limit, NoAnswer
from procrastinate.errors import ConnectionLost, InvalidOption
from procrastinate.model.checks import check_seconds
from procrastinate.watchdog import Watchdog

SERVERS_SHARE = 0.8  # of the block's time: the limit of each statement on the server
LONGEST = 86_400.0  # seconds; a server's limit is a number of milliseconds in 32 bits


class TimeLimit:
    """The time that the calls of a block share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds
        self._server = seconds * SERVERS_SHARE
        self._lock = threading.Lock()
        self._watchdog: Watchdog | None = None
        self._pid = 0  # of the process that has the watchdog
        self._ended = False

    def left(self) -> float:
        """Return how many seconds are left. Raises `ConnectionLost` if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def of_a_call(self) -> Limit:
        """Return the limit of a call that begins now. Raises `ConnectionLost` if time is over."""
        return Limit(server=self._server, client=self.left(), connects=True)

    def over(self) -> ConnectionLost:
        """Return the error for a call that has no time left."""
        return NoAnswer(
            f"the database has not answered within the time limit of {self.seconds:g} s"
        )

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings that each statement runs with, besides its own."""
        return Limit(server=self._server, client=self.seconds).settings

    @contextmanager
    def severing(self) -> Iterator[Severing]:
        """Watch a plain call, which says what is to be severed once it has a connection."""
        severing = Severing()
        try:
            with self._watching().watching(self.left(), severing.bite):
                yield severing
        except ConnectionLost as exc:
            if severing.has_bitten:
                raise self.over() from exc
            raise
        finally:
            if self._ended:  # by another thread, while this one began: see rule 4
                self.end()

    def _watching(self) -> Watchdog:
        with self._lock:
            if self._watchdog is None or self._pid != os.getpid():
                self._watchdog, self._pid = Watchdog("procrastinate-time-limit"), os.getpid()
                self._watchdog.start()
            return self._watchdog

    @property
    def applies(self) -> bool:
        """Whether its block has not ended."""
        return not self._ended

    def end(self) -> None:
        """End the block, and its watchdog."""
        with self._lock:
            self._ended = True
            watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None and self._pid == os.getpid():
            watchdog.stop()


class Severing:
    """The connection of a call, as far as there is one, to be shut down when its time is over."""

    def __init__(self) -> None:
        self._executor: SessionExecutor | None = None
        self.has_bitten = False

    def connected(self, executor: SessionExecutor) -> None:
        """Note the connection."""
        self._executor = executor

    def bite(self) -> None:
        """Shut the connection down; without one, the call waits for the pool, or connects."""
        if self._executor is not None:
            self.has_bitten = True
            self._executor.sever()


_current: ContextVar[TimeLimit | None] = ContextVar("procrastinate_time_limit", default=None)


def current() -> TimeLimit | None:
    """Return the limit of the innermost block that this call is made in."""
    limit = _current.get()
    return limit if limit is not None and limit.applies else None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Give all calls to the database that are made in a block ``seconds`` together.

    ::

        with procrastinate.time_limit(5):
            job_id = send.defer(to=to)

    Without it a call waits as long as the server takes, and for ever if a firewall or a proxy
    between has fallen silent. The limit holds for plain and for asynchronous calls of every app,
    and in threads that inherit the context (``asyncio.to_thread``). Within another block the
    shorter time counts.

    A call that is under way when the time is over raises `ConnectionLost`, as do those that begin
    later in the block; its connection is shut down. It is unknown then whether a change was made:
    a job may be deferred all the same. A statement that is only slow is ended by the server after
    four fifths of the time, and raises `QueryCanceled`; a call that gets no connection from the
    pool raises `PoolTimeout`. To make a new connection has a limit of its own (``connect_timeout``,
    10 seconds), and so has a call with ``connection=``, whose connection is yours.

    Raises `InvalidOption` unless it is a number of seconds above 0, and at most a day.
    """
    seconds = check_seconds("seconds", seconds)
    if seconds > LONGEST:
        raise InvalidOption(f"seconds must be at most a day, {LONGEST:g}, not {seconds:g}")
    outer = current()
    if outer is not None:
        seconds = min(seconds, outer.left())
    limit = TimeLimit(seconds)
    token = _current.set(limit)
    try:
        yield
    finally:
        _current.reset(token)
        limit.end()
