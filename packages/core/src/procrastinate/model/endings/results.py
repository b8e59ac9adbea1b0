"""What becomes of a job whose task keeps results and returned a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procrastinate import json_codec
from procrastinate.model.endings.outcome import Finished
from procrastinate.model.job import Status
from procrastinate.model.text.json_text import Unfit, checked_text
from procrastinate.model.text.printable import type_of

LARGEST = 256 * 1024  # bytes of UTF-8

_SUCCEEDED = Status.SUCCEEDED  # looking a member up in its class takes a call before Python 3.12
#: Of all attempts that returned None, if our own encoder is used.
RETURNED_NOTHING = Finished(_SUCCEEDED, result="null")


def success_with(value: Any, dumps: Callable[[Any], str]) -> Finished:
    """Return the ending of an attempt that returned this value.

    It has the value as JSON, or a sentence that says why there is none: with the type and the size
    of the value, and never the value itself. ``dumps``, the ``json_dumps`` of the app's connector,
    may do anything: of what it raises only `KeyboardInterrupt` goes on.
    """
    if value is None and dumps is json_codec.dumps:  # as many tasks do
        return RETURNED_NOTHING
    try:
        return Finished(_SUCCEEDED, None, checked_text(value, dumps, largest=LARGEST))
    except Unfit as exc:
        why = f"the result of type {type_of(value)} is not kept: {exc}"
        return Finished(_SUCCEEDED, result_error=why)
