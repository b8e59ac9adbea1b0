"""Decoding for people who look, and for those who wait: it does not fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from procrastinate import json_codec
from procrastinate.model.job import UnreadableArguments
from procrastinate.model.text.failure import message_of

if TYPE_CHECKING:
    from procrastinate.storage.rows import Loads


class AsItCan:
    """A function that decodes arguments by ``strict``, and as plain JSON if that refuses.

    PostgreSQL keeps what Python cannot decode: an integer of 5,000 digits, 3,000 nested lists. That
    gives `UnreadableArguments`.
    """

    def __init__(self, strict: Loads) -> None:
        self.strict = strict

    def __call__(self, text: str) -> Any:
        """Return what a JSON text says."""
        try:
            return self.strict(text)
        except Exception:  # a json_loads of the user's own may raise anything
            pass
        try:
            return json_codec.loads(text)
        except (ValueError, RecursionError) as exc:
            return UnreadableArguments(text, message_of(exc))


def as_it_can(loads: Loads) -> Loads:
    """Return a function that decodes arguments, and does not fail."""
    return AsItCan(loads)


def for_results(loads: Loads) -> Loads:
    """Return the function for a task's result, which is an error by name if that fails.

    Who waits for a value of some type must not get the plain JSON of it.
    """
    return loads.strict if isinstance(loads, AsItCan) else loads
