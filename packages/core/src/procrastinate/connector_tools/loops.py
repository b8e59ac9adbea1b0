"""Which event loop a connector, or a connection, belongs to."""

from __future__ import annotations

import asyncio
import os

from procrastinate.errors import ConfigurationError, InvalidOption


class Home:
    """The event loop, and the process, in which an asynchronous connector was opened."""

    __slots__ = ("_loop", "_process")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # None: it is not open
        self._process = 0

    def settle(self) -> None:
        """Note that the connector is opened in the running loop."""
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()

    def leave(self) -> None:
        """Note that the connector is closed."""
        self._loop = None

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was opened in this process, and not in the one forked from."""
        return self._process == os.getpid()

    def has_ended(self) -> bool:
        """Return whether it was opened in a loop that has ended, or in the process forked from.

        Raises `ConfigurationError` if that is another loop which still runs.
        """
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop():
            return False
        if self.is_of_this_process and loop.is_running():
            raise ConfigurationError(
                "the connector is open in another event loop that still runs: close it there, or"
                " give each event loop a connector of its own"
            )
        return True

    def check(self) -> None:
        """Raise `ConfigurationError` unless it was opened in the running loop, in this process."""
        if self._loop is not asyncio.get_running_loop() or not self.is_of_this_process:
            raise ConfigurationError(
                "the connector was opened in another event loop or process: open_async() it in"
                " this one"
            )


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
