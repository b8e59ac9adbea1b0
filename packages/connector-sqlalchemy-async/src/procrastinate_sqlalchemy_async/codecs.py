"""Types that the owner of an asyncpg connection has given other codecs (``set_type_codec``).

asyncpg reads and writes values by the connection's codecs. So an owner's ``int8`` as text, for
instance, would change the ids of jobs. asyncpg can leave such codecs out, but not by a public
method, and not for the elements of arrays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import asyncpg

from procrastinate.connector_tools.arrays import array_text

#: The numbers of the types of our values and rows: bool, bytea, int8, int2, int4, text, oid,
#: float4, float8, timestamptz, numeric, regclass. JSON is not one of them, as it travels as text.
_TYPES = (16, 17, 20, 21, 23, 25, 26, 700, 701, 1184, 1700, 2205)
_ARRAY = re.compile(r"(\$\d+)::(\w+\[\])")
_usual: list[tuple[int, Any]] = []  # asyncpg's own codecs, which all connections share


def are_changed(raw: asyncpg.Connection[Any]) -> bool:
    """Return whether the owner has changed a codec that our statements would use."""
    if raw.is_closed():
        return False  # whatever is sent will say so
    codec_of: Any = raw.get_settings().get_data_codec
    if not _usual:
        _usual.extend((oid, codec_of(oid, ignore_custom_codec=True)) for oid in _TYPES)
    return any(codec_of(oid) is not usual for oid, usual in _usual)


async def fetch_without(raw: asyncpg.Connection[Any], sql: str, values: Sequence[Any]) -> Any:
    """Fetch rows by asyncpg's own codecs. Raises ValueError for a row with an array."""
    sql = _ARRAY.sub(r"\1::text::\2", sql)
    values = [array_text(each) if isinstance(each, list | tuple) else each for each in values]
    real: Any = raw
    records = await real._execute(sql, values, 0, None, ignore_custom_codec=True)
    if any(isinstance(value, list) for record in records for value in record.values()):
        raise ValueError("arrays cannot be read on a connection with codecs of its owner's")
    return records
