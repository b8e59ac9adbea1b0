from __future__ import annotations

import traceback

import pytest

from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_psycopg2 import Psycopg2Connector
from procrastinate_psycopg2.dsn import check_dsn, connection_url, shown_dsn, split_url


@pytest.mark.parametrize(
    "url, expected",
    [
        ("psycopg2://", "postgresql://"),
        ("psycopg2://u:p%40ss@h:1234/d", "postgresql://u:p%40ss@h:1234/d"),
        (
            "aiopg://u@one:1,two:2/d?target_session_attrs=read-write",
            "postgresql://u@one:1,two:2/d?target_session_attrs=read-write",
        ),
        ("psycopg2://u:se?cret@h/d", "postgresql://u:se?cret@h/d"),
        ("psycopg2://%2Ftmp/d", "postgresql://%2Ftmp/d"),
    ],
)
def test_a_connectors_url_becomes_libpqs(url: str, expected: str) -> None:
    assert connection_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "somehost",
        "psycopg2:/h",
        "psycopg2://u:se@cret@h/d",
        "psycopg2://u:se/cret@h/d",
        "psycopg2://u:secret@h:99999/d",
        "psycopg2://u:secret@h:port/d",
        "psycopg2://u:secret@h/d?nonsense=1",
        "psycopg2://u:se%zzcret@h/d",
    ],
)
def test_a_malformed_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection_url(url)
    shown = "".join(traceback.format_exception(caught.value, chain=True)).split("Error: ", 1)[1]
    assert "cret" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("dsn", ["secret word", "host=h password='secret", "host=h port=abc"])
def test_a_malformed_dsn_is_refused_before_anything_is_connected(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Psycopg2Connector(dsn=dsn)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_connectors_own_options_are_taken_out_of_the_url() -> None:
    url = "psycopg2://h/d?maxconn=5&application_name=a%20b&schema=x"
    assert split_url(url, {"maxconn": int, "schema": str}) == (
        "postgresql://h/d?application_name=a%20b",
        {"maxconn": 5, "schema": "x"},
    )


def test_a_question_mark_in_a_password_begins_no_options() -> None:
    url = "psycopg2://u:p?maxconn=1@h/d?maxconn=2"
    assert split_url(url, {"maxconn": int}) == ("postgresql://u:p?maxconn=1@h/d", {"maxconn": 2})


def test_an_option_of_the_url_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'maxconn' of the URL cannot be 'many'"):
        Psycopg2Connector.from_url("psycopg2://h/d?maxconn=many")


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(InvalidOption, match="unknown argument 'hots'"):
        Psycopg2Connector(hots="somehost")


@pytest.mark.parametrize(
    "arguments",
    [
        {"maxconn": 0},
        {"minconn": -1},
        {"minconn": 3, "maxconn": 2},
        {"maxconn": "5"},
        {"pool_timeout": -1},
        {"pool_timeout": "soon"},
        {"async_": True},
    ],
)
def test_impossible_options_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        Psycopg2Connector(**arguments)  # type: ignore[arg-type]


def test_only_harmless_parts_are_shown() -> None:
    read = check_dsn("host=h password=secret dbname=d sslpassword=hidden")
    assert shown_dsn(read) == "host=h dbname=d"


def test_repr_names_the_database_and_never_the_password() -> None:
    connector = Psycopg2Connector.from_url("psycopg2://me:secret@h:1234/d?schema=s")
    assert repr(connector) == "<Psycopg2Connector host=h port=1234 dbname=d user=me>"
    assert connector.schema == "s"
    assert repr(Psycopg2Connector()) == "<Psycopg2Connector (libpq defaults)>"
