"""What a task returned, as the JSON text that is kept.

Rules

1. What is kept can be read back: PostgreSQL takes it as ``jsonb``, and Python's ``json`` decodes
   what PostgreSQL makes of it. So the text is looked at, whatever encoder it comes from.
2. The value and its encoder may be the user's own and raise anything. That costs the result only.
   `KeyboardInterrupt` alone goes on: somebody wants the process to end.
3. A reason names the type of the value and its size. It never shows the value, and so no message of
   an encoder either, because many of these quote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from procrastinate import json_codec
from procrastinate.model import failure, printable

LARGEST = 256 * 1024  # bytes of UTF-8
DEEPEST = 500  # lists and objects in each other: Python reads 1,000 less the caller's own frames
DIGITS = 4_300  # of a number, written out as PostgreSQL does it: what Python reads of an int

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")
#: Without such a part, no number has more than `DIGITS` digits.
_LONG_NUMBER = re.compile(r"[0-9]{1600}|[eE][+-]?[0-9]{4}")
#: What Python's encoder says of a value without showing it.
_HARMLESS = re.compile(
    r"Object of type \w+ is not JSON serializable"
    r"|Out of range float values are not JSON compliant"
    r"|keys must be [a-zA-Z, ]+"
    r"|Exceeds the limit \([0-9]+ digits\)"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The JSON text of a result, or a sentence that says why there is none."""

    text: str | None = None
    error: str | None = None


class _Unfit(Exception):
    """The text cannot be kept; its one argument says what it is or has."""


def encode(value: Any, dumps: Callable[[Any], str]) -> Kept:
    """Return what is kept of a value that a task returned (rules 1 to 3).

    ``dumps`` is the ``json_dumps`` of the app's connector.
    """
    try:
        text = dumps(value)
        if dumps is json_codec.dumps and _is_plainly_fit(text):
            return Kept(text)
        return Kept(_checked(text))
    except KeyboardInterrupt:
        raise
    except _Unfit as exc:
        return _not_kept(value, exc.args[0])
    except BaseException as exc:
        return _not_kept(value, f"encoding it raised {_told(exc)}")


def _not_kept(value: Any, why: str) -> Kept:
    return Kept(error=f"the result of type {printable.type_of(value)} is not kept: {why}")


def _told(exc: BaseException) -> str:
    name = printable.line(failure.type_name(exc))
    said = _HARMLESS.match(failure.message_of(exc))
    return f"{name}: {said[0]}" if said else name


def _is_plainly_fit(text: str) -> bool:
    """Whether a text of our own encoder needs no further look. Most results are short."""
    return (
        len(text) <= DIGITS
        and text.isascii()
        and "\\u0000" not in text
        and text.count("[") + text.count("{") <= DEEPEST
    )


def _checked(text: Any) -> str:
    """Return the text as a plain ``str``. Raises `_Unfit`."""
    if not isinstance(text, str):
        raise _Unfit(f"json_dumps returned {printable.type_of(text)}, not str")
    plain: str = str.__str__(text)  # a subclass may override whatever is asked of it
    _check_size(plain)
    if "\\u0000" in plain and _NUL.search(plain):
        raise _Unfit("it has a NUL character, which PostgreSQL cannot store")
    _check_depth(plain)
    _check_content(plain)
    return plain


def _check_size(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _lone_surrogate() from None
    if size > LARGEST:
        raise _Unfit(f"it is {size:,} bytes of JSON, and {LARGEST:,} is the limit")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            raise _Unfit(f"its lists and objects are more than {DEEPEST} levels deep")


def _check_content(text: str) -> None:
    hooks: dict[str, Any] = {"parse_constant": _no_number}
    if _LONG_NUMBER.search(text):
        hooks |= {"parse_int": _short_number, "parse_float": _short_number}
    try:
        value = json.loads(text, **hooks)
    except (ValueError, RecursionError):
        raise _Unfit(f"json_dumps returned {len(text):,} characters that are not JSON") from None
    if _SURROGATE.search(text):
        try:
            json_codec.dumps(value).encode()
        except UnicodeEncodeError:
            raise _lone_surrogate() from None


def _no_number(name: str) -> NoReturn:
    raise _Unfit(f"it has the number {name}, which is not JSON")


def _short_number(text: str) -> int:
    mantissa, _, exponent = text.lower().partition("e")
    zeros = abs(int(exponent[:20])) if exponent else 0
    if len(mantissa) + zeros > DIGITS:
        raise _Unfit(f"it has a number of more than {DIGITS:,} digits")
    return 0  # the value is not needed


def _lone_surrogate() -> _Unfit:
    return _Unfit("it has half of a surrogate pair, which is no character")
