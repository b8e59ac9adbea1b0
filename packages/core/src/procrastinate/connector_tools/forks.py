"""What a forked child does with the connections of its parent: nothing.

The sockets are the parent's. A child that used one would mix its messages with the parent's, and
one that closed a connection would tell the server goodbye on the parent's behalf. Both happen
unasked: a driver says goodbye when its connection is collected.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

C = TypeVar("C")


class Forkable(Protocol):
    """Something that must know when it finds itself in a forked child."""

    def after_fork(self) -> None:
        """Let go of what is the parent's. Runs in the child, where no other thread exists."""


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()
_sockets: weakref.WeakKeyDictionary[Any, Callable[[Any], int]] = weakref.WeakKeyDictionary()
_left: list[Any] = []


def call_after_fork(forkable: Forkable) -> None:
    """Have ``after_fork`` called in each forked child, as long as the object exists."""
    _known.add(forkable)


def leave_to_parent(*objects: Any) -> None:
    """Keep what is the parent's for as long as this process lives, so that nothing finalises it."""
    _left.extend(objects)


def detach_after_fork(connection: C, fileno: Callable[[C], int]) -> None:
    """Have a connection's socket detached in each forked child, as long as the connection exists.

    ``fileno`` returns its descriptor, or raises if it is closed.
    """
    _sockets[connection] = fileno


def detach(fileno: int) -> None:
    """Put the null device in the place of a socket, in a child: nothing done to it is heard."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        with contextlib.suppress(OSError):  # it is closed
            os.dup2(null, fileno)
    finally:
        os.close(null)


def _in_child() -> None:
    for connection, fileno in list(_sockets.items()):
        with contextlib.suppress(Exception):  # whatever the driver says of one that is closed
            detach(fileno(connection))
    for forkable in list(_known):
        forkable.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
