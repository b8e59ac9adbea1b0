"""The event loop of a process that is a worker's own.

On Linux, asyncio's timers are as coarse as ``epoll_wait``: a sleep ends up to a millisecond late
whenever something else has woken the loop meanwhile, and the database does so all the time. With
jobs of 5 ms a slot lost a tenth of its time to that. ``select`` on epoll's own descriptor waits to
the microsecond, for a system call more in each turn of the loop that waits.
"""

from __future__ import annotations

import asyncio
import select
import selectors

_Ready = list[tuple[selectors.SelectorKey, int]]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop: of the program's own kind if it has set a policy (uvloop, for example)."""
    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop or not hasattr(selectors, "EpollSelector"):
        return loop
    loop.close()
    return asyncio.SelectorEventLoop(_precise_selector())


def _precise_selector() -> selectors.BaseSelector:
    epoll = selectors.EpollSelector.select

    class PreciseSelector(selectors.EpollSelector):
        """Waits for descriptors with timeouts that are precise to the microsecond."""

        def select(self, timeout: float | None = None) -> _Ready:
            if timeout is None or timeout <= 0:
                return epoll(self, timeout)  # a busy loop comes here each turn
            ready, _, _ = select.select((self.fileno(),), (), (), timeout)
            return epoll(self, 0) if ready else []

    selector = PreciseSelector()
    try:
        selector.select(1e-6)
    except ValueError:  # `select` takes no descriptors from 1,024 on
        selector.close()
        return selectors.DefaultSelector()
    return selector
