"""What jobs do to their own process. Each is named as a kind of fault; see `DEEDS`."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

BLOCKED = 3.0  # seconds that a job blocks the event loop
MUCH = 64 * 2**20  # bytes that a job takes beyond what its process may have


def leave() -> None:
    """End the process without a word."""
    os._exit(3)


def crash() -> None:
    """Read from where there is no memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # in a thread, no signal handler can be set
    ctypes.string_at(0)


def eat_memory() -> None:
    """Take more memory than there is: end as the kernel would have it."""
    hoard = [bytearray(MUCH)]  # enough to be seen, and not so much that others suffer
    hoard[0][::4096] = b"x" * len(hoard[0][::4096])
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory() -> None:
    """Raise the MemoryError of an allocation that cannot be had; the process lives on."""
    bytearray(2**62)


def recurse(depth: int = 0) -> int:
    """Recurse without end; the process lives on."""
    return recurse(depth + 1) + 1


def block() -> None:
    """Block the event loop; the process lives on."""
    time.sleep(BLOCKED)


def fork() -> None:
    """Leave a child behind for a moment that shares all that the process has open."""
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)


def quit_python() -> None:
    """Raise SystemExit out of the task; the process lives on."""
    sys.exit(4)


#: Name of the deed, what it does, and whether the process dies of it.
DEEDS: dict[str, tuple[Callable[[], object], bool]] = {
    "os._exit": (leave, True),
    "segfault": (crash, True),
    "out of memory": (eat_memory, True),
    "MemoryError": (run_out_of_memory, False),
    "recursion": (recurse, False),
    "blocked loop": (block, False),
    "fork": (fork, False),
    "sys.exit": (quit_python, False),
}
