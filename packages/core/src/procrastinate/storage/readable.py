"""Decoding for people who look, and for those who wait: it does not fail."""

from __future__ import annotations

from typing import Any

from procrastinate import json_codec
from procrastinate.model.failure import message_of
from procrastinate.model.job import UnreadableArguments
from procrastinate.storage.rows import Loads


def as_it_can(loads: Loads) -> Loads:
    """Return a function that decodes arguments by ``loads``, and as plain JSON if that refuses.

    PostgreSQL keeps what Python cannot decode: an integer of 5,000 digits, 3,000 nested lists. That
    gives `UnreadableArguments`.
    """

    def decoded(text: str) -> Any:
        try:
            return loads(text)
        except Exception:  # a json_loads of the user's own may raise anything
            pass
        try:
            return json_codec.loads(text)
        except (ValueError, RecursionError) as exc:
            return UnreadableArguments(text, message_of(exc))

    return decoded
