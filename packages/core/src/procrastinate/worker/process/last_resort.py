"""The end of a worker that is asked to end now, and cannot hear it: a task blocks its event loop.

Rules

1. Only a process that is the worker's own is ended. A guest's event loop is its host's affair.
2. No job is lost: what the worker held is recovered by others once its heartbeat is missed, and
   counts as lost with a worker.
3. A signal handler may interrupt the main thread anywhere, also while that holds a lock of
   `threading`. So the thread that watches is started without that module.
4. A log that is stuck does not keep the process: it has a thread and a limit of its own.
5. If the whole machine stands still for a while, that is not the fault of the loop. So the time is
   counted in short looks, and does not pass while this thread stands still too.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import threading
from collections.abc import Callable

from procrastinate.worker.log import logger

LOOP_MAY_TAKE = 1.5  # seconds to turn once more after the second request
LOG_MAY_TAKE = 0.5  # seconds
LOOK = 0.1  # seconds
EXIT_CODE = 1  # an orchestrator starts another one


class LastResort:
    """Ends the process unless its event loop turns within `LOOP_MAY_TAKE` of a request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_over = is_over

    def watch(self) -> None:
        """See whether the loop turns, in a thread; from any thread, or a signal handler."""
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            return  # the loop is closed: the worker has ended
        if not _comes(turned, LOOP_MAY_TAKE) and not self._is_over():
            said = threading.Event()
            threading.Thread(target=_say, args=[said], daemon=True).start()
            _comes(said, LOG_MAY_TAKE)
            os._exit(EXIT_CODE)


def _comes(event: threading.Event, within: float) -> bool:
    """Wait for an event, and return whether it comes (rule 5)."""
    return any(event.wait(LOOK) for _ in range(round(within / LOOK)))


def _say(said: threading.Event) -> None:
    logger.critical(
        "the worker was told to stop now, but a task blocks its event loop: the process ends, and"
        " other workers recover the jobs that it held",
        extra={"action": "last_resort"},
    )
    said.set()
