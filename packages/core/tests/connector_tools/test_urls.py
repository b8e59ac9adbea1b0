"""URLs of connectors, without a driver."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import sqlalchemy

import procrastinate
from procrastinate.connector_tools.channels import listen_sql
from procrastinate.connector_tools.limits import LIMITS, missing
from procrastinate.connector_tools.urls import (
    check_at_signs,
    check_host,
    check_ports,
    libpq_url,
    malformed,
    quoted_url,
    read_url,
    shown,
    split_url,
    with_environment,
)
from procrastinate.errors import ConfigurationError, InvalidOption


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("any://", "postgresql://"),
        ("any://u:p%40ss@h:1234/d", "postgresql://u:p%40ss@h:1234/d"),
        ("any://u@one:1,two:2/d?a=b", "postgresql://u@one:1,two:2/d?a=b"),
        ("any://u:se?cret@h/d", "postgresql://u:se?cret@h/d"),
        ("any-thing://%2Ftmp/d", "postgresql://%2Ftmp/d"),
    ],
)
def test_a_connectors_url_becomes_libpqs(url: str, expected: str) -> None:
    assert libpq_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "somehost",
        "any:/h",
        "any://u:se@cret@h/d",
        "any://u:se/cret@h/d",
        "any://u:secret@h:99999/d",
        "any://u:secret@h:port/d",
        "any://u:se#cret@h/d",
        "any://u:se?cret@h/d",
        "any://u:se#x@cret@h/d",
        "any://u:secret@h/d#x",
        "any://u:secret:5/d",
        "any://u:secret",
        "any://u:1?secret/@h/d",
        "any://u:secret@h/d?port=99999",
        "any://u@h/d?host=u:secret@h",
        "any://u:secret\0@h/d",
        "any://u:secret%00@h/d",
        "any://h/d%00?password=secret",
    ],
)
def test_a_malformed_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_url(url)
    said = "".join(traceback.format_exception(caught.value, chain=True)).split("Error: ", 1)[1]
    assert "cret" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_connectors_own_options_are_taken_out_of_the_url() -> None:
    url = "any://h/d?max_size=5&application_name=a%20b&schema=x"
    assert split_url(url, {"max_size": int, "schema": str}) == (
        "postgresql://h/d?application_name=a%20b",
        {"max_size": 5, "schema": "x"},
    )


def test_a_question_mark_in_a_password_begins_no_options() -> None:
    assert split_url("any://u:p?n=1@h/d?n=2", {"n": int}) == (
        "postgresql://u:p?n=1@h/d",
        {"n": 2},
    )


def test_an_option_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match="option 'n' of the URL cannot be read"):
        split_url("any://h/d?n=many", {"n": int})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("any://", {}),
        (
            "any://me:p%40ss@h:1/d?sslmode=require",
            {
                "user": "me",
                "password": "p@ss",
                "host": "h",
                "port": "1",
                "dbname": "d",
                "sslmode": "require",
            },
        ),
        ("any://one:1,two/d", {"host": "one,two", "port": "1,", "dbname": "d"}),
        ("any://[::1]:5/d", {"host": "::1", "port": "5", "dbname": "d"}),
        ("any://[::1]/d", {"host": "::1", "dbname": "d"}),
        ("any://%2Ftmp/d", {"host": "/tmp", "dbname": "d"}),
        ("any:///d?host=/tmp&port=9", {"host": "/tmp", "port": "9", "dbname": "d"}),
    ],
)
def test_the_parts_of_a_url(url: str, expected: dict[str, str]) -> None:
    assert read_url(url) == expected


def test_what_a_url_does_not_say_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PGHOST", "PGPORT", "PGPASSWORD", "PGDATABASE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGUSER", "me")
    assert with_environment({}) == {"host": "localhost", "port": "5432", "user": "me"}
    monkeypatch.setenv("PGHOST", "there")
    assert with_environment({"user": "you", "port": "1"}) == {
        "host": "there",
        "port": "1",
        "user": "you",
    }


@pytest.mark.parametrize("ports", [None, "", "1", "1,,65535"])
def test_ports(ports: str | None) -> None:
    check_ports(ports)


@pytest.mark.parametrize("port", ["0", "65536", "99999999999999999999", "x", "٣"])
def test_no_ports(port: str) -> None:
    with pytest.raises(ConfigurationError, match="the port is not a number from 1 to 65535"):
        check_ports(port)


def test_what_a_parser_quotes_is_not_shown() -> None:
    error = malformed(ValueError('missing "=" after "secret word" in string'))
    assert str(error) == (
        "the connection string is malformed: missing = after (not shown) in string"
    )


def test_only_harmless_parts_are_shown() -> None:
    read = {"host": "h", "password": "secret", "dbname": "d", "sslpassword": "hidden", "user": ""}
    assert shown(read) == "host=h dbname=d"
    assert shown({}) == "(libpq defaults)"


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ({}, {}, set(LIMITS)),
        ({"connect_timeout": 0}, {}, set(LIMITS) - {"connect_timeout"}),
        ({"keepalives_idle": 60}, {}, set(LIMITS) - {"keepalives_idle"}),
        ({"service": "ours"}, {}, set()),
        ({}, {"PGSERVICE": "ours"}, set()),
        ({}, {"PGCONNECT_TIMEOUT": "3"}, set(LIMITS) - {"connect_timeout"}),
    ],
)
def test_connections_are_limited_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, int],
    environment: dict[str, str],
    expected: set[str],
) -> None:
    for name in ("PGSERVICE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert set(missing(given)) == expected


def test_the_time_to_connect_is_whole_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    monkeypatch.delenv("PGSERVICE", raising=False)
    assert missing({}, connect_timeout=2.5)["connect_timeout"] == 3
    assert missing({}, connect_timeout=0)["connect_timeout"] == 1


def test_an_old_libpq_is_not_asked_for_what_it_lacks() -> None:
    assert "tcp_user_timeout" not in missing({}, libpq_version=110_000)


def test_channels_of_any_name() -> None:
    assert listen_sql(["a", 'say "x"']) == 'LISTEN "a";LISTEN "say ""x"""'
    assert listen_sql([]) == ""


@pytest.mark.parametrize("name", ["", "a\0b", "é" * 32])
def test_no_channels(name: str) -> None:
    with pytest.raises(InvalidOption, match="1 to 63 bytes"):
        listen_sql([name])


@pytest.mark.parametrize(
    "dsn, hint",
    [
        (
            "postgresql+psycopg2://u:secret@h/db",
            r"postgresql\+psycopg2:// is how",
        ),
        ("postgresql+asyncpg://u:secret@h/db", "leave the driver out"),
        ("aiopg://u:secret@h/db", r"begins with aiopg://.*App\(connector=\.\.\.\)"),
        ("mysql://u:secret@h/db", "begins with mysql://"),
        (sqlalchemy.make_url("postgresql+psycopg2://u:secret@h/db"), r"not a sqlalchemy\..*URL"),
        (7, r"not a builtins\.int"),
    ],
)
def test_a_url_of_another_kind_is_refused_with_what_to_write(dsn: Any, hint: str) -> None:
    for make in (
        lambda: check_at_signs(dsn),
        lambda: procrastinate.Psycopg2Connector(dsn=dsn),
        lambda: procrastinate.AiopgConnector(dsn=dsn),
    ):
        with pytest.raises(ConfigurationError, match=hint) as caught:
            make()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["", "host=h", "postgres://h", "postgresql://u@h/db", "dbname='a://b'"]
)
def test_a_connection_string_of_libpq_is_accepted(dsn: str) -> None:
    check_at_signs(dsn)
    procrastinate.Psycopg2Connector(dsn=dsn)


def test_an_url_of_sqlalchemy_is_no_name_of_a_connector() -> None:
    with pytest.raises(ConfigurationError, match="that is how SQLAlchemy writes a URL") as caught:
        procrastinate.App(connector="postgresql+psycopg2://u:secret@h/db")
    assert "secret" not in str(caught.value)


def test_a_url_is_quoted_for_parsers_that_show_what_they_cannot_read() -> None:
    url = "postgresql://m\uff03e:p[\uff03%40@one:1,two/d[b?a=b"
    quoted = "postgresql://m%EF%BC%83e:p%5B%EF%BC%83%40@one:1,two/d%5Bb?a=b"
    assert quoted_url(url) == quoted
    assert quoted_url(quoted) == quoted
    assert quoted_url("postgresql://?host=/tmp") == "postgresql://?host=/tmp"


def test_a_host_has_no_end_of_a_password() -> None:
    check_host("@abstract-socket")
    check_host("/tmp")
    for host in ("secret@h", "h\0"):
        with pytest.raises(ConfigurationError) as caught:
            check_host(host)
        assert "secret" not in str(caught.value)
