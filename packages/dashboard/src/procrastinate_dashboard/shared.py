"""What the database answered, shared by all tabs and users that ask for the same just now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from procrastinate.errors import ConnectorException

T = TypeVar("T")

LASTS = 1.0  # seconds
#: An answer that took long lasts longer, so that a question keeps the database busy for a
#: twentieth of the time at most, however many tabs ask it; but not above `LONGEST`, for what took
#: long may be the network.
TIMES_AS_LONG = 19
LONGEST = 20.0  # seconds
#: Seconds to wait for an answer that another request has asked for.
PATIENCE = 10.0
#: Seconds that an error lasts at most, so that pages come back soon after the database does.
ERROR_LASTS = 5.0
MOST_ENTRIES = 200


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = float("-inf")
    value: Any = None
    error: Exception | None = None


class NoAnswer(Exception):
    """The database has not answered in time."""


class Shared:
    """Answers by key. One who asks while a question is under way waits for its answer.

    If that takes longer than it has patience, the question is given up, and the next one asks anew:
    a connection that hangs may do so for hours.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable, read: Callable[[], T], patience: float = PATIENCE) -> T:
        """Return the answer to a question, read now or a moment ago; or raise as it did.

        Raises `NoAnswer` if another one has asked it, and gets none within ``patience`` seconds.
        """
        entry = self._entry(key)
        if not entry.lock.acquire(timeout=patience):
            self._give_up(key, entry)
            raise NoAnswer
        try:
            if self._clock() >= entry.until:
                self._read(entry, read)
            if entry.error is not None:
                raise entry.error.with_traceback(None)
            return cast("T", entry.value)
        finally:
            entry.lock.release()

    def _give_up(self, key: Hashable, entry: _Entry) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]

    def forget(self) -> None:
        """Forget all answers, because something was changed."""
        with self._lock:
            self._entries.clear()

    def _entry(self, key: Hashable) -> _Entry:
        with self._lock:
            if key not in self._entries:
                self._forget_what_is_over()
            return self._entries.setdefault(key, _Entry())

    def _forget_what_is_over(self) -> None:
        """Drop answers that no request will be given: one with large arguments may be megabytes."""
        now = self._clock()
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.until > now or entry.lock.locked()
        }
        if len(self._entries) >= MOST_ENTRIES:
            self._entries.clear()

    def _read(self, entry: _Entry, read: Callable[[], Any]) -> None:
        begun = self._clock()
        entry.value = entry.error = None
        try:
            entry.value = read()
        except Exception as exc:  # those who wait would only run into it one after the other
            entry.error = exc
        ended = self._clock()
        lasts = min(max(LASTS, TIMES_AS_LONG * (ended - begun)), _longest(entry.error))
        entry.until = ended + lasts


def _longest(error: Exception | None) -> float:
    """Return for how many seconds an answer may be shared. None at all keeps no server busy."""
    if error is None:
        return LONGEST
    return LASTS if is_no_answer(error) else ERROR_LASTS


def is_no_answer(error: Exception) -> bool:
    """Whether an error says that nothing came from the server, which gives its own a code."""
    return isinstance(error, ConnectorException) and error.sqlstate is None
