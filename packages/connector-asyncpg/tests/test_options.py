"""The connector's arguments, and what it says of wrong ones."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import procrastinate
from procrastinate import errors
from procrastinate.connector import Query
from procrastinate_asyncpg import AsyncpgConnector
from procrastinate_asyncpg.statements import is_script, prepared


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dbname": "x"}, "write database="),
        ({"connect_timeout": 3}, "write timeout="),
        ({"minconn": 3}, "no argument minconn="),
        ({"loop": None}, "no argument loop="),
        ({"min_size": -1}, "min_size=-1"),
        ({"min_size": 3, "max_size": 2}, "max_size=2"),
        ({"max_size": 0}, "max_size=0"),
        ({"pool_timeout": "soon"}, "pool_timeout='soon'"),
        ({"timeout": 0}, "timeout=0"),
        ({"dsn": 7}, "dsn= is a URL"),
        ({"server_settings": {"client_encoding": "LATIN1"}}, "client_encoding='LATIN1'"),
        ({"server_settings": {"CLIENT_ENCODING": "sql_ascii"}}, "client_encoding='sql_ascii'"),
    ],
)
def test_an_impossible_argument_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidOption, match=said):
        AsyncpgConnector(**arguments)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:my/secret@@host/database",
        "nonsense",
        "host=localhost and more",
        "postgresql://user:secret@host:port/database",
        "postgresql://user:secret@host/database?keepalives_idle=often",
    ],
)
def test_a_malformed_dsn_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        AsyncpgConnector(dsn=dsn)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["UTF8", "utf-8"])
def test_the_encoding_may_be_said_if_it_is_utf8(spelling: str) -> None:
    AsyncpgConnector(server_settings={"client_encoding": spelling, "jit": "off"})


def test_no_password_is_shown() -> None:
    connector = AsyncpgConnector(dsn="postgresql://me:secret@somehost:5433/jobs", password="hidden")
    assert repr(connector) == "<AsyncpgConnector host=somehost port=5433 dbname=jobs user=me>"
    assert "secret" not in repr(connector._options)
    assert "hidden" not in repr(connector._options)


def test_urls_may_have_options_of_ours_and_of_libpq() -> None:
    app = procrastinate.App(
        connector="asyncpg://me@somehost/jobs?max_size=3&connect_timeout=4&keepalives_idle=6"
        "&application_name=here"
    )
    assert isinstance(app.connector, AsyncpgConnector)
    options = app.connector._options
    assert options.max_size == 3
    assert options.connect.timeout == 4
    assert options.connect.limits["keepalives_idle"] == 6
    assert options.connect.arguments["dsn"] == "postgresql://me@somehost/jobs?application_name=here"


async def test_a_dsn_may_be_libpq_s_other_form(procrastinate_dsn: str) -> None:
    read = AsyncpgConnector(dsn=procrastinate_dsn)._options.connect.arguments["dsn"]
    parts = urlsplit(read)
    pairs = dict(parse_qsl(parts.query)) | {"dbname": parts.path[1:], "user": parts.username or ""}
    if parts.hostname:
        pairs |= {"host": parts.hostname, "port": str(parts.port or 5432)}
    if parts.password:
        pairs["password"] = parts.password
    dsn = " ".join(f"{name}='{value}'" for name, value in pairs.items() if value)
    connector = AsyncpgConnector(dsn=dsn)
    await connector.open_async()
    async with connector.session_async() as session:
        rows = await session.execute(Query("where", "select current_database()::text"))
    await connector.close_async()
    assert list(rows) == [(parts.path[1:],)]


@pytest.mark.parametrize(
    ("sql", "several"),
    [
        ("select 1", False),
        ("select 1;", False),
        ("select 1; -- and no more\n /* ; */ ;", False),
        ("select ';'", False),
        ("select E'it\\'s; one'", False),
        ("select $$;$$, $a$ ; $$ ; $a$", False),
        ('select 1 as "a;b"', False),
        ("select 1; select 2", True),
        ("create function f() as $$ begin; end $$; select f()", True),
    ],
)
def test_scripts_are_told_from_single_statements(sql: str, several: bool) -> None:
    assert is_script(Query("any", sql)) is several


def test_json_goes_as_text() -> None:
    query = Query("any", "select %(a)s::jsonb, %(a)s::text, %(b)s::json", {"a": "1", "b": "2"})
    assert prepared(query) == (
        "select $1::text::jsonb, $1::text, $2::text::json",
        ["1", "2"],
    )
