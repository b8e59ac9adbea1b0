"""A brake on guessed passwords.

Rules

1. An address that has sent `MOST_GUESSES` wrong passwords is refused for the rest of a minute, the
   right one too. For IPv6 an address is a network of 64 bits: a machine has all of its addresses.
2. After `MOST_IN_ALL` wrong ones from anywhere, only addresses that have logged in before are
   served for the rest of the minute: many addresses are no way around rule 1.
3. A wrong password that is sent again is not another guess: a page that was open before the
   password was changed asks with the old one every two seconds.
4. What is kept is bounded: rule 2 bounds the addresses with wrong passwords, and `MOST_KNOWN` those
   that have logged in.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW = 60.0  # seconds
MOST_GUESSES = 5
MOST_IN_ALL = 100
MOST_KNOWN = 200


@dataclass
class _Guesses:
    """The wrong passwords of a window, as digests."""

    until: float
    seen: set[bytes] = field(default_factory=set)


class Brake:
    """Counts wrong passwords, and says who has to wait. Any thread may ask it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._guesses: dict[str, _Guesses] = {}
        self._known: dict[str, None] = {}
        self._in_all = 0
        self._all_until = 0.0

    def wait(self, address: str) -> float:
        """Return for how many seconds an address is refused: 0 if it is not."""
        key = network_of(address)
        with self._lock:
            now = self._clock()
            self._forget(now)
            guesses = self._guesses.get(key)
            if guesses is not None and len(guesses.seen) >= MOST_GUESSES:  # rule 1
                return guesses.until - now
            if self._in_all >= MOST_IN_ALL and key not in self._known:  # rule 2
                return self._all_until - now
            return 0.0

    def wrong(self, address: str, guess: bytes) -> int:
        """Count a wrong password, known by its digest; return how many it was of this address.

        Returns 0 if the address has sent it already (rule 3).
        """
        key = network_of(address)
        with self._lock:
            now = self._clock()
            self._forget(now)
            guesses = self._guesses.setdefault(key, _Guesses(now + WINDOW))
            if guess in guesses.seen:
                return 0
            guesses.seen.add(guess)
            self._in_all += 1
            return len(guesses.seen)

    def right(self, address: str) -> None:
        """Note that an address has logged in."""
        key = network_of(address)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = None
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]

    def _forget(self, now: float) -> None:
        if now >= self._all_until:
            self._in_all, self._all_until = 0, now + WINDOW
        for key in [key for key, each in self._guesses.items() if each.until <= now]:
            del self._guesses[key]


def network_of(address: str) -> str:
    """Return what counts as one address (rule 1)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
