"""What a worker spares Python's garbage collector.

Claimed jobs are many objects that live for a moment. The collector takes them for growth and looks
at everything in the process, again and again: 20 ms each time, in which no job begins. The program
and its modules are most of that, and almost none of them ever becomes garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spared() -> Iterator[None]:
    """Let the collector pass over what exists now, until the end of the block.

    Cycles among these objects are not freed before. For a process of the worker's own: elsewhere
    they may be many. A program that has called `gc.freeze` itself keeps what it has decided.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
