"""Processes that a job forks: none of them may go on as a second copy of the worker.

Rules

1. A child that comes back from the job's code into ours leaves at once, by `os._exit`: with 0 if
   the job's code returned, with the code of its `SystemExit`, with 1 after another exception.
2. A child that gives control back to the worker's event loop leaves with 1. It shares the parent's
   epoll: what it registered or removed there would make the parent deaf.
3. A child does not hear the parent's signals, nor the parent those of the child: the loop's wake-up
   descriptor is shared as well, and handlers that the loop or a worker has installed do nothing in
   the child, so `Process.terminate()` would not end it.
4. Children that never come back are left alone, as those of `subprocess` and `multiprocessing`; so
   is what the program forks outside of jobs. What the worker's own code calls is not outside:
   retry strategies and observers. If the process is the worker's own, nothing in it is: threads of
   any kind are treated as jobs.
5. A child that was forked in a thread of an executor (`asyncio.to_thread`) leaves when the call has
   ended, as by rule 1. Otherwise that thread would wait for its next call for ever.
6. One that was forked by a retry strategy or an observer leaves with 1 as soon as that returns.
   Until the loop's next turn it might start jobs, which the parent starts as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any, NoReturn

from procrastinate.model.text import failure

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CODE = SystemExit.__dict__["code"].__get__  # as Python reads it, whatever a subclass says
CAME_BACK = "procrastinate: a forked process came back to the code of the worker\n"
OURS = "procrastinate.worker."  # what modules' names begin with that call a user's code

_runs_a_job: contextvars.ContextVar[asyncio.AbstractEventLoop | None] = contextvars.ContextVar(
    "procrastinate_loop_of_the_job", default=None
)
_held: dict[int, set[int | signal.Signals]] = {}  # the masks of threads that fork


class Process:
    """This process: ``generation`` counts the forks that lie between it and the first one.

    ``loop`` is the event loop of the worker that it belongs to, if it does.
    """

    generation = 0
    loop: asyncio.AbstractEventLoop | None = None


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """A block on an event loop in which this process belongs to the worker there (rule 4).

    If that loop is not the main thread's, the process has other things to do.
    """
    if threading.current_thread() is threading.main_thread():
        Process.loop = asyncio.get_running_loop()
    try:
        yield
    finally:
        Process.loop = None


def mark(context: contextvars.Context, loop: asyncio.AbstractEventLoop) -> None:
    """Let it be known that what runs in copies of this context is a job on this loop."""
    context.run(_runs_a_job.set, loop)


def _loop_around() -> asyncio.AbstractEventLoop | None:
    """Return the loop that a child must not come back to, if this is inside of a job or of us."""
    return _runs_a_job.get() or Process.loop or _loop_of_the_caller()


def _loop_of_the_caller() -> asyncio.AbstractEventLoop | None:
    """Return the loop of this thread if what forks was called by the worker's own code."""
    loop = asyncio._get_running_loop()
    frame: FrameType | None = sys._getframe() if loop is not None else None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if isinstance(name, str) and name.startswith(OURS) and name != __name__:
            return loop
        frame = frame.f_back
    return None


def end_if_forked(since: int) -> None:
    """End this process if it was forked since it had this generation (rule 6)."""
    if Process.generation != since:
        _came_back()


def leave(exception: BaseException | None) -> NoReturn:
    """End this process, because what it was forked for has returned (None) or raised."""
    code = 1
    try:
        code = _exit_code(exception)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)


def _exit_code(exception: BaseException | None) -> int:
    if exception is None:
        return 0
    if issubclass(type(exception), SystemExit):
        wanted = _CODE(exception)
        if wanted is None:
            return 0
        if type(wanted) is int:
            return wanted & 0xFF
    sys.stderr.write(failure.traceback_of(exception))
    return 1


def _before() -> None:
    """Let no signal arrive in the child before `_stop_hearing`: the parent would hear of it."""
    if _loop_around() is not None:
        _held[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_signals_come() -> None:
    held = _held.pop(threading.get_ident(), None)
    if held is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _in_child() -> None:
    Process.generation += 1
    loop = _loop_around()
    if loop is None:
        return
    with contextlib.suppress(Exception):
        _stop_hearing()
    with contextlib.suppress(Exception):
        _end_at_next_turn(loop)
    with contextlib.suppress(Exception):
        _end_with_its_call()
    _let_signals_come()


def _stop_hearing() -> None:
    """Rule 3."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        handler = signal.getsignal(number)
        module = getattr(handler, "__module__", None) or ""
        if module.partition(".")[0] in ("asyncio", "uvloop", "procrastinate"):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


def _end_at_next_turn(loop: asyncio.AbstractEventLoop) -> None:
    """Rule 2: let the loop's next step be the end of this process, before all that waits there."""
    ready = getattr(loop, "_ready", None)  # asyncio's own loops; others end a turn later
    if isinstance(ready, deque):
        ready.clear()
    loop.call_soon(_came_back)


def _came_back() -> NoReturn:
    try:
        sys.stderr.write(CAME_BACK)
        sys.stderr.flush()
    finally:
        os._exit(1)


def _end_with_its_call() -> None:
    """Rule 5: let the end of an executor's call, if this is inside of one, be the process's end."""
    executors: Any = sys.modules.get("concurrent.futures.thread")
    if executors is None:
        return
    code = executors._WorkItem.run.__code__
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is not None:
        call: Future[Any] = frame.f_locals["self"].future
        call.add_done_callback(lambda ended: leave(ended.exception()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_let_signals_come, after_in_child=_in_child)
