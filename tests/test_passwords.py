"""No password of a connection is ever shown: whatever it consists of, and wherever it was put.

Each string has a canary where somebody may write a password. The connector is made, or refused;
then the canary is looked for in its repr, in the exception with all that led to it, and in the log.
"""

from __future__ import annotations

import functools
import itertools
import logging
import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest

import procrastinate
from procrastinate import connectors

CANARY = "Kan4rie"
STRINGS = 10_000

SCHEMES = (
    *("aiopg", "psycopg", "psycopg-sync", "psycopg_sync", "asyncpg", "psycopg2", "sqlalchemy"),
    *("sqlalchemy-async", "sqlalchemy_psycopg2", "memory", "postgresql", "postgres", "nowhere"),
    *("postgresql+psycopg2", "sqlalchemy+asyncpg", "AIOPG"),
)
#: What follows the name of a connector, or nothing.
SEPARATORS = ("://", ":", ":/", ":///", "//", "")
#: What a password may begin and end with: all that some parser takes for the end of a part.
ODD = (
    *("", "", "@", ":", "/", "?", "#", "%", "%zz", "%40", "%00", "&", "=", " ", "'", '"', "\\"),
    *("[", "]", ",", "+", "é", "\n", "\0", "://", "@@", "p"),
)
#: Where passwords are written: ``{}`` stands for one.
URL_PLACES = (
    "u:{}@h/db",
    "u:{}@h:5432/db",
    ":{}@h/db",
    "u:{}@",
    "u:{}@/db?host=/tmp",
    "u:{}@h1:1,h2:2/db?maxsize=3",
    "u:{}@[::1]:5432/db",
    "h/db?password={}",
    "u@h/db?user=v&password={}&application_name=x",
    "h/db?sslpassword={}",
    "u:{}@h:port/db",
    "u:{}@h/db?maxsize=many",
    "u:{}@h/db?nonsense=1",
    "u:x/{}@h/db",
    "u:a/b?maxsize={}@h/db",
    "u:a?{}@h/db",
)
DSN_PLACES = (
    "host=h password={}",
    "host=h password='{}' dbname=db",
    "password = {} host=h",
    "host=h dbname=db passwd={}",
    "host=h password='{}",
    "host=h PASSWORD={}",
    "host=h sslpassword={}",
    "host=h port=five password={}",
)


def passwords() -> Iterator[str]:
    for before, after in itertools.product(ODD, ODD):
        yield f"{before}{CANARY}{after}"


def strings() -> list[str]:
    """Return ways to write connections, each with a canary; the same ones in every run."""
    chosen = random.Random(20)
    secrets = list(passwords())
    places = [
        f"{scheme}{separator}{place}"
        for scheme, separator, place in itertools.product(SCHEMES, SEPARATORS, URL_PLACES)
    ]
    places += [f"{start}{place}" for start in ("", "aiopg://", "asyncpg:") for place in DSN_PLACES]
    found = []
    while len(found) < STRINGS:
        text = chosen.choice(places).replace("{}", chosen.choice(secrets))
        changed = chosen.randrange(6)
        if changed == 0:  # cut off, somewhere after the canary
            text = text[: chosen.randint(text.index(CANARY) + len(CANARY), len(text))]
        elif changed == 1:
            text = quote(text, safe=chosen.choice(("", "/:@", "/:@?=&")))
        if not reads_as_place(text):
            found.append(text)
    return found


def reads_as_place(text: str) -> bool:
    """Whether what was cut off is a valid URL: the canary is the name of a host or a database."""
    place = re.search(r"://([^@?]*)$", unquote(text))
    return (
        place is not None
        and re.search(rf"(^|[/,])[\w.-]*{CANARY}[\w.-]*(?!\w)", place[1]) is not None
    )


def shown_by(make: Callable[[], Any]) -> Iterator[str]:
    """Everything that making a connector shows."""
    try:
        made = make()
    except Exception as exc:
        yield from texts_of(exc)
        return
    yield repr(made)
    yield str(made)


def texts_of(exc: BaseException | None) -> Iterator[str]:
    while exc is not None:
        yield from (str(exc), repr(exc), *map(repr, getattr(exc, "__notes__", ())))
        exc = exc.__cause__ or exc.__context__


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{self.format(record)} {vars(record)}")


@pytest.fixture(autouse=True)
def found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is looked up once: that takes longer than all else."""
    monkeypatch.setattr(connectors, "entry_points", functools.cache(connectors.entry_points))


@pytest.fixture
def log() -> Iterator[Log]:
    handler, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


def leaks(makers: dict[str, Callable[[], Any]], log: Log) -> dict[str, str]:
    """Return where the canary was seen: what was done, and one of the texts that have it."""
    found = {}
    for what, make in makers.items():
        for text in (*shown_by(make), *log.texts):
            if CANARY in text:
                found[what] = text
        log.texts.clear()
    return found


def made_by(connector: Any) -> Callable[[], Any]:
    return lambda: procrastinate.App(connector=connector).connector


@pytest.mark.filterwarnings("ignore")
def test_no_password_of_a_string_is_shown(log: Log) -> None:
    found = leaks({text: made_by(text) for text in strings()}, log)
    assert found == {}


#: The arguments in which connectors take strings, and those in which they take a password alone.
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AiopgConnector": (("dsn",), ("password", "passwd")),
    "Psycopg2Connector": (("dsn",), ("password", "passwd")),
    "PsycopgConnector": (("conninfo", "listen_conninfo"), ("password", "passwd")),
    "SyncPsycopgConnector": (("conninfo",), ("password", "passwd")),
    "AsyncpgConnector": (("dsn", "listen_dsn"), ("password", "passwd")),
    "SQLAlchemyConnector": (("url",), ("password",)),
    "SQLAlchemyPsycopg2Connector": (("url", "dsn"), ("password",)),
    "SQLAlchemyAsyncConnector": (("url", "listen_dsn"), ("password",)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_no_password_of_an_argument_is_shown(name: str, log: Log) -> None:
    whole, alone = ARGUMENTS[name]
    kind = connectors.by_class_name(name)
    assert kind is not None
    chosen = random.Random(name)
    secrets = list(passwords())
    schemes = ("postgresql", "postgresql+psycopg2", "postgresql+asyncpg")
    places = [f"{scheme}://{place}" for scheme in schemes for place in URL_PLACES]
    makers: dict[str, Callable[[], Any]] = {}
    for argument in whole:
        for place in (*places, *DSN_PLACES):
            for secret in chosen.sample(secrets, 10):
                given = {argument: place.replace("{}", secret)}
                makers[f"{name}(**{given})"] = lambda given=given: kind(**given)  # type: ignore[misc]
    for argument in alone:
        for secret in chosen.sample(secrets, 100):
            for more in ({}, {"port": "x"}, {"nonsense": 1}, {"connect_args": {argument: secret}}):
                given = {argument: secret, **more}
                makers[f"{name}(**{given})"] = lambda given=given: kind(**given)  # type: ignore[misc]
    assert leaks(makers, log) == {}
