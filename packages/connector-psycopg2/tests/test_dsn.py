from __future__ import annotations

import traceback
from typing import Any

import pytest

from procrastinate.connector_tools.limits import LIMITS
from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_psycopg2 import Psycopg2Connector
from procrastinate_psycopg2.dsn import check_dsn, for_our_own


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
        Psycopg2Connector.from_url(url)
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


def test_an_option_of_the_url_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match="option 'maxconn' of the URL cannot be read"):
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


def test_repr_names_the_database_and_never_the_password() -> None:
    connector = Psycopg2Connector.from_url("psycopg2://me:secret@h:1234/d?schema=s")
    assert repr(connector) == "<Psycopg2Connector host=h port=1234 dbname=d user=me>"
    assert connector.schema == "s"
    assert repr(Psycopg2Connector()) == "<Psycopg2Connector (libpq defaults)>"


@pytest.mark.parametrize(
    ("arguments", "environment", "added"),
    [
        ({}, {}, set(LIMITS)),
        ({"host": "somewhere"}, {}, set(LIMITS)),
        ({"connect_timeout": 30}, {}, set(LIMITS) - {"connect_timeout"}),
        ({"dsn": "postgresql://h/db?connect_timeout=0"}, {}, set(LIMITS) - {"connect_timeout"}),
        ({"dsn": "host=h keepalives_idle=60"}, {}, set(LIMITS) - {"keepalives_idle"}),
        ({"tcp_user_timeout": 0}, {}, set(LIMITS) - {"tcp_user_timeout"}),
        ({"dsn": "service=ours"}, {}, set()),
        ({}, {"PGSERVICE": "ours"}, set()),
        ({}, {"PGCONNECT_TIMEOUT": "3"}, set(LIMITS) - {"connect_timeout"}),
    ],
)
def test_connections_are_limited_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    environment: dict[str, str],
    added: set[str],
) -> None:
    for name in ("PGSERVICE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    limited = for_our_own(arguments)

    assert {name: limited[name] for name in arguments} == arguments
    assert set(limited) - set(arguments) == added | {"client_encoding"}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"client_encoding": "LATIN1"},
        {"dsn": "postgresql://h/db?client_encoding=LATIN1"},
        {"dsn": "service=ours"},
    ],
)
def test_our_connections_are_in_utf8_whatever_the_arguments_say(arguments: dict[str, Any]) -> None:
    assert check_dsn(**for_our_own(arguments))["client_encoding"] == "UTF8"


def test_a_time_to_connect_is_never_none_at_all() -> None:
    """libpq takes 0 for "no limit"."""
    assert for_our_own({}, connect_timeout=0.2)["connect_timeout"] == 1
    assert for_our_own({"connect_timeout": 9}, connect_timeout=4)["connect_timeout"] == 9
