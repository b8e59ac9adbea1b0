"""Which event loop a connector, or a connection, belongs to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from procrastinate.connector_tools import forks
from procrastinate.errors import AppNotOpen, ConfigurationError, InvalidOption


class Closable(Protocol):
    """A source of sessions that a connector has opened."""

    def close(self) -> None:
        """Close what is the connector's own, at once."""


S = TypeVar("S", bound=Closable)


class Opened(Generic[S]):
    """What an asynchronous connector has open: of one event loop, in one process.

    ``leave`` lets go of a source whose event loop has ended. One of the process that this one was
    forked from is left to that.
    """

    __slots__ = ("_leave", "_loop", "_process", "given", "source")

    def __init__(self, leave: Callable[[S], None]) -> None:
        #: Where sessions take their connections; None: the connector is not open.
        self.source: S | None = None
        #: The pool or engine that the application has handed in, if it has.
        self.given: Any = None
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was opened in this process, and not in the one forked from."""
        return self._process == os.getpid()

    def here(self) -> S:
        """Return the source.

        Raises `AppNotOpen`, and `ConfigurationError` in another event loop or process.
        """
        source = self.source
        if source is None:
            raise AppNotOpen("the connector is not open: call open_async() first")
        if self._loop is not asyncio.get_running_loop() or not self.is_of_this_process:
            raise ConfigurationError(
                "the connector was opened in another event loop or process: open_async() it in"
                " this one"
            )
        return source

    def is_already(self, given: Any, kind: str) -> bool:
        """Return whether the connector is open, to begin with in ``open_async(given)``.

        Raises `InvalidOption` if it is open with another pool or engine, which ``kind`` says, and
        `ConfigurationError` if it is open in another event loop that still runs.
        """
        self._leave_ended()
        if self.source is None:
            return False
        if given is not None and given is not self.given:
            raise InvalidOption(f"the connector is open already, with another {kind}: close it")
        return True

    async def begin(self, source: S, first: Awaitable[Any], given: Any = None) -> None:
        """Be open with a source. If what is awaited first raises, it is closed, and so are we."""
        self.source, self.given = source, given
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        try:
            await first
        except BaseException:
            source.close()
            if self.source is source:
                self.forget()
            raise

    def end(self) -> S | None:
        """Be closed, and return the source to close.

        Raises `ConfigurationError` if the connector is open in another event loop that still runs.
        """
        self._leave_ended()
        return self.forget()

    def _leave_ended(self) -> None:
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop():
            return
        if self.is_of_this_process and loop.is_running():
            raise ConfigurationError(
                "the connector is open in another event loop that still runs: close it there, or"
                " give each event loop a connector of its own"
            )
        source, is_ours = self.forget(), self.is_of_this_process
        if source is not None and is_ours:
            self._leave(source)
        elif source is not None:
            forks.leave_to_parent(source)

    def forget(self) -> S | None:
        """Be closed, and return what was open, wherever that was."""
        source, self.source = self.source, None
        self.given = self._loop = None
        return source


def is_elsewhere(made_in: asyncio.AbstractEventLoop | None) -> bool:
    """Return whether something was made in another event loop than the running one.

    False if either is not known.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:  # nothing is awaited yet
        return False
    return made_in is not None and made_in is not running


def check_loop(made_in: asyncio.AbstractEventLoop | None, words: str) -> None:
    """Refuse a caller's connection that was made in another event loop than the running one.

    Its answers would come in that loop, after the statement was executed. Raises `InvalidOption`.
    """
    if is_elsewhere(made_in):
        raise InvalidOption(
            f"the {words} given as connection= was made in another event loop: give one that was"
            " made in the loop that runs now"
        )
