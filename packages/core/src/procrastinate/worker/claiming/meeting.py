"""Endings of jobs with locks that meet a claim, and how that comes to an end.

Lines do not go on beside a claim. If some of them end while a claim for the others is under way or
due, they give their locks up, which asks for the next claim, and the endings of the others meet
that one. Without a wait this lasts until the lines are empty: each of their steps takes three
statements and a claim instead of one statement.

Rules

1. Endings that met a claim `IN_A_ROW` times wait until no claim is under way or due, once. After
   that all lines go on in one message.
2. They do not wait during a backlog, because the next claim follows at once, nor if they are
   many: with 1,000 lines, claims and endings beside each other took two thirds of the CPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

IN_A_ROW = 3  # endings that meet a claim before others wait: it may be by chance
MAY_TAKE = 0.1  # seconds that they wait at most; a slow claim must not hold up what is written


class Meeting:
    """Counts the endings that met a claim, and lets others wait for its answer."""

    def __init__(self) -> None:
        #: Whether a claim was sent and is not answered yet.
        self.claims_now = False
        self._answered = asyncio.Event()
        self._full = True  # whether the last claim brought as many jobs as there was room for
        self._met = 0  # endings in a row

    def sent(self) -> None:
        """Note that a claim is being sent."""
        self.claims_now, self._full = True, True

    def brought(self, *, full: bool) -> None:
        """Note whether a claim brought as many jobs as there was room for."""
        self._full = full

    def ended(self) -> None:
        """Note that the answer of a claim was taken over, or will not come."""
        self.claims_now = False
        self._answered.set()

    def missed(self) -> None:
        """Note that endings have met no claim."""
        self._met = 0

    async def met(self, is_in_the_way: Callable[[], bool]) -> None:
        """Note that endings have met a claim; wait for it if that happens too often (rule 1)."""
        self._met += 1
        if self._met <= IN_A_ROW:
            return
        self._met = 0
        try:
            async with asyncio.timeout(MAY_TAKE):
                while is_in_the_way():
                    self._answered.clear()
                    await self._answered.wait()
                    if self._full:  # rule 2
                        return
        except TimeoutError:
            pass
