"""The first lines of the command ``procrastinate``: it hears signals before it imports anything.

Rules

1. This package is beside `procrastinate`, because importing a module of that package imports the
   whole library first. A SIGTERM during those 0.2 s would end the process with -15.
2. The top of this module imports nothing that Python has not imported yet. ``signal`` alone would
   import ``enum`` and ``functools``; what ``_signal`` offers is documented under ``signal``.
3. ``python -m procrastinate`` imports the library before any other line, so the library imports
   this package first, and this package looks for itself whether it is the program.
4. A library that another program imports installs nothing.

What a signal does afterwards is in `procrastinate_entry.stopping`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import atexit
import os
import sys

TYPE_CHECKING = False  # type checkers take it for true; ``typing`` is not imported yet
if TYPE_CHECKING:
    from typing import NoReturn

SIGNALS = (_signal.SIGINT, _signal.SIGTERM)

_pipe: tuple[int, int] | None = None
_found: dict[int, object] = {}
_held: dict[int, object] = {}  # masks of threads that fork


def main() -> NoReturn:
    """Run the command line and exit."""
    hear()
    from procrastinate.cli import main as run

    run()


def hear() -> int:
    """Keep each SIGINT and SIGTERM from now on; return the descriptor to read their numbers from.

    The handler of the C library writes a signal's number into a pipe. It does so also while Python
    is inside a C function, where no handler written in Python can run. Only the main thread may
    call this. Calling it again takes signals back from whatever has taken them meanwhile. A thread
    that had blocked them would hand that on to the processes which it starts.
    """
    global _pipe
    if _pipe is None:
        _pipe = os.pipe()
        if os.name != "nt":
            os.set_blocking(_pipe[1], False)
        _found.update({number: _signal.getsignal(number) for number in SIGNALS})
    _signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    for number in SIGNALS:
        _signal.signal(number, _keep)
    if os.name != "nt":
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)
    return _pipe[0]


def take_back() -> list[int]:
    """Take signals back from other handlers, and return which signals these had taken.

    Only the main thread may call this.
    """
    if _pipe is None:
        return []
    taken = [number for number in SIGNALS if _signal.getsignal(number) is not _keep]
    if taken:
        hear()
    return taken


def is_hearing() -> bool:
    """Whether this process keeps its signals."""
    return _pipe is not None


def forget() -> None:
    """Give signals back to the handlers that were found. The descriptor comes to its end."""
    global _pipe
    if _pipe is None:
        return
    _signal.set_wakeup_fd(-1)
    for number, handler in _found.items():
        _signal.signal(number, _signal.SIG_DFL if handler is None else handler)
    writer, _pipe = _pipe[1], None
    os.close(writer)


def _hold_signals() -> None:
    """Let no signal arrive between a fork and `_forget_in_child`: the parent would hear of it."""
    if _pipe is not None:
        _held[_thread.get_ident()] = _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)


def _let_signals_come() -> None:
    held = _held.pop(_thread.get_ident(), None)
    if held is not None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, held)


def _forget_in_child() -> None:
    """Do not share the pipe with the parent, which would hear of signals to this child."""
    if _pipe is not None:
        reader = _pipe[0]
        forget()
        os.close(reader)
    _let_signals_come()


def _keep(number: int, _: object) -> None:
    """Write the number as the C library's handler does, if an event loop has taken its place."""
    if _pipe is None:
        return
    taken_by = _signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if taken_by != _pipe[1]:
        _signal.set_wakeup_fd(taken_by, warn_on_full_buffer=False)
        os.write(_pipe[1], bytes([number]))


def _ignore_signals() -> None:
    """Ignore signals while the interpreter is taken apart.

    Python resets its handlers then: a second SIGTERM would end a process with -15 that had stopped
    well. This was registered first, so it runs after every other function for the exit.
    """
    if _pipe is not None:
        for number in SIGNALS:
            _signal.signal(number, _signal.SIG_IGN)


def _is_the_program() -> bool:
    """Whether Python is about to run ``-m procrastinate``: only then its argv begins with -m."""
    options = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return sys.argv[:1] == ["-m"] and options[-1:] in (["procrastinate"], ["-mprocrastinate"])


atexit.register(_ignore_signals)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_let_signals_come,
        after_in_child=_forget_in_child,
    )
if _is_the_program():
    hear()
