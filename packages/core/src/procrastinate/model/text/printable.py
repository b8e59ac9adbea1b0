"""Text that came from elsewhere, made safe for a log or a terminal.

A name or a message may hold line breaks and escape sequences. Written as they are, they could
forge lines of a log, or hide some on a terminal. Messages also count things, see `counted`.
"""

from __future__ import annotations

import re
from typing import Any

# C0, DEL and C1 controls, marks that change the direction of text, line separators, surrogates.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
)
_NAME = type.__dict__["__name__"].__get__  # whatever a metaclass says
_UNSAFE_IN_LINE = re.compile(f"[{_UNSAFE}\t\n]")
_UNSAFE_IN_BLOCK = re.compile(f"[{_UNSAFE}]")


def exact(text: str, limit: int) -> str:
    """Return up to ``limit`` characters of a text as a plain ``str``.

    A subclass of ``str`` may override anything, so its own methods are not called.
    """
    return str.__getitem__(text, slice(limit))


def line(text: str, limit: int = 2_000) -> str:
    """Return a text as one line, its control characters escaped and its middle cut out."""
    if str.__len__(text) <= limit and text.isascii() and text.isprintable():
        return text
    return _UNSAFE_IN_LINE.sub(_escaped, cut(text, limit, " … "))


def shown(value: object, limit: int = 200) -> str:
    """Return a value as messages show it: its repr, as one line, cut.

    It never raises, whatever the value's ``__repr__`` does: a message about a value that cannot be
    must not fail because of that value.
    """
    try:
        if type(value) is int and value.bit_length() > 3 * limit:  # Python refuses to print some
            return f"an int of about {value.bit_length() * 3 // 10} digits"
        return line(repr(value), limit)
    except BaseException as broken:
        return f"<{type_of(value)} whose repr() raises {type_of(broken)}>"


def type_of(value: object) -> str:
    """Return the name of a value's class, whatever its metaclass says."""
    return line(_NAME(type(value)), 200)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, of which the plural ends with an s: "1 job", "2,000 jobs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def block(text: str, indent: str = "  ") -> str:
    """Return a text of several lines, escaped and indented: none can pass for a line of a log."""
    return "\n".join(
        f"{indent}{_UNSAFE_IN_BLOCK.sub(_escaped, each)}" for each in text.rstrip().split("\n")
    )


def json_line(text: str) -> str:
    """Return JSON with every control character escaped as JSON escapes it."""
    return _UNSAFE_IN_LINE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def in_ascii(value: Any) -> Any:
    """Return JSON data with escapes in place of what is not ASCII, in all texts but keys."""
    if isinstance(value, str):
        return value.encode("ascii", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: in_ascii(each) for key, each in value.items()}
    return value


def cut(text: str, limit: int, between: str = "\n") -> str:
    """Return a plain text of about ``limit`` characters: what is in the middle is cut out."""
    length = str.__len__(text)
    if length <= limit:
        return text if type(text) is str else exact(text, limit)
    head = limit // 4
    start = str.__getitem__(text, slice(head))
    end = str.__getitem__(text, slice(length - (limit - head), None))
    return f"{start}{between}… {length - limit} characters cut …{between}{end}"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
