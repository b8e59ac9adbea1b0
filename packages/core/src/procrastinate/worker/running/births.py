"""Starting threads that begin, whatever a job has set for new threads.

Rules

1. `threading.settrace` and `threading.setprofile` have a function called in each new thread before
   its first step. If that raises, the thread has ended, and the code that started it does not hear
   of it. Debuggers and measurements of coverage set such functions, too. So a thread has them, and
   only one that did not begin is started again, without them.
2. `threading.stack_size` may ask for more than there is. Then a thread is started with the stack
   that is usual.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections.abc import Callable

from procrastinate.worker.log import logger

LOOK_EVERY = 0.1  # seconds until a thread has begun


def start(function: Callable[[], object], has_begun: Callable[[], bool], *, name: str) -> None:
    """Let a function run in a thread; for the loop's thread only.

    ``has_begun`` says whether its first line was reached. Raises RuntimeError if the system starts
    no thread.
    """
    loop = asyncio.get_running_loop()
    thread = _started(lambda: threading.Thread(target=function, name=name, daemon=True))

    def look() -> None:
        if has_begun():
            return
        if thread.is_alive() or not _started_bare(function, name):
            loop.call_later(LOOK_EVERY, look)

    loop.call_later(LOOK_EVERY, look)


def _started(make: Callable[[], threading.Thread]) -> threading.Thread:
    thread = make()
    try:
        thread.start()
    except RuntimeError:
        if not (size := threading.stack_size(0)):
            raise
        try:  # rule 2
            thread = make()
            thread.start()
        finally:
            threading.stack_size(size)
    return thread


def _started_bare(function: Callable[[], object], name: str) -> bool:
    """Start a thread that nothing is set for; return False if the system starts none."""

    def named() -> None:
        threading.current_thread().name = name
        function()

    try:
        _thread.start_new_thread(named, ())
    except RuntimeError:
        return False
    logger.warning(
        "a thread for jobs ended before it began, because of what a job has given to"
        " threading.settrace or threading.setprofile: it is started without that",
        extra={"action": "thread_started_again"},
    )
    return True
