"""Checks of the size of a pool, and of how long to wait for a connection of it."""

from __future__ import annotations

import math
import threading
from typing import Any

from procrastinate.errors import InvalidOption

#: A worker's connections of a pool: to claim, to write endings, and to LISTEN.
OF_A_WORKER = 3


def check_sizes(*, unlimited: bool = False, least: tuple[str, Any], most: tuple[str, Any]) -> None:
    """Check two numbers of connections, each with the name of its option.

    ``unlimited`` says that a ``most`` of 0 means no limit. Raises `InvalidOption`.
    """
    (low_name, low), (high_name, high) = least, most
    if not is_int(low) or low < 0:
        raise InvalidOption(f"{low_name}={low!r} is not a number of connections (0 or more)")
    if not is_int(high) or (high < max(low, 1) and not (unlimited and high == 0)):
        no_limit = "; 0 is no limit" if unlimited else ""
        raise InvalidOption(
            f"{high_name}={high!r} must be a number, 1 or more, from {low_name} up{no_limit}"
        )


def check_seconds(name: str, value: Any) -> None:
    """Check a number of seconds that a thread can wait for. Raises `InvalidOption`."""
    if not is_number(value) or not 0 <= value <= threading.TIMEOUT_MAX:
        raise InvalidOption(f"{name}={value!r} is not a number of seconds")


def check_room_for_worker(
    size: int | None, owner: str, *, option: str, listens: bool = True
) -> None:
    """Check that a pool or an engine that was handed in has the connections that a worker takes.

    ``size`` is how many it may make, None if that is not limited, and ``option`` what raises it.
    ``listens`` says whether the worker's LISTEN takes one of them too. Raises `InvalidOption`.
    """
    needed = OF_A_WORKER if listens else OF_A_WORKER - 1
    if size is not None and size < needed:
        raise InvalidOption(
            f"{owner} may have {size} connections ({option}), and a worker takes {needed}: raise it"
            f" to {needed} or more"
        )


def is_int(value: Any) -> bool:
    """Return whether it is an int, which True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether it is a finite number, which True and False are not."""
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))
