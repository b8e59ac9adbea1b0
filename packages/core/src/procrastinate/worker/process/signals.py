"""The signals that stop a worker: which ones it takes, and how it gives them back.

Rules

1. A worker that owns its process (`App.run_worker`, the command line) takes SIGINT and SIGTERM. It
   takes them back from a job that sets another handler, or none: nothing else could stop it.
2. A guest takes a signal only if nothing handles it. The handler that `asyncio.run` sets for SIGINT
   counts as nothing, because it only cancels the main task. An ignored signal stays ignored.
3. A guest leaves SIGINT alone if something else handles SIGTERM: a program with its own way to stop
   would lose its first Ctrl-C to the worker.
4. Handlers are set by `signal.signal`, never by ``loop.add_signal_handler``: a loop does not tell
   which handlers it has, and would drop the one that it had.
5. At its end the worker gives back what it found, but only where its own handler is still in place.
   A server that has set its handler meanwhile keeps it.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from procrastinate.worker.log import logger

INT, TERM = signal.SIGINT, signal.SIGTERM
LOOK_EVERY = 0.25  # seconds between looks whether a job has taken a signal

#: Takes signals back, and returns which ones others had taken.
TakeBack = Callable[[], Sequence[int]]


class Taking(enum.Enum):
    """Which signals a worker may take."""

    NONE = "none"
    FREE = "free"  # those that nothing handles
    BOTH = "both"


class Found(enum.Enum):
    """What a signal led to before."""

    NOTHING = "nothing"
    IGNORED = "ignored"
    HANDLED = "handled"


def found(handler: Any) -> Found:
    """Return what `signal.getsignal` has told about a signal; its None is a handler in C."""
    if handler is signal.SIG_IGN:
        return Found.IGNORED
    nothing = handler is signal.SIG_DFL or handler is signal.default_int_handler
    if nothing or _of_asyncio_run(handler):
        return Found.NOTHING
    return Found.HANDLED


def _of_asyncio_run(handler: Any) -> bool:
    owner = getattr(getattr(handler, "func", None), "__self__", None)
    return isinstance(handler, functools.partial) and isinstance(owner, asyncio.Runner)


def to_take(taking: Taking, on_int: Found, on_term: Found) -> tuple[signal.Signals, ...]:
    """Return the signals to take, by rules 1 to 3."""
    if taking is Taking.BOTH:
        return (INT, TERM)
    if taking is Taking.NONE:
        return ()
    takes_int = on_int is Found.NOTHING and on_term is not Found.HANDLED
    takes_term = on_term is Found.NOTHING
    return (INT,) * takes_int + (TERM,) * takes_term


class Handler:
    """A worker's signal handler: it passes a request on to the worker.

    It has a class of its own, so that others can tell it from a program's handlers.
    """

    def __init__(self, request: Callable[[], None]) -> None:
        self._request = request

    def __call__(self, *_: object) -> None:
        self._request()


@contextmanager
def asking(request: Callable[[], None], taking: Taking) -> Iterator[TakeBack]:
    """Let signals call a function, which may interrupt any code, if this is the main thread.

    Gives a function that takes them back from whatever has taken them meanwhile.
    """
    handler = Handler(request)
    if threading.current_thread() is not threading.main_thread():
        taking = Taking.NONE  # signal.signal would raise
    numbers = to_take(taking, found(signal.getsignal(INT)), found(signal.getsignal(TERM)))
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield functools.partial(_taken_back, handler, numbers)
    finally:
        for number, before in previous.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL if before is None else before)


def _taken_back(handler: Handler, numbers: Sequence[int]) -> Sequence[int]:
    taken = [number for number in numbers if signal.getsignal(number) is not handler]
    for number in taken:
        signal.signal(number, handler)
    return taken


@contextmanager
def kept(take_back: TakeBack) -> Iterator[None]:
    """A block on an event loop in which signals are taken back from jobs (rule 1)."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        timer = loop.call_later(LOOK_EVERY, look)
        if taken := take_back():
            names = " and ".join(signal.Signals(number).name for number in taken)
            logger.warning(
                "a job has set a handler for %s: the worker takes it back, because nothing else"
                " could stop it",
                names,
                extra={"action": "signals_taken_back"},
            )

    timer = loop.call_later(LOOK_EVERY, look)
    try:
        yield
    finally:
        timer.cancel()
