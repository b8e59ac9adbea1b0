"""Threads for plain functions.

Rules

1. Not `concurrent.futures.ThreadPoolExecutor`: its threads are joined when the interpreter ends, so
   one task that never returns would keep a stopped worker alive for ever. These are daemons: a job
   whose thread does not end is handed back, and the process may leave.
2. The loop is woken once for all calls that have ended by the time it comes round: waking it for
   each takes longer than a short call does. While threads go on by themselves (rule 4) and more
   offers are left, it is not woken: it comes round by itself `PAUSE` after it has heard of ends.
   An end that others wait for wakes it all the same.
3. A call is reported whatever happens in its thread. An exception may be sent to a thread from
   outside (`PyThreadState_SetAsyncExc`) and come too late for the call that it was meant for: it is
   raised at the end of the next call of a function, or at the next jump. So a thread keeps what it
   is at in a `_Seat` and goes on from there, and it takes a call by a `for` over an iterator that
   is written in C: this takes and stores in one step, and does not wait.
4. A thread goes on with the first offer, without waiting for the loop, if its call has freed its
   slot: the call returned, and the loop only has to note its end. That saves two waits for the
   interpreter's lock and a wake-up. The thread takes the offer before it reports the end: if it did
   so afterwards, the loop could give the same slot to another call. Threads take offers in order,
   and the loop takes them back from the other end. Nothing begins after the loop was stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from procrastinate.worker.process import forks
from procrastinate.worker.running import births

PAUSE = 0.001  # seconds until the loop hears of the next ends while threads go on by themselves

OnEnded = Callable[[Any, BaseException | None], None]


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any] | None = None
    on_ended: OnEnded | None = None  # instead of a future
    awaited: bool = False  # whether others wait for its end
    begun: bool = False
    followed_by: _Call | None = None  # the offer that its thread goes on with
    settled: bool = False


class NoThread(RuntimeError):
    """The system starts no thread for the first call, and so there is none to wait for."""


class _End:
    """In place of a call: one thread is to end."""


@dataclass(slots=True, eq=False)
class _Seat:
    """What one thread is at: a call, its end, or nothing."""

    call: _Call | _End | None = None
    is_taken: bool = False  # whether the thread has begun


class TaskThreads:
    """Up to ``limit`` threads, started as they are needed and reused."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: deque[_Call | _End] = deque()  # each of them has a slot
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item for each call
        self._offers: deque[_Call] = deque()  # each of them waits for a slot
        self._ended: deque[tuple[_Call, Any, BaseException | None]] = deque()
        self._again: dict[asyncio.Future[Any], asyncio.Future[Any]] = {}
        self._loop_is_woken = False
        self._loop_comes: asyncio.TimerHandle | None = None
        self._started = 0
        self._busy = 0
        self._generation = forks.Process.generation
        self.when_settled: Callable[[], None] = lambda: None  # until the backlog sets it

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function in a thread, in a copy of the context; for the loop's thread only.

        The future's result is a pair of what the function returned and what it raised.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = loop.create_future()
        self._take_turn(_Call(lambda: context.run(function), loop, future))
        return future

    def run(
        self,
        function: Callable[[], Any],
        context: contextvars.Context,
        on_ended: OnEnded,
        *,
        awaited: bool = False,
    ) -> None:
        """Run a function in a thread and in this context; for the loop's thread only.

        ``on_ended`` is told on the loop what it returned and what it raised. It may be told twice,
        and is told again if it raises. This costs the loop a third of what a future and a task
        cost it. If the end is ``awaited``, the loop hears of it at once.
        """
        loop = asyncio.get_running_loop()
        self._take_turn(
            _Call(lambda: context.run(function), loop, on_ended=on_ended, awaited=awaited)
        )

    # Offers: all of these are for the loop's thread only

    @property
    def offers_left(self) -> int:
        """How many offers, the last ones, no thread has taken and the loop has not started."""
        return len(self._offers)

    def offer(
        self,
        function: Callable[[], Any],
        context: contextvars.Context,
        on_ended: OnEnded,
        *,
        awaited: bool = False,
    ) -> None:
        """Let a thread whose call has returned go on with this one; see `run` and rule 4."""
        loop = asyncio.get_running_loop()
        self._offers.append(
            _Call(lambda: context.run(function), loop, on_ended=on_ended, awaited=awaited)
        )

    def start_offer(self) -> None:
        """Make the first offer a call that has a slot, unless threads have taken all of them."""
        self._provide_thread()
        try:
            call = self._offers.popleft()
        except IndexError:
            return
        self._busy += 1
        self._put(call)

    def take_back_offer(self) -> bool:
        """Take back the last offer; return False if threads have taken all of them."""
        try:
            self._offers.pop()
        except IndexError:
            return False
        return True

    def _take_turn(self, call: _Call) -> None:
        self._provide_thread()
        self._busy += 1
        self._put(call)

    def _provide_thread(self) -> None:
        if self._busy >= self._started < self._limit:
            self._start_thread()

    def wait_again(self, cancelled: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Return another future of a call whose future was cancelled while its thread runs on."""
        again = self._again[cancelled] = asyncio.get_running_loop().create_future()
        return again

    def close(self) -> None:
        """Let idle threads end; busy ones end after their call."""
        for _ in range(self._started):
            self._let_one_end()

    def _let_one_end(self) -> None:
        self._put(_End())

    def _put(self, call: _Call | _End) -> None:
        self._calls.append(call)
        self._turn.put(None)

    def _start_thread(self) -> None:
        """Start one more thread. If the system has none left, the others do the work, if any."""
        number, seat = self._started + 1, _Seat()
        serve, name = functools.partial(self._serve_always, seat), f"{self._name}-task-{number}"
        try:
            births.start(serve, lambda: seat.is_taken, name=name)
        except RuntimeError as exc:
            if not self._started:
                raise NoThread(str(exc)) from exc
        else:
            self._started = number

    def _serve_always(self, seat: _Seat) -> None:
        while True:
            try:
                seat.is_taken = True
                return self._serve(seat)
            except BaseException:
                continue  # rule 3

    def serve(self) -> None:
        """Make calls, one after the other, until the threads are closed."""
        self._serve(_Seat())

    def _serve(self, seat: _Seat) -> None:
        while True:
            call = seat.call
            if call is None:
                if not self._take(seat):
                    self._turn.get()
            elif isinstance(call, _End):
                return
            else:
                self._make(call)
                seat.call = call.followed_by

    def _take(self, seat: _Seat) -> bool:
        """Take a call that has a slot; return False if there is none."""
        calls: Iterator[_Call | _End] = iter(self._calls.popleft, None)
        try:
            for seat.call in calls:  # rule 3
                return True
        except IndexError:
            pass
        return False

    def _take_offer(self, call: _Call) -> None:
        """Take the first offer, if there is one, to go on with it after this call."""
        offers = iter(self._offers.popleft, None)
        try:
            for call.followed_by in offers:  # rule 3
                return
        except IndexError:
            pass  # another thread took it, or the loop

    def _make(self, call: _Call) -> None:
        """Make a call and report its end; if it was begun before, only report it (rule 3)."""
        try:
            if call.begun:
                raise RuntimeError("an exception was sent to the thread of a call that had ended")
            call.begun = True
            try:
                result, exception = call.function(), None
            except BaseException as exc:  # SystemExit in a task ends the job, not the worker
                result, exception = None, exc
            if forks.Process.generation != self._generation:
                forks.leave(exception)
            if self._offers and exception is None and _frees_its_slot(call, result):
                self._take_offer(call)
            self._report(call, result, exception)
            del exception  # else it would be kept alive by its own traceback
        except BaseException as exc:  # came too late for the function, see rule 3
            self._report(call, None, exc)

    def _report(self, call: _Call, result: Any, exception: BaseException | None) -> None:
        self._ended.append((call, result, exception))
        if self._loop_is_woken or (self._loop_comes is not None and self._may_wait(call)):
            return
        self._loop_is_woken = True
        try:
            call.loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            pass  # the loop has been closed: the job was handed back long ago
        except BaseException:
            self._loop_is_woken = False  # else nothing would wake the loop any more
            raise

    def _may_wait(self, call: _Call) -> bool:
        """Whether the loop need not be woken for the end of a call (rule 2)."""
        return call.followed_by is not None and bool(self._offers) and not call.awaited

    def _settle(self) -> None:
        try:
            # First, so that a thread which comes too late for this turn wakes the loop again.
            self._loop_is_woken = False
            ended = len(self._ended)  # not those that end meanwhile: others wait, too
            for _ in range(ended):
                self._settle_one(*self._ended[0])
                self._ended.popleft()
            self.when_settled()
            self._come_again(ended > 0)
        except BaseException:
            asyncio.get_running_loop().call_soon(self._settle)  # what is left, again

    def _come_again(self, busy: bool) -> None:
        """Let the loop come round again if threads may go on by themselves, or have done so."""
        if self._loop_comes is not None:
            self._loop_comes.cancel()
        self._loop_comes = None
        # In this order: a thread reads the timer after it has reported.
        if self._ended or (busy and self._offers):
            loop = asyncio.get_running_loop()
            self._loop_comes = loop.call_later(PAUSE, self._settle)

    def _settle_one(self, call: _Call, result: Any, exception: BaseException | None) -> None:
        """Settle a call. Doing so twice changes nothing."""
        if not call.settled:
            call.settled = True
            if call.followed_by is None:
                self._busy -= 1
        if call.on_ended is not None:
            call.on_ended(result, exception)
        if call.future is not None:
            self._settle_future(call.future, result, exception)

    def _settle_future(
        self, future: asyncio.Future[Any], result: Any, exception: BaseException | None
    ) -> None:
        while future.cancelled() and future in self._again:
            future = self._again.pop(future)
        if not future.done():
            future.set_result((result, exception))


def _frees_its_slot(call: _Call, result: Any) -> bool:
    """Whether the end of a call is the end of its job (rule 4).

    Something on the loop waits for a future. What is to be awaited goes on there.
    """
    if call.future is not None or not call.loop.is_running():
        return False
    return result is None or not is_awaitable(result)


def is_awaitable(result: object) -> bool:
    """Whether what a function returned is to be awaited; what cannot be looked at is not."""
    try:
        return inspect.isawaitable(result)
    except BaseException:  # `isinstance` asks the object for its class, which may be a property
        return False
