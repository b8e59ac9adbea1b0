"""A claimed job that has not begun, with the claim that brought it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from procrastinate.model.job import Job


class Asked(NamedTuple):
    """When a claim was sent and answered. ``sent_at`` is on the clock of the worker's trust."""

    sent_at: float
    answered_at: float


#: A job that waits, and the claim that brought it.
Claimed: TypeAlias = tuple[Job, Asked]
