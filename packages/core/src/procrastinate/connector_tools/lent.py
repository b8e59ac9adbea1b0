"""Whether a connection was given back to the application's pool that it came from.

A connection of psycopg2 or aiopg does not know its pool. One that was given back is the same
object, still open, and the pool gives it to the next user: a job that is deferred on it would
become part of that user's transaction. Only the pools that were handed to a connector are known.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from procrastinate.errors import InvalidOption


class LentPools:
    """The pools of one driver that applications have handed in; it does not keep them alive.

    ``idle`` returns the connections that lie in a pool.
    """

    def __init__(self, idle: Callable[[Any], Iterable[Any]]) -> None:
        self._idle = idle
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()

    def note(self, pool: Any) -> None:
        """Remember a pool that was handed in."""
        self._pools.add(pool)

    def check_in_use(self, connection: Any, words: str) -> None:
        """Raise `InvalidOption` if a connection lies in one of the pools."""
        for pool in tuple(self._pools):
            if any(each is connection for each in tuple(self._idle(pool))):
                raise given_back(words)


def given_back(words: str) -> InvalidOption:
    """Return the error for such a connection, of which ``words`` say the kind."""
    return InvalidOption(f"the {words} given as connection= was given back to its pool")
