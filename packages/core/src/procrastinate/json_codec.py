"""The default JSON encoding of task arguments: strict, compact, and in UTF-8.

Strict means that what PostgreSQL's ``jsonb`` would refuse fails here already: NaN and infinities
are not JSON, and text stays unescaped so that a lone surrogate cannot hide in an escape.
"""

from __future__ import annotations

import json
from json import encoder as encoders
from typing import Any

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _kept_encoder() -> Any:
    """Return what `_encoder` makes anew for each value, or None if this Python has no such thing.

    Making it takes longer than encoding a few arguments. It does not look for circles, so these
    end in a RecursionError.
    """
    make: Any = getattr(encoders, "c_make_encoder", None)
    if make is None:
        return None
    text, separators = encoders.encode_basestring, (":", ",")
    return make(None, _encoder.default, text, None, *separators, False, False, False)


_encode_parts = _kept_encoder()


def dumps(value: Any) -> str:
    """Return ``value`` as JSON text.

    Raises TypeError, ValueError or RecursionError if that is impossible.
    """
    if isinstance(value, str):
        is_plain = type(value) is str and _is_plain(value)  # others may be formatted otherwise
        return f'"{value}"' if is_plain else encoders.encode_basestring(value)
    if _encode_parts is None:
        return _encoder.encode(value)
    return "".join(_encode_parts(value, 0))


#: Changes each byte that does not stand in JSON as it is, and no other of ASCII.
_ESCAPED = bytes.maketrans(bytes([*range(0x20), *b'"\\']), b"?" * 0x22)


def _is_plain(text: str) -> bool:
    """Whether a text of ASCII stands in JSON as it is. To find out takes a third of encoding it.

    A translation that changes nothing returns its object, so that nothing is compared.
    """
    return text.isascii() and (raw := text.encode()).translate(_ESCAPED) == raw


def loads(text: str) -> Any:
    """Return the value that a JSON text stands for."""
    return json.loads(text)
