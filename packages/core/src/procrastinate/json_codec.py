"""The default JSON encoding of task arguments: strict, compact, and in UTF-8.

Strict means that what PostgreSQL's ``jsonb`` would refuse fails here already: NaN and infinities
are not JSON, and text stays unescaped so that a lone surrogate cannot hide in an escape.
"""

from __future__ import annotations

import json
from typing import Any

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumps(value: Any) -> str:
    """Return ``value`` as JSON text. Raises TypeError or ValueError if that is impossible."""
    return _encoder.encode(value)


def loads(text: str) -> Any:
    """Return the value that a JSON text stands for."""
    return json.loads(text)
