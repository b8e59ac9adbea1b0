"""JSON text that PostgreSQL takes as ``jsonb``, and that Python can read again.

Rules

1. The text is looked at, whatever encoder it comes from: one of the user's own may return anything.
2. The value and its encoder may raise anything. `KeyboardInterrupt` alone goes on: a person wants
   the process to end.
3. A reason names the size of a text. It never shows the value, and so no message of an encoder
   either, because many of these quote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from procrastinate import json_codec
from procrastinate.model.text import failure, printable

DEEPEST = 200  # lists and objects in each other: Python reads 1,000 less the caller's own frames
SHORT = 2 * DEEPEST  # characters: half of them at most open something
DIGITS = 4_300  # of a number, written out as PostgreSQL does it: what Python reads of an int
GROWTH = 4  # times its largest size: what a text may have as PostgreSQL prints it

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")
#: Without such a part, no number has more than `DIGITS` digits.
_LONG_NUMBER = re.compile(r"[0-9]{1600}|[eE][+-]?[0-9]{4}")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
#: What Python's encoder says of a value without showing it.
_HARMLESS = re.compile(
    r"Object of type \w+ is not JSON serializable"
    r"|Out of range float values are not JSON compliant"
    r"|keys must be [a-zA-Z, ]+"
    r"|Exceeds the limit \([0-9]+ digits\)"
)


#: Stands in no JSON: a control character is neither white space there nor part of a string.
SEPARATOR = "\x1e"


def joined(texts: Sequence[str | None]) -> str | None:
    """Return JSON texts as one text, in which none is an empty text; None if all are none."""
    if None not in texts:
        return SEPARATOR.join(texts)  # type: ignore[arg-type]
    return SEPARATOR.join([text or "" for text in texts]) if any(texts) else None


def parted(text: str) -> list[str | None]:
    """Return what `joined` has made one text of."""
    return [part or None for part in text.split(SEPARATOR)]


class Unfit(Exception):
    """A value has no text that can be kept. The message says what it is or has (rule 3)."""


def checked_text(value: Any, dumps: Callable[[Any], str], *, largest: int) -> str:
    """Return a value as JSON of at most ``largest`` bytes in UTF-8. Raises `Unfit`."""
    try:
        text = dumps(value)
        if dumps is json_codec.dumps and len(text) <= SHORT and "\\" not in text and text.isascii():
            # Most are short and plain. There are neither brackets enough to be too deep nor digits
            # enough to be too long a number.
            return text
        return _checked(text, largest)
    except (KeyboardInterrupt, Unfit):
        raise
    except BaseException as exc:
        raise Unfit(f"encoding it raised {_told(exc)}") from None


def _told(exc: BaseException) -> str:
    name = printable.line(failure.type_name(exc))
    said = _HARMLESS.match(failure.message_of(exc))
    return f"{name}: {said[0]}" if said else name


def _checked(text: Any, largest: int) -> str:
    """Return the text as a plain ``str``. Raises `Unfit`."""
    if not isinstance(text, str):
        raise Unfit(f"json_dumps returned {printable.type_of(text)}, not str")
    plain: str = str.__str__(text)  # a subclass may override whatever is asked of it
    _check_size(plain, largest)
    if "\\u0000" in plain and _NUL.search(plain):
        raise Unfit("it has a NUL character, which PostgreSQL cannot store")
    _check_depth(plain)
    _check_content(plain, largest)
    return plain


def _check_size(text: str, largest: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _lone_surrogate() from None
    if size > largest:
        raise Unfit(f"it is {size:,} bytes of JSON, and {largest:,} is the limit")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            raise Unfit(f"its lists and objects are more than {DEEPEST} levels deep")


def _check_content(text: str, largest: int) -> None:
    is_long = _LONG_NUMBER.search(text)
    found: list[str] = []  # the numbers that have a fraction or an exponent
    hooks: dict[str, Any] = {"parse_constant": _no_number, "parse_float": found.append}
    if is_long:
        hooks["parse_int"] = _check_digits
    try:
        json.loads(text, **hooks)
    except (ValueError, RecursionError):
        raise Unfit(f"json_dumps returned {len(text):,} characters that are not JSON") from None
    if is_long:
        for number in found:
            _check_digits(number)
    _check_printed_size(text, found, largest * GROWTH)
    if _SURROGATE.search(text):
        _check_surrogates(text)


def _check_printed_size(text: str, numbers: Sequence[str], largest: int) -> None:
    """Look at what PostgreSQL prints, which is numbers without exponents: 309 digits of 1e308.

    To read many of them takes seconds, and holds up what else the process waits for.
    """
    exponents = _EXPONENT.findall(" ".join(numbers))
    size = len(text) + sum(map(_zeros, exponents))
    if size > largest:
        raise Unfit(f"it is {size:,} characters without exponents, and {largest:,} is the limit")


def _check_surrogates(text: str) -> None:
    """Look at each string of a text, because the value lacks what keys that come twice had."""
    try:
        for string in filter(_SURROGATE.search, _STRING.findall(text)):
            json.loads(string).encode()
    except UnicodeEncodeError:
        raise _lone_surrogate() from None


def _no_number(name: str) -> NoReturn:
    raise Unfit(f"it has the number {name}, which is not JSON")


def _check_digits(text: str) -> None:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) + _zeros(exponent) > DIGITS:
        raise Unfit(f"it has a number of more than {DIGITS:,} digits")


def _zeros(exponent: str) -> int:
    """Return how many digits an exponent stands for. It may begin with many zeros itself."""
    return int(exponent.lstrip("+-0")[:20] or 0)


def _lone_surrogate() -> Unfit:
    return Unfit("it has half of a surrogate pair, which is no character")
