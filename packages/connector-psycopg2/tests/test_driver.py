from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection

from procrastinate.connector import Query
from procrastinate.errors import (
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    QueryCanceled,
    SchemaNotApplied,
    UniqueViolation,
)
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.sessions import bound

from .helpers import run

VALUES = (
    "select %(b)s::bool, %(i)s::bigint, %(f)s::float8, %(t)s::text, %(z)s::timestamptz, "
    "%(y)s::bytea, %(n)s::text, %(j)s::jsonb, %(is)s::bigint[], %(ts)s::text[]"
)
WHEN = datetime.datetime(2026, 3, 29, 1, 30, tzinfo=datetime.UTC)
PARAMS: dict[str, Any] = {
    "b": True,
    "i": -(2**63),
    "f": 0.1,
    "t": "100% 'quoted' \\ back ☃ %(x)s",
    "z": WHEN,
    "y": b"\x00\xff",
    "n": None,
    "j": '{"a": 1}',
    "is": [1, None, -3],
    "ts": ["", "NULL", None, 'a"b', "c\\d", "{e,f}", " g ", "o'h"],
}
Connect = Callable[..., Connection]


def row(connection: Connection) -> Any:
    return run(bound(connection), VALUES, **PARAMS)[0]


def test_values_come_back_as_they_went_in(connect: Connect) -> None:
    result = row(connect())
    assert result == tuple(PARAMS.values())
    assert [type(value) for value in result] == [type(value) for value in PARAMS.values()]


def test_empty_lists_and_numerics_are_plain_values(connect: Connect) -> None:
    sql = "select %(a)s::bigint[], %(b)s::text[], 1.5::numeric"
    assert run(bound(connect()), sql, a=[], b=()) == [([], [], 1.5)]


def test_without_parameters_a_percent_sign_is_itself_and_scripts_run(connect: Connect) -> None:
    assert run(bound(connect()), "select 1; select '%', '%s', '%%'") == [("%", "%s", "%%")]


def test_a_statement_without_rows_gives_an_empty_list(connect: Connect) -> None:
    assert run(bound(connect()), "do $$ begin end $$") == []


FACTORIES = [
    {"cursor_factory": psycopg2.extras.RealDictCursor},
    {"cursor_factory": psycopg2.extras.NamedTupleCursor},
    {"cursor_factory": psycopg2.extras.DictCursor},
    {"connection_factory": psycopg2.extras.DictConnection},
    {"connection_factory": psycopg2.extras.RealDictConnection},
    {"connection_factory": psycopg2.extras.LoggingConnection},
]


@pytest.mark.parametrize("arguments", FACTORIES)
def test_the_owners_cursor_factory_stays_and_is_not_used(
    connect: Connect, arguments: dict[str, Any]
) -> None:
    connection = connect(**arguments)
    before = connection.cursor_factory
    assert row(connection) == tuple(PARAMS.values())
    assert connection.cursor_factory is before


@pytest.fixture
def shouting() -> Iterator[Any]:
    """A type caster for everything that makes it an upper-case text; the global ones restored."""
    before = dict(extensions.string_types)
    types = (16, 17, 20, 25, 701, 1009, 1016, 1184, 1700, 3802)
    yield extensions.new_type(types, "SHOUT", lambda value, cursor: f"{value}".upper())
    extensions.string_types.clear()
    extensions.string_types.update(before)


def test_type_casters_of_the_owner_stay_and_are_not_used(connect: Connect, shouting: Any) -> None:
    connection = connect()
    extensions.register_type(shouting, connection)
    assert row(connection) == tuple(PARAMS.values())
    with connection.cursor() as cursor:
        cursor.execute("select 'loud'::text")
        assert cursor.fetchall() == [("LOUD",)]


def test_global_type_casters_are_not_used(connect: Connect, shouting: Any) -> None:
    extensions.register_type(shouting)
    assert row(connect()) == tuple(PARAMS.values())


def test_a_proxy_around_a_connection_is_looked_through(connect: Connect) -> None:
    class Proxy:
        def __init__(self, wrapped: Connection) -> None:
            self.__wrapped__ = wrapped

    proxy: Any = Proxy(connect())
    assert row(proxy) == tuple(PARAMS.values())


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Europe/Amsterdam"])
@pytest.mark.parametrize(
    "moment",
    [
        "2026-03-29 01:30",
        "2026-03-29 01:30:00.1",
        "1850-01-01 12:00:00.000001",
        "0001-01-03",
        "9999-12-29",
        "20000-01-01",
        "0044-03-15 BC",
        "infinity",
    ],
)
def test_a_moment_is_what_psycopg2_would_make_of_it(
    connect: Connect, moment: str, zone: str
) -> None:
    """It reads it in a way of its own, which takes a third of the time."""
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute("select set_config('timezone', %s, false)", [zone])

    def outcome(cursor: Any) -> Any:
        cursor.execute("select %s::timestamptz, null::timestamptz", [moment])
        try:
            return [(each, each and each.utcoffset()) for each in cursor.fetchone()]
        except (ValueError, psycopg2.Error) as exc:
            return type(exc)

    assert outcome(driver.plain_cursor(connection)) == outcome(connection.cursor())


SUMMER_TIME_ENDS = ["2026-10-25 00:30+00", "2026-10-25 01:30+00"]


@pytest.mark.parametrize(
    "style", ["SQL, DMY", "SQL, MDY", "German", "Postgres, MDY", "Postgres, DMY"]
)
def test_a_moment_is_read_in_each_style_of_its_owner_s(connect: Connect, style: str) -> None:
    """psycopg2 itself reads no style but ISO."""
    connection = connect()
    executor = bound(connection)
    run(executor, "select set_config('datestyle', %(style)s::text, false)", style=style)
    moments = ["2026-03-09 14:05:27.1+00", "0987-12-24", *SUMMER_TIME_ENDS]
    for zone in ("UTC", "Asia/Kathmandu", "Europe/London", "Europe/Amsterdam", "-7"):
        run(executor, "select set_config('timezone', %(zone)s::text, false)", zone=zone)
        sql = "select at, extract(epoch from at) from unnest(%(ats)s::timestamptz[]) at"
        rows = run(executor, sql, ats=moments[: 4 if zone == "UTC" else 1] + SUMMER_TIME_ENDS)
        assert [at.timestamp() for at, _ in rows] == [epoch for _, epoch in rows]
    ((infinity,),) = run(executor, "select 'infinity'::timestamptz")
    assert infinity.year == 9999
    run(executor, "set timezone = 'FOO+3'")
    with pytest.raises(InvalidData, match=rf"'{style}.*': SET datestyle = 'ISO'"):
        run(executor, "select now()")


@pytest.mark.parametrize(
    "value, cast",
    [("a\0b", "text"), ("\ud800", "text"), (["a\0"], "text[]"), (10**5000, "bigint")],
    ids=["NUL", "surrogate", "list", "long"],
)
def test_a_value_that_cannot_be_sent_names_its_parameter(
    connect: Connect, value: Any, cast: str
) -> None:
    with pytest.raises(InvalidData, match="parameter 'a' of test cannot be sent") as caught:
        run(bound(connect()), f"select %(ok)s::text, %(a)s::{cast}", ok="fine", a=value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "sql, kind, sqlstate",
    [
        ("select 9223372036854775807::bigint + 1", InvalidData, "22003"),
        ("select * from nowhere", SchemaNotApplied, "42P01"),
        ("select pg_cancel_backend(pg_backend_pid()), pg_sleep(5)", QueryCanceled, "57014"),
        ("select pg_terminate_backend(pg_backend_pid())", ConnectionLost, None),
        ("select '20000-01-01'::timestamptz", InvalidData, None),
        ("selec", ConnectorException, "42601"),
        ("", ConnectorException, None),
    ],
)
def test_errors_carry_their_meaning_and_sqlstate(
    connect: Connect, sql: str, kind: type[ConnectorException], sqlstate: str | None
) -> None:
    with pytest.raises(ConnectorException) as caught:
        run(bound(connect()), sql)
    assert (type(caught.value), caught.value.sqlstate) == (kind, sqlstate)


def test_a_unique_violation_names_its_constraint(connect: Connect, admin: Connection) -> None:
    executor = bound(admin)
    run(executor, "insert into notes (text) values ('once')")
    with pytest.raises(UniqueViolation) as caught:
        run(executor, "insert into notes (text) values ('once')")
    assert caught.value.constraint == "notes_text_key"
    assert isinstance(caught.value.__cause__, psycopg2.IntegrityError)


@pytest.mark.parametrize("sqlstate", ["22023", "23514", "XX000"])
def test_what_was_wrong_with_a_value_is_told_without_the_value(
    connect: Connect, sqlstate: str
) -> None:
    """The detail repeats the row that was refused; a cluster repeats it as an internal error."""
    with pytest.raises(ConnectorException, match="refused") as caught:
        run(
            bound(connect()),
            "do $$ begin raise exception using"
            f" errcode = '{sqlstate}', message = 'refused', detail = 'secret'; end $$",
        )
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    "exc, kind",
    [
        (psycopg2.OperationalError("gone"), ConnectionLost),
        (psycopg2.InterfaceError("connection already closed"), ConnectionLost),
        (psycopg2.DatabaseError("no message from the libpq"), ConnectionLost),
        (psycopg2.ProgrammingError("can't adapt"), ConnectorException),
    ],
)
def test_errors_without_sqlstate_are_told_apart_by_their_class(
    exc: psycopg2.Error, kind: type[ConnectorException]
) -> None:
    assert type(driver.translate(exc)) is kind


def test_adapted_leaves_scalars_alone() -> None:
    params = {"a": 1, "b": "x"}
    assert driver.adapted(Query("q", "sql", params)) == ("sql", params)
    assert driver.adapted(Query("q", "sql", {})) == ("sql", None)


@pytest.mark.parametrize("conforming", ["on", "off"])
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
def test_a_text_beside_a_list_means_itself(
    connect: Connect, conforming: str, encoding: str
) -> None:
    """Such a text, and the list, are quoted here if that is safe, and else by libpq."""
    connection = connect()
    connection.set_client_encoding(encoding)
    run(bound(connection), f"set standard_conforming_strings = {conforming}")
    texts = [*map(chr, range(1, 256)), "o'h", "\\'", "''", "%(x)s %s %%", "null", "x" * 10_000, ""]
    for text in texts:
        sql = "select %(a)s::text, %(b)s::text[]"
        assert run(bound(connection), sql, a=text, b=[text, None]) == [(text, [text, None])]
    with pytest.raises(ConnectorException, match="'a'"):
        run(bound(connection), "select %(a)s::text, %(b)s::integer[]", a="\0", b=[1])


@pytest.mark.parametrize(
    "named", ["LATIN1", "latin-1", "EUC_JP", "SQL_ASCII", "UNICODE", "WIN1252"]
)
def test_an_encoding_of_many_names_is_the_same(connect: Connect, named: str) -> None:
    connection = connect()
    connection.set_client_encoding(named)
    driver.check_same_encoding(connection, "this one")


@pytest.mark.parametrize("driver_s, server_s", [("UTF8", "LATIN1"), ("LATIN1", "UTF8")])
def test_an_encoding_that_a_statement_has_changed_is_refused(
    connect: Connect, driver_s: str, server_s: str
) -> None:
    connection = connect()
    connection.set_client_encoding(driver_s)
    with connection.cursor() as cursor:
        cursor.execute(f"set client_encoding to {server_s}")
    with pytest.raises(InvalidOption, match=f"given as connection= to {server_s}.* {driver_s}"):
        bound(connection)
    with pytest.raises(InvalidOption, match=server_s):
        driver.check_encoding(connection, "the pool")
