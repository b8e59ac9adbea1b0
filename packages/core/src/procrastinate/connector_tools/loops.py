"""Which event loop a connection belongs to."""

from __future__ import annotations

import asyncio

from procrastinate.errors import InvalidOption


def check_loop(made_in: asyncio.AbstractEventLoop | None, words: str) -> None:
    """Refuse a caller's connection that was made in another event loop than the running one.

    Its answers would come in that loop, after the statement was executed. Raises `InvalidOption`.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:  # nothing is awaited yet
        return
    if made_in is not None and made_in is not running:
        raise InvalidOption(
            f"the {words} given as connection= was made in another event loop: give one that was"
            " made in the loop that runs now"
        )
