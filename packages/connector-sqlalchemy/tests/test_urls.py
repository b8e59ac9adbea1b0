"""Passwords in URLs, well and badly encoded: they show nowhere."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_sqlalchemy import SQLAlchemyConnector

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
_MAKERS: list[Callable[[str], object]] = [
    lambda url: SQLAlchemyConnector(dsn=f"postgresql+psycopg2://{url}"),
    lambda url: SQLAlchemyConnector(dsn=f"postgresql+psycopg://{url}"),
    lambda url: SQLAlchemyConnector.from_url(f"sqlalchemy://{url}"),
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
