"""A wrong password is one clear error on every connector, and is never repeated in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import procrastinate
import procrastinate_embedded
from procrastinate import errors


@pytest.fixture(scope="module")
def strict_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own that asks the role ``strict`` for the password ``right``."""
    with procrastinate_embedded.server(durable=False) as server:
        connection = psycopg2.connect(server.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("show hba_file")
            Path(cursor.fetchone()[0]).write_text(
                "local all postgres trust\nlocal all strict scram-sha-256\n"
                "host all postgres all trust\nhost all strict all scram-sha-256\n"
            )
            cursor.execute("create role strict login password 'right'")
            cursor.execute("select pg_reload_conf()")
        connection.close()
        yield server.dsn


def open_with(connector: procrastinate.connector.Connector) -> None:  # type: ignore[name-defined]
    with procrastinate.App(connector=connector).open():
        pass


@pytest.mark.parametrize("name", ["Psycopg2Connector", "SQLAlchemyPsycopg2Connector"])
def test_of_a_synchronous_connector(strict_dsn: str, name: str) -> None:
    def connector(password: str) -> Any:
        arguments = psycopg2.extensions.parse_dsn(strict_dsn)
        arguments.update(user="strict", password=password)
        if name == "Psycopg2Connector":
            return procrastinate.Psycopg2Connector(**arguments)
        return procrastinate.SQLAlchemyPsycopg2Connector(connect_args=arguments)

    open_with(connector("right"))
    with pytest.raises(errors.ConnectionFailed, match="password authentication failed") as caught:
        open_with(connector("secret"))
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


async def test_of_aiopg(strict_dsn: str) -> None:
    arguments = psycopg2.extensions.parse_dsn(strict_dsn)
    arguments.update(user="strict", password="secret")
    app = procrastinate.App(connector=procrastinate.AiopgConnector(**arguments))
    for opening in (app.open_async, app.open):
        with pytest.raises(
            errors.ConnectionFailed, match="password authentication failed"
        ) as caught:
            opened = opening()
            if opening == app.open_async:
                await opened  # type: ignore[misc]
        assert "secret" not in str(caught.value)
