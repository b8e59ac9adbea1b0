"""The thread that keeps the waits of one app in one process.

Rules

1. It has an event loop and connections of its own: one that listens, and one for statements. So a
   task that blocks the application's loop, and a pool that is used up, delay nothing here.
2. Threads put into its inbox who waits and who waits no more. It is woken once for what has come
   meanwhile.
3. One task sends all statements, one at a time, in the order that `Waits` says.
4. A database that is away is waited for. An error that will not go away is given to those who wait.
5. It ends when there was no wait for `IDLE_ENDS_AFTER` seconds, and with the app. If anything else
   ends it, that is logged, and the waits are handed to another one.
6. A forked child has no such thread, and leaves the connections to its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from procrastinate.drive import Flow, T, at
from procrastinate.errors import (
    AppNotOpen,
    ConnectionLost,
    ConnectorException,
    InsufficientPrivilege,
    ProcrastinateException,
)
from procrastinate.model.endings.waits import Kind, Step, Waits
from procrastinate.storage import waits as flows
from procrastinate.storage.nodes import may_be_node
from procrastinate.storage.settings import read_settings
from procrastinate.waiting.hearing import Hearing
from procrastinate.waiting.nodes import Nodes
from procrastinate.waiting.wait import Wait, give_all
from procrastinate.waiting.way import CALL, Way, passes

logger = logging.getLogger("procrastinate.waiting")

IDLE_ENDS_AFTER = 30.0  # seconds
#: Microseconds until a row is void that was not renewed. Then the process that waited is gone.
LASTING_US = 60_000_000
AGAIN_AFTER = 1.0  # seconds, at most, from a failure to the next try
LEARN_EVERY = 10.0  # seconds: into how many partitions the database has put its jobs
CLOSING_MAY_TAKE = 2.0  # seconds to remove the rows that are left
CONNECT_MAY_TAKE = 3.0  # seconds


class Keeper:
    """Keeps waits until it ends.

    ``on_end`` is called by its thread with the waits that are left, and with what ended it.
    """

    def __init__(
        self,
        way: Way,
        make_way: Callable[[], Way],
        *,
        on_end: Callable[[Keeper, list[Wait], BaseException | None], None],
    ) -> None:
        self._way = way
        self._on_end = on_end
        self._waiter = secrets.randbelow(2**63 - 1) + 1
        self._lock = threading.Lock()
        self._inbox: deque[tuple[bool, Wait]] = deque()  # whether it comes, and which wait
        self._has_ended = False
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = time.monotonic
        self._left: list[Wait] = []
        self._waits: Waits[Wait] = Waits(self._clock())
        self._idle_since = self._clock()
        self._learn_at = 0.0
        self._nodes = Nodes(make_way, on_change=self._away)
        self._is_failing = False
        self._woken = asyncio.Event()
        self._connection = asyncio.Lock()  # of the one for statements
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._run, name="procrastinate-waiting", daemon=True)

    # From any thread

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def enter(self, wait: Wait) -> bool:
        """Take a wait up, unless this has ended."""
        return self._put(True, wait)

    def leave(self, wait: Wait) -> None:
        """Note that a wait is over."""
        self._put(False, wait)

    def _put(self, comes: bool, wait: Wait) -> bool:
        with self._lock:
            if self._has_ended or self._is_closing:
                return False
            self._inbox.append((comes, wait))
            if len(self._inbox) == 1:
                self._ring()
        return True

    def _ring(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def close(self, patience: float) -> None:
        """End it: all waits get `AppNotOpen`. ``patience`` is seconds to wait for its end."""
        with self._lock:
            self._is_closing = True
            if not self._has_ended:
                self._ring()
        if self._thread is not threading.current_thread():
            self._thread.join(patience)

    # The thread

    def _run(self) -> None:
        died_of: BaseException | None = None
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as exc:
            died_of = exc
        with self._lock:
            self._has_ended = True
            self._loop = None
            left = self._left + [wait for comes, wait in self._inbox if comes]
        if self._is_closing:
            close_out(left)
        else:
            self._on_end(self, [wait for wait in left if not wait.is_over], died_of)

    async def _main(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
        hearing = Hearing(
            self._way.connector,
            flows.CHANNEL.format(waiter=self._waiter),
            open=self._open,
            send=self._call,
            on_ended=self._heard,
            on_change=self._listening,
        )
        listening = asyncio.create_task(hearing.run())
        try:
            while not self._is_over():
                await self._round()
        finally:
            listening.cancel()
            self._nodes.stop()
            await _ended(listening)
            self._left = self._waits.all()
            if self._is_closing:
                close_out(self._left)
            with contextlib.suppress(Exception):
                await self._leave_nothing()
            await self._way.close_async()

    def _is_over(self) -> bool:
        """Return whether to end, and take nothing up from then on."""
        with self._lock:
            if not (self._inbox or len(self._waits)) and self._clock() >= self._idle_ends_at:
                self._has_ended = True
            return self._is_closing or self._has_ended

    @property
    def _idle_ends_at(self) -> float:
        return math.inf if len(self._waits) else self._idle_since + IDLE_ENDS_AFTER

    async def _round(self) -> None:
        self._woken.clear()
        self._read_inbox()
        if len(self._waits) and self._clock() >= self._learn_at:
            await self._try(self._learn, None)
        elif (step := self._waits.next(self._clock())) is not None:
            await self._try(functools.partial(self._take, step), step)
        else:
            await self._sleep(min(self._waits.due_at(), self._idle_ends_at))
        self._tell()

    def _read_inbox(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, deque()
        for comes, wait in inbox:
            if comes and not wait.is_over:
                self._waits.enter(wait.job_id, wait)
            else:
                self._waits.leave(wait.job_id, wait)

    def _tell(self) -> None:
        if self._waits.ended:
            ended, self._waits.ended = self._waits.ended, []
            give_all(ended)
        if len(self._waits):
            self._idle_since = self._clock()

    async def _sleep(self, until: float) -> None:
        seconds = until - self._clock()
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if until == math.inf else seconds):
                    await self._woken.wait()

    # What is heard

    def _heard(self, ids: Iterable[int]) -> None:
        self._waits.heard(ids)
        self._woken.set()

    def _listening(self, hears: bool) -> None:
        self._waits.listening(hears, self._clock())
        self._woken.set()

    def _away(self, partitions: Iterable[int]) -> None:
        self._waits.away = frozenset(partitions)
        self._woken.set()

    # Statements

    async def _learn(self) -> None:
        """Learn into which partitions the database has put its jobs."""
        partitions = await self._call(read_settings())
        self._way.learn(partitions)
        self._waits.divided(partitions)
        self._learn_at = self._clock() + LEARN_EVERY
        for wait in self._waits.all():
            if wait.is_over:  # its loop was closed
                self._waits.leave(wait.job_id, wait)

    async def _take(self, step: Step) -> None:
        waits, ids = self._waits, step.ids
        match step.kind:
            case Kind.READ:
                waits.read(step, await self._at(step, flows.read_jobs(ids)))
            case Kind.LOCATE:
                places = await self._call(flows.places_of(ids, waits.partitions))
                waits.located(step, places)
            case Kind.REGISTER:
                flow = flows.register_waits(ids, waiter=self._waiter, lasting_us=LASTING_US)
                await self._at(step, flow)
                waits.registered(step)
            case Kind.LOOK:
                statuses = await self._at(step, flows.look_at_jobs(ids))
                waits.looked(step, statuses, self._clock())
            case Kind.REMOVE:
                await self._at(step, flows.remove_waits(ids, waiter=self._waiter))

    async def _at(self, step: Step, flow: Flow[T]) -> T:
        assert step.partition is not None
        return await self._call(at(step.partition, flow))

    async def _call(self, flow: Flow[T]) -> T:
        async with self._connection:
            return await self._way.run_async(flow, limit=CALL)

    async def _open(self) -> None:
        """Open the way, if it is not open. (Two at once would each make connections.)"""
        async with self._opening:
            await self._way.open_async()

    # Failures

    async def _try(self, do: Callable[[], Awaitable[None]], step: Step | None) -> None:
        try:
            await self._open()
            await do()
        except Exception as exc:
            await self._failed(exc, step)
        else:
            self._is_failing = False

    async def _failed(self, exc: Exception, step: Step | None) -> None:
        if step is not None:
            if await self._is_of_node(exc):
                self._waits.put_back(step)
                return
            if step.kind in (Kind.REGISTER, Kind.REMOVE) and _refuses_rows(exc):
                logger.warning("no row can be written for those who wait: %s", exc)
                self._waits.without_rows(self._clock())
                return
        if passes(exc):
            await self._is_away(exc, step)
        elif isinstance(exc, ProcrastinateException):
            self._waits.failed(step, exc)
        else:
            raise exc

    async def _is_of_node(self, exc: Exception) -> bool:
        if not self._waits.partitions.are_many:
            return False
        if not (may_be_node(exc) or isinstance(exc, TimeoutError)):
            return False
        return await self._nodes.find(self._way)

    async def _is_away(self, exc: Exception, step: Step | None) -> None:
        """Wait until the database may be back."""
        if step is not None:
            self._waits.put_back(step)
        if isinstance(exc, ConnectionLost):
            self._waits.anew()
        if not self._is_failing:
            self._is_failing = True
            reason = str(exc) or "the database does not answer"
            logger.warning("waits for jobs go on when the database is back: %s", reason)
        self._woken.clear()
        until = self._clock() + AGAIN_AFTER * random.uniform(0.5, 1.0)
        while self._clock() < until and not self._is_closing:
            await self._sleep(until)
            self._woken.clear()

    async def _leave_nothing(self) -> None:
        """Remove the rows that are left, in a limited time."""
        waits = self._waits
        async with asyncio.timeout(CLOSING_MAY_TAKE):
            waits.only_removals()
            while (step := waits.next(self._clock())) is not None:
                await self._remove(step)

    async def _remove(self, step: Step) -> None:
        """Remove rows. Those at a node that is away are left, and keep no others."""
        try:
            try:
                await self._take(step)
            except ConnectionLost:
                await self._take(step)  # on another connection
        except ConnectorException as exc:
            if not may_be_node(exc):
                raise


async def _ended(listening: asyncio.Task[None]) -> None:
    """Wait until a task that was cancelled has ended, in a limited time.

    What it ended with is taken from it. A task that keeps it makes a cycle with the frames in
    there, and one of these may have a connection that was just being made: it would stay open
    until the next garbage collection.
    """
    await asyncio.wait([listening], timeout=CLOSING_MAY_TAKE)
    with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError):
        listening.exception()


def _refuses_rows(exc: Exception) -> bool:
    """Return whether the database will not write our rows: no right to, or it is a standby."""
    return isinstance(exc, InsufficientPrivilege) or (
        isinstance(exc, ConnectorException) and exc.sqlstate in ("25006", "0A000", "55000")
    )


def close_out(waits: Iterable[Wait]) -> None:
    """Tell those who wait that the app was closed."""
    give_all(
        [(wait, AppNotOpen("the app was closed while a job was waited for")) for wait in waits]
    )
