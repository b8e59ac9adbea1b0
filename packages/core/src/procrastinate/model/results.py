"""What a task returned, as the JSON text that is kept, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from procrastinate.model.json_text import Unfit, checked_text
from procrastinate.model.printable import type_of

LARGEST = 256 * 1024  # bytes of UTF-8


@dataclass(frozen=True, slots=True)
class Kept:
    """The JSON text of a result, or a sentence that says why there is none."""

    text: str | None = None
    error: str | None = None


def encode(value: Any, dumps: Callable[[Any], str]) -> Kept:
    """Return what is kept of a value that a task returned. Raises nothing but `KeyboardInterrupt`.

    ``dumps`` is the ``json_dumps`` of the app's connector.
    """
    try:
        return Kept(checked_text(value, dumps, largest=LARGEST))
    except Unfit as exc:
        return Kept(error=f"the result of type {type_of(value)} is not kept: {exc}")
