"""Passwords in URLs, well and badly encoded: they show nowhere."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from procrastinate.errors import ConfigurationError, ConnectionFailed, InvalidOption
from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector

#: Where a password may stand, or what may come of it, if nobody has percent-encoded it.
_PASSWORDS = [
    "u:canary#f@h/d",
    "u:canary?f@h/d",
    "u:x#canary@h/d",
    "u:canary@f@h/d",
    "u:f@canary@h/d",
    "u:canary:1@h/d",
    "u:canary%40@h/d",
    "u:canary[@h/d",
    "u:canary\uff03@h/d",
    "u:canary\0@h/d",
    "u:canary%00@h/d",
    "u:canary",
    "u:canary:5/d",
    "u:canary@h:99999/d",
    "u:canary@h:port/d",
    "u:1?canary/@h/d",
    "u@h/d?password=canary",
    "u@h/d?password=canary&port=x",
    "u@h/d?password=canary&nonsense=1",
    "u@h/d?host=u:canary@h",
    "u@h/d?connect_timeout=canary",
]
_ASYNCPG, _PSYCOPG = "postgresql+asyncpg://", "postgresql+psycopg://"
_MAKERS: list[Callable[[str], object]] = [
    lambda url: SQLAlchemyAsyncConnector(url=_ASYNCPG + url),
    lambda url: SQLAlchemyAsyncConnector(url=_PSYCOPG + url),
    lambda url: SQLAlchemyAsyncConnector(url=_ASYNCPG, listen_dsn=f"postgresql://{url}"),
    lambda url: SQLAlchemyAsyncConnector(url=_PSYCOPG, listen_dsn=f"postgresql://{url}"),
    lambda url: SQLAlchemyAsyncConnector(url=_ASYNCPG, listen_dsn=_ASYNCPG + url),
    lambda url: SQLAlchemyAsyncConnector(url=_ASYNCPG, connect_args={"dsn": f"postgresql://{url}"}),
    lambda url: SQLAlchemyAsyncConnector.from_url(f"sqlalchemy-async://{url}"),
]


def _said(make: Callable[[str], object], url: str) -> str:
    """What making a connector says: its repr, or the error without the lines of source code."""
    try:
        return repr(make(url))
    except (ConfigurationError, InvalidOption) as exc:
        lines = "".join(traceback.format_exception(exc)).splitlines()
        return "\n".join(line for line in lines if not line.startswith(" "))


@pytest.mark.parametrize("url", _PASSWORDS, ids=ascii)
@pytest.mark.parametrize("make", _MAKERS)
def test_no_password_shows(make: Callable[[str], object], url: str) -> None:
    said = _said(make, url)
    assert "canary" not in said
    assert said


def test_libpqs_words_become_asyncpgs() -> None:
    connector = SQLAlchemyAsyncConnector(
        url=f"{_ASYNCPG}u@h:1/d?sslmode=disable&connect_timeout=3&application_name=shop"
        "&command_timeout=4&statement_cache_size=0",
        connect_args={"server_settings": {"jit": "off"}},
    )
    assert connector._url.query == {}
    assert connector._arguments["connect_args"] == {
        "ssl": "disable",
        "timeout": 3.0,
        "command_timeout": 4.0,
        "statement_cache_size": 0,
        "server_settings": {"application_name": "shop", "jit": "off"},
    }


@pytest.mark.parametrize("name", ["nonsense", "sslrootcert", "server_settings"])
def test_options_that_asyncpg_does_not_have_are_named(name: str) -> None:
    with pytest.raises(InvalidOption, match=f"asyncpg has no option '{name}'"):
        SQLAlchemyAsyncConnector(url=f"{_ASYNCPG}u@h/d?{name}=1")


def test_arguments_that_asyncpg_does_not_have_are_named() -> None:
    with pytest.raises(InvalidOption, match="asyncpg has no option 'sslmode'"):
        SQLAlchemyAsyncConnector(url=_ASYNCPG, connect_args={"sslmode": "disable"})


def test_ports_out_of_range_are_found_at_once() -> None:
    said = "the port is not a number"
    with pytest.raises(ConfigurationError, match=said):
        SQLAlchemyAsyncConnector(url=URL.create("postgresql+asyncpg", host="h", port=99999))
    with pytest.raises(ConfigurationError, match=said):
        SQLAlchemyAsyncConnector(url=_ASYNCPG, connect_args={"port": 99999})
    with pytest.raises(ConfigurationError, match=said):
        SQLAlchemyAsyncConnector(url=f"{_ASYNCPG}/d?host=one:99999&host=two:1")


@pytest.mark.parametrize("url", ["u:canary@h/d?sslmode=disable", "u:canary@127.0.0.1:99999/d"])
async def test_what_an_applications_engine_cannot_connect_with_is_said(url: str) -> None:
    engine = create_async_engine(_ASYNCPG + url)
    connector = SQLAlchemyAsyncConnector(url=_ASYNCPG)
    await connector.open_async(engine)
    with pytest.raises(ConnectionFailed) as caught:
        async with connector.session_async():
            pass
    assert "canary" not in "".join(map(str, (caught.value, caught.value.__cause__)))
    await connector.close_async()
    await engine.dispose()
