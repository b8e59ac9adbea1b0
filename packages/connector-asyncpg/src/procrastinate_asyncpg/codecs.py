"""Types that a connection's owner has given other codecs (``set_type_codec``).

asyncpg reads and writes values by the connection's codecs. So an owner's ``int8`` as text, for
instance, would change the ids of jobs. asyncpg can leave such codecs out, but not by a public
method, and not for the elements of arrays. A connection without them is used by its public methods
only, which tracing tools replace.
"""

from __future__ import annotations

import re
from typing import Any

import asyncpg

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.arrays import array_text
from procrastinate_asyncpg.kinds import Connection
from procrastinate_asyncpg.statements import prepared, rows_of

_ARRAY = re.compile(r"(\$\d+)::(\w+\[\])")

#: The types of our values and rows by their numbers, which are the same in every database. JSON is
#: not one of them, because it travels as text. An array has the codec of its elements.
_TYPES = {
    "bool": 16,
    "bytea": 17,
    "int8": 20,
    "int2": 21,
    "int4": 23,
    "text": 25,
    "oid": 26,
    "float4": 700,
    "float8": 701,
    "timestamptz": 1184,
    "numeric": 1700,
    "regclass": 2205,
}
_usual: list[tuple[int, Any]] = []  # asyncpg's own codecs, which all connections share


def are_changed(connection: Connection) -> bool:
    """Return whether the owner has changed a codec that our statements would use."""
    if connection.is_closed():
        return False  # whatever is sent will say so
    codec_of = connection.get_settings().get_data_codec
    if not _usual:
        _usual.extend((oid, codec_of(oid, ignore_custom_codec=True)) for oid in _TYPES.values())
    return any(codec_of(oid) is not usual for oid, usual in _usual)


def _changed(connection: Connection) -> str:
    codec_of = connection.get_settings().get_data_codec
    usual = dict(_usual)
    return ", ".join(name for name, oid in _TYPES.items() if codec_of(oid) is not usual[oid])


async def fetch_without(connection: Connection, query: Query) -> Rows:
    """Fetch the rows of a query by asyncpg's own codecs.

    Raises ValueError for a row with an array: asyncpg reads its elements by the owner's.
    """
    sql, values = prepared(query)
    sql = _ARRAY.sub(r"\1::text::\2", sql)
    values = [array_text(each) if isinstance(each, list | tuple) else each for each in values]
    real: Any = getattr(connection, "_con", connection)  # of a pool's proxy
    rows = rows_of(
        await real._execute(
            sql, values, 0, None, ignore_custom_codec=True, record_class=asyncpg.Record
        )
    )
    if any(isinstance(value, list) for row in rows for value in row):
        raise ValueError(
            f"arrays cannot be read on a connection with codecs for {_changed(connection)}: use one"
            " without them"
        )
    return rows
