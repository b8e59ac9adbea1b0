"""Our values on a caller's psycopg connection, for connectors over psycopg 3.

The owner of a connection, and the application for all of psycopg, may register other loaders and
dumpers for the types that we send and read. So a cursor of ours gets these loaders, and values go
in forms for which psycopg has no choice: the placeholders' casts say what they are.

It imports no driver: a connection, or a map of adapters, is whatever it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from procrastinate.connector import Rows
from procrastinate.connector_tools.arrays import array_text
from procrastinate.connector_tools.moments import moment

_TEXT_FORMAT = 0
#: Has `_Moment` read timestamptz, whatever format its owner has chosen.
ISO = "SET LOCAL datestyle = 'ISO';"


class _Loader:
    """Reads values of one type in text format, as psycopg's own loaders do."""

    format = _TEXT_FORMAT

    def __init__(self, oid: int, context: Any = None) -> None:
        """``context`` is psycopg's: a connection, or what knows its connection."""

    def load(self, data: Any) -> Any:
        raise NotImplementedError


class _Bool(_Loader):
    def load(self, data: Any) -> bool:
        return bytes(data) == b"t"


class _Int(_Loader):
    def load(self, data: Any) -> int:
        return int(bytes(data))


class _Float(_Loader):
    def load(self, data: Any) -> float:
        return float(bytes(data))


class _Text(_Loader):
    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        connection = getattr(context, "connection", None)
        self._encoding = "utf-8" if connection is None else connection.info.encoding
        if self._encoding == "ascii":  # SQL_ASCII: nothing is converted, and our texts are in UTF8
            self._encoding = "utf-8"

    def load(self, data: Any) -> str:
        return bytes(data).decode(self._encoding)


class _Moment(_Loader):
    """Of a timestamptz; without a connection, in ISO format (`ISO`)."""

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        connection = getattr(context, "connection", None)
        self._style = "ISO" if connection is None else reported(connection, "DateStyle") or "ISO"
        self._zone = "" if connection is None else reported(connection, "TimeZone") or ""

    def load(self, data: Any) -> datetime:
        text = bytes(data).decode()
        if text.endswith("infinity"):
            return (datetime.min if text.startswith("-") else datetime.max).replace(tzinfo=UTC)
        return moment(text, style=self._style, zone=self._zone)


#: Types by their numbers, which are the same in every database, and what reads them.
_LOADERS: Mapping[int, type[_Loader]] = {
    16: _Bool,
    20: _Int,  # int8
    21: _Int,  # int2
    23: _Int,  # int4
    25: _Text,
    701: _Float,  # float8
    1184: _Moment,  # timestamptz
    1700: _Float,  # numeric
}
#: psycopg's own loaders of types whose values we do not convert. Its C build has classes of the
#: same names.
_USUAL: Mapping[int, str] = {
    16: "BoolLoader",
    20: "IntLoader",
    21: "IntLoader",
    23: "IntLoader",
    25: "TextLoader",
    701: "FloatLoader",
    1184: "TimestamptzLoader",
}


def read_plain_values(context: Any) -> None:
    """Have a cursor, or what has ``adapters``, give plain values, whatever is registered there."""
    for oid, loader in _LOADERS.items():
        context.adapters.register_loader(oid, loader)


class PlainRows:
    """Reads results whose texts are in UTF8 as plain values.

    The loaders are registered once. On each cursor that took longer than to send a query and to
    read its rows. ``adapt`` is the module ``psycopg.adapt``, and ``adapters`` psycopg's own map.
    """

    #: As psycopg asks a context: without a connection, texts are in UTF8.
    connection = None

    def __init__(self, adapt: Any, adapters: Any) -> None:
        self.adapters = adapt.AdaptersMap(adapters)
        self._transformer = adapt.Transformer
        read_plain_values(self)

    def of(self, result: Any) -> Rows:
        """Return all rows of psycopg's result, ``[]`` if it has none."""
        if result is None or result.nfields == 0:
            return []
        transformer = self._transformer(self)
        transformer.set_pgresult(result)
        rows: Rows = transformer.load_rows(0, result.ntuples, tuple)
        return rows


def has_other_loaders(connection: Any) -> bool:
    """Return whether the owner of a connection has changed how our rows would be read.

    psycopg's own loaders read no other DateStyle than ISO, and give bytes under SQL_ASCII.
    """
    if reported(connection, "client_encoding") == "SQL_ASCII":
        return True
    if not (reported(connection, "DateStyle") or "ISO").startswith("ISO"):
        return True
    get_loader = connection.adapters.get_loader
    return any(
        getattr(get_loader(oid, _TEXT_FORMAT), "__name__", None) != usual
        for oid, usual in _USUAL.items()
    )


def reported(connection: Any, setting: str) -> str | None:
    """Return what the server reports of one of its settings, None if it does not."""
    value = None if connection.closed else connection.pgconn.parameter_status(setting.encode())
    return None if value is None else value.decode()


def adapted(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in a form whose type the placeholder's cast decides."""
    return {name: _adapted(value) for name, value in params.items()}


def _adapted(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return array_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))  # the cast binds closer than a minus would
    return value
