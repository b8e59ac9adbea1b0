"""The arguments of both connectors, and URLs."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector

BOTH = pytest.mark.parametrize("kind", [PsycopgConnector, SyncPsycopgConnector])


@BOTH
@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"kwargs": {"host": "x"}}, r"Procrastinate 3's.*PsycopgConnector\(host=\.\.\., dbname="),
        ({"pool_factory": dict}, r"Procrastinate 3's.*app\.open_async\(pool\)"),
        ({"dsn": "host=x"}, "psycopg 3 calls it conninfo="),
        ({"minsize": 1}, "calls it min_size="),
        ({"row_factory": dict}, "Leave it out"),
        ({"max_lifetime": 3}, "make the psycopg_pool with it yourself"),
        ({"hots": "x"}, "unknown argument 'hots'"),
        ({"conninfo": None}, "conninfo is a connection string, not a NoneType"),
        ({"min_size": -1}, "min_size=-1"),
        ({"min_size": 3, "max_size": 2}, "max_size=2"),
        ({"max_size": 0}, "max_size=0"),
        ({"pool_timeout": "soon"}, "pool_timeout='soon'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_impossible_arguments_are_refused_by_name(
    kind: type[Any], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said):
        kind(**arguments)


@BOTH
@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://user:canary@host:port/db",
        "postgresql://user:ca@nary@host/db",
        "host=x password=canary nonsense",
        "host=x password='canary",
        "host=x passwort=canary",
        "postgresql+psycopg://user:canary@host/db",
    ],
)
def test_a_malformed_conninfo_is_refused_without_its_password(
    kind: type[Any], conninfo: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(conninfo=conninfo)
    assert "nary" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@BOTH
def test_only_harmless_parameters_are_shown(kind: type[Any]) -> None:
    connector = kind(conninfo="postgresql://me:canary@there/db", password="canary", port=7)
    assert repr(connector) == f"<{kind.__name__} host=there port=7 dbname=db user=me>"


@BOTH
def test_an_url_names_everything(kind: type[Any]) -> None:
    url = "psycopg://me:p%40ss@there:7/db?sslmode=disable&min_size=2&max_size=4&schema=jobs"
    connector = kind.from_url(url)
    options = connector._options
    assert (options.min_size, options.max_size, connector.schema) == (2, 4, "jobs")
    assert options.parameters == {
        "host": "there",
        "port": "7",
        "dbname": "db",
        "user": "me",
        "password": "p@ss",
        "sslmode": "disable",
    }


def test_the_synchronous_half_has_the_same_database_codec_and_schema() -> None:
    connector = PsycopgConnector(
        conninfo="host=there dbname=db", user="me", schema="jobs", min_size=5, max_size=7,
        json_dumps=str, json_loads=eval,
    )  # fmt: skip
    half = connector.sync_connector(connect_timeout=2.5)
    assert (half.schema, half.json_dumps, half.json_loads) == ("jobs", str, eval)
    parameters = dict(half._options.parameters)
    where = {name: parameters[name] for name in ("host", "dbname", "user", "connect_timeout")}
    assert where == {"host": "there", "dbname": "db", "user": "me", "connect_timeout": 3}
    assert (half._options.min_size, half._options.max_size) == (1, 7)


def test_the_time_to_connect_is_the_user_s_if_given() -> None:
    half = PsycopgConnector(connect_timeout=8).sync_connector(connect_timeout=2.0)
    assert half._options.parameters["connect_timeout"] == 8
