"""Time limits for what a request asks Django's connections, for the session or the user too.

They are of the thread's connections to PostgreSQL, and leave Django able to connect anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections

from procrastinate.time_limits import TimeLimit
from procrastinate_django import drivers

#: Seconds to make a connection, unless OPTIONS has ``connect_timeout``: drivers wait for minutes.
CONNECT_WITHIN = 9


@contextmanager
def severing_after(seconds: float) -> Iterator[None]:
    """Shut the thread's connections down if a block takes longer than so many seconds.

    What waits for an answer then raises Django's OperationalError or InterfaceError.
    """
    limit = TimeLimit(seconds)
    severed: Any = _Connections(_to_postgresql())  # of a session, only what severs it is asked for
    try:
        with limit.severing() as severing:
            severing.connected(severed)
            yield
    finally:
        limit.end()


@contextmanager
def connecting_within(seconds: int) -> Iterator[None]:
    """Let the thread's connections be made within so many seconds, for the length of a block."""
    with ExitStack() as stack:
        for wrapper in _to_postgresql():
            wrapper.get_connection_params = _with_limit(wrapper.get_connection_params, seconds)
            stack.callback(delattr, wrapper, "get_connection_params")
        yield


def _with_limit(params: Callable[[], dict[str, Any]], seconds: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"connect_timeout": seconds, **params()}


def _to_postgresql() -> list[Any]:
    """Return the thread's connections, made or not. Only this thread can ask for them."""
    return [each for each in connections.all() if each.vendor == "postgresql"]


class _Connections:
    """Connections of Django, as what a time limit severs."""

    def __init__(self, wrappers: list[Any]) -> None:
        self._wrappers = wrappers

    def sever(self) -> None:
        """Shut their sockets down, from any thread."""
        for wrapper in self._wrappers:
            if wrapper.connection is not None:
                drivers.driver().sever(wrapper.connection)
