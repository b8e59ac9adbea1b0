"""Our values on a caller's asyncpg connection, for connectors over asyncpg.

Rules

1. asyncpg reads and writes values by the connection's codecs, which its owner may have changed
   (``set_type_codec``). An owner's ``int8`` as text, for instance, would change the ids of jobs.
2. JSON goes as text in both directions, because an owner's codec would encode it twice.
3. asyncpg can leave changed codecs out, but not by a public method, and not for the elements of
   arrays. So a connection without them is used by its public methods only, which tracing tools
   replace.

It imports no driver: a connection is whatever it is given.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from procrastinate.connector_tools.arrays import array_text

_JSON = re.compile(r"(\$\d+)::(jsonb?)\b")
_ARRAY = re.compile(r"(\$\d+)::(\w+\[\])")
#: The types of our values and rows by their numbers, which are the same in every database. JSON is
#: not one of them (rule 2). An array has the codec of its elements.
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


@functools.lru_cache(maxsize=1024)  # a cluster has many texts
def with_json_as_text(sql: str) -> str:
    """Return a text with ``$1, $2, ...`` that takes JSON as text (rule 2)."""
    return _JSON.sub(r"\1::text::\2", sql)


def has_changed_codecs(connection: Any) -> bool:
    """Return whether the owner has changed a codec that our statements would use."""
    if connection.is_closed():
        return False  # whatever is sent will say so
    codec_of = connection.get_settings().get_data_codec
    if not _usual:
        _usual.extend((oid, codec_of(oid, ignore_custom_codec=True)) for oid in _TYPES.values())
    return any(codec_of(oid) is not usual for oid, usual in _usual)


def is_refused_value(exc: Any) -> bool:
    """Return whether asyncpg itself raised a DataError of its own: the server says how severe."""
    return exc.__cause__ is not None and vars(exc).get("severity") is None


def without_value(exc: Exception) -> Exception:
    """Return what is wrong with a value that asyncpg refused, and take the value out of its error.

    asyncpg's message repeats the value, and a traceback shows it as the cause of ours.
    """
    cause = exc.__cause__
    exc.args = (f"a value cannot be sent: {cause}",)
    return cause if isinstance(cause, Exception) else exc


def _changed(connection: Any) -> str:
    codec_of = connection.get_settings().get_data_codec
    usual = dict(_usual)
    return ", ".join(name for name, oid in _TYPES.items() if codec_of(oid) is not usual[oid])


async def fetch_by_usual_codecs(
    connection: Any, sql: str, values: Sequence[Any], *, record_class: Any = None
) -> Sequence[Any]:
    """Fetch records by asyncpg's own codecs, on a connection that `has_changed_codecs`.

    ``record_class`` is theirs; None: the connection's own. Raises ValueError for a record with an
    array, whose elements asyncpg reads by the owner's codecs.
    """
    sql = _ARRAY.sub(r"\1::text::\2", sql)
    values = [array_text(each) if isinstance(each, list | tuple) else each for each in values]
    options = {} if record_class is None else {"record_class": record_class}
    real: Any = getattr(connection, "_con", connection)  # of a pool's proxy
    records: Sequence[Any] = await real._execute(
        sql, values, 0, None, ignore_custom_codec=True, **options
    )
    if any(isinstance(value, list) for record in records for value in record.values()):
        raise ValueError(
            f"arrays cannot be read on a connection with codecs for {_changed(connection)}: use one"
            " without them"
        )
    return records
