"""What comes out of the database: tuples of plain values.

The loaders are ours, on a map of our own. So neither what the owner of a connection has
registered on it, nor what the application has registered for all of psycopg, changes a value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types.array import register_array
from psycopg.types.bool import BoolBinaryLoader, BoolLoader
from psycopg.types.datetime import TimestamptzBinaryLoader
from psycopg.types.numeric import (
    Float4BinaryLoader,
    Float8BinaryLoader,
    FloatLoader,
    Int2BinaryLoader,
    Int4BinaryLoader,
    Int8BinaryLoader,
    IntLoader,
    OidBinaryLoader,
)
from psycopg.types.string import (
    ByteaBinaryLoader,
    ByteaLoader,
    TextBinaryLoader,
    TextLoader,
)

from procrastinate.connector import Rows
from procrastinate.connector_tools.moments import moment
from procrastinate_psycopg import driver


class OurTextLoader(TextLoader):
    """Reads a text. Under SQL_ASCII, for which psycopg gives bytes, it is in UTF8 as ours are."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, None if driver.is_ascii(context) else context)


class OurTextBinaryLoader(TextBinaryLoader):
    """The same in the binary format."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, None if driver.is_ascii(context) else context)


class MomentLoader(Loader):
    """Reads a timestamptz in the format of its connection; without one, in ISO format."""

    def load(self, data: bytes | bytearray | memoryview) -> datetime:
        """Return a timestamptz. Raises ValueError for a year that Python does not know."""
        text = str(data, "ascii")
        if text.endswith("infinity"):
            return (datetime.min if text.startswith("-") else datetime.max).replace(tzinfo=UTC)
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            if self.connection is None:
                raise
            pgconn = self.connection.pgconn
            style = driver.reported(pgconn, "DateStyle") or "ISO"
            return moment(text, style=style, zone=driver.reported(pgconn, "TimeZone") or "")


_LOADERS: dict[str, type[Loader]] = {
    "bool": BoolLoader,
    "int2": IntLoader,
    "int4": IntLoader,
    "int8": IntLoader,
    "oid": IntLoader,
    "float4": FloatLoader,
    "float8": FloatLoader,
    "numeric": FloatLoader,
    "text": OurTextLoader,
    "bytea": ByteaLoader,
    "timestamptz": MomentLoader,
}
_BINARY_LOADERS: dict[str, type[Loader]] = {
    "bool": BoolBinaryLoader,
    "int2": Int2BinaryLoader,
    "int4": Int4BinaryLoader,
    "int8": Int8BinaryLoader,
    "oid": OidBinaryLoader,
    "float4": Float4BinaryLoader,
    "float8": Float8BinaryLoader,
    "text": OurTextBinaryLoader,
    "bytea": ByteaBinaryLoader,
    "timestamptz": TimestamptzBinaryLoader,
}
_ANYTHING_ELSE = 0  # the type of psycopg's last resort
#: Have no loader of their own: their elements are texts.
_ARRAYS_OF_TEXTS = ("varchar", "bpchar", "name", "json", "jsonb", "uuid")


def _own_adapters() -> AdaptersMap:
    adapters = AdaptersMap(types=psycopg.adapters.types)
    adapters.register_loader(_ANYTHING_ELSE, OurTextLoader)
    adapters.register_loader(_ANYTHING_ELSE, OurTextBinaryLoader)
    for name, loader in (*_LOADERS.items(), *_BINARY_LOADERS.items()):
        adapters.register_loader(name, loader)
    for name in (*_LOADERS, *_ARRAYS_OF_TEXTS):
        info = adapters.types.get(name)
        assert info is not None
        if info.array_oid:
            register_array(info, adapters)
    return adapters


_ADAPTERS = _own_adapters()


class _Context:
    """A connection, whose encoding counts, with our adapters."""

    def __init__(self, connection: Any) -> None:
        self.adapters = _ADAPTERS
        self.connection = connection


class RowReader:
    """Reads the rows of one connection's results: of ``connection`` unless texts are in UTF8."""

    __slots__ = ("_transformer",)

    def __init__(self, connection: psycopg.BaseConnection[Any] | None = None) -> None:
        self._transformer = Transformer(_Context(connection))

    def rows(self, result: PGresult) -> Rows:
        """Return all rows of a result, ``[]`` if it has none. Raises ValueError, DataError."""
        if result.nfields == 0:
            return [()] * result.ntuples
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)
