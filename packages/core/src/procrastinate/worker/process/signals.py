"""The signals that stop a worker: which ones it takes, and how it gives them back.

Rules

1. A worker that owns its process (`App.run_worker`, the command line) takes SIGINT and SIGTERM.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INT, TERM = signal.SIGINT, signal.SIGTERM


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
def asking(request: Callable[[], None], taking: Taking) -> Iterator[None]:
    """Let signals call a function, which may interrupt any code, if this is the main thread."""
    handler = Handler(request)
    if threading.current_thread() is not threading.main_thread():
        taking = Taking.NONE  # signal.signal would raise
    numbers = to_take(taking, found(signal.getsignal(INT)), found(signal.getsignal(TERM)))
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL if before is None else before)
