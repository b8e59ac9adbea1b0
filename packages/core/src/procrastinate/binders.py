"""Finding what runs queries on a caller's connection: the entry points ``procrastinate.binders``.

An entry point's name is the qualified name of a class of connections
(``psycopg2.extensions.connection``), its object a `Binder`. It serves the subclasses as well.

Rules

1. Only names are compared until a binder is found, so nothing is imported for a connection of
   another kind. The names are those of the object's type and of its bases, and then those of what
   the object says it is (``__class__``): a proxy that traces calls says what it stands for.
2. No code of the object runs but its ``__class__``. A Mock is refused by what it is.
3. A refusal says what to write instead, or which package to install.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from procrastinate import connectors, errors
from procrastinate.connector import AsyncExecutor, Binder, Executor

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "procrastinate.binders"

_PSYCOPG2 = "procrastinate-psycopg2"
_AIOPG = "procrastinate-aiopg"
_PSYCOPG = "procrastinate-psycopg"
_ASYNCPG = "procrastinate-asyncpg"
_SQLALCHEMY = "procrastinate-sqlalchemy"
_SQLALCHEMY_ASYNC = "procrastinate-sqlalchemy-async"
_DJANGO = "procrastinate-django"

#: The classes that this project's packages bind: what people call them, and the package.
PUBLISHED: Mapping[str, tuple[str, str]] = {
    "psycopg2.extensions.connection": ("psycopg2 connection", _PSYCOPG2),
    "aiopg.connection.Connection": ("aiopg connection", _AIOPG),
    "psycopg.Connection": ("psycopg connection", _PSYCOPG),
    "psycopg.AsyncConnection": ("psycopg AsyncConnection", _PSYCOPG),
    "asyncpg.connection.Connection": ("asyncpg connection", _ASYNCPG),
    "asyncpg.pool.PoolConnectionProxy": ("asyncpg connection", _ASYNCPG),
    "sqlalchemy.engine.base.Connection": ("SQLAlchemy Connection", _SQLALCHEMY),
    "sqlalchemy.orm.session.Session": ("SQLAlchemy Session", _SQLALCHEMY),
    "sqlalchemy.orm.scoping.scoped_session": ("SQLAlchemy scoped_session", _SQLALCHEMY),
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": (
        "SQLAlchemy AsyncConnection",
        _SQLALCHEMY_ASYNC,
    ),
    "sqlalchemy.ext.asyncio.session.AsyncSession": ("SQLAlchemy AsyncSession", _SQLALCHEMY_ASYNC),
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": (
        "SQLAlchemy async_scoped_session",
        _SQLALCHEMY_ASYNC,
    ),
    "django.utils.connection.ConnectionProxy": ("Django connection", _DJANGO),
    "django.db.backends.base.base.BaseDatabaseWrapper": ("Django connection", _DJANGO),
}

_OF_A_POOL = "that is a pool, and connection= takes a connection of it"
_OF_AN_ENGINE = "that is an engine, and connection= takes a connection of it"
_A_CURSOR = "that is a cursor: give its connection"
_A_FACTORY = "that makes sessions, and connection= takes a session"
#: What people give instead of a connection, and what to say of it.
NEIGHBOURS: Mapping[str, str] = {
    "psycopg2.extensions.cursor": _A_CURSOR,
    "psycopg2.pool.AbstractConnectionPool": f"{_OF_A_POOL}: what pool.getconn() returns",
    "aiopg.pool.Pool": f"{_OF_A_POOL}: async with pool.acquire() as connection",
    "aiopg.connection.Cursor": _A_CURSOR,
    "aiopg.utils._ContextManager": "await it first, and give what it returns",
    "aiopg.utils._PoolAcquireContextManager": "await it first, and give what it returns",
    "aiopg.sa.connection.SAConnection": (
        "aiopg.sa is not supported, as it does not work with SQLAlchemy 2"
    ),
    "psycopg.Cursor": _A_CURSOR,
    "psycopg.AsyncCursor": _A_CURSOR,
    "psycopg_pool.pool.ConnectionPool": f"{_OF_A_POOL}: with pool.connection() as connection",
    "psycopg_pool.pool_async.AsyncConnectionPool": (
        f"{_OF_A_POOL}: async with pool.connection() as connection"
    ),
    "asyncpg.pool.Pool": f"{_OF_A_POOL}: async with pool.acquire() as connection",
    "sqlalchemy.engine.base.Engine": f"{_OF_AN_ENGINE}: with engine.begin() as connection",
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": (
        f"{_OF_AN_ENGINE}: async with engine.begin() as connection"
    ),
    "sqlalchemy.orm.session.sessionmaker": f"{_A_FACTORY}: with Session.begin() as session",
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": (
        f"{_A_FACTORY}: async with Session.begin() as session"
    ),
    "sqlalchemy.pool.base._ConnectionFairy": (
        "that is the raw connection of SQLAlchemy's pool: give the Connection or the Session"
    ),
    "unittest.mock.NonCallableMock": (
        "a Mock carries nothing to a database; in tests, give the app an InMemoryConnector, which"
        " takes any connection="
    ),
    "unittest.mock._Call": "a mock's call carries nothing to a database",
    "procrastinate.testing.connector.InMemoryConnection": (
        "it belongs to an InMemoryConnector, and this app has another connector"
    ),
}

_MRO = type.__dict__["__mro__"].__get__  # whatever a metaclass says
_MODULE = type.__dict__["__module__"].__get__
_QUALNAME = type.__dict__["__qualname__"].__get__


def available() -> dict[str, str]:
    """Return what can be bound: ``{qualified name of a class: where its binder comes from}``.

    Imports none of them.
    """
    return {name: _origins(found) for name, found in sorted(connectors.entry_points(GROUP).items())}


def words_of(package: str) -> tuple[str, ...]:
    """Return what a package can bind, in words for people. Imports its binders.

    Raises `ConnectorBroken`.
    """
    words: dict[str, None] = {}
    for found in connectors.entry_points(GROUP).values():
        for each in found:
            if connectors._distribution(each)[0] == package:
                words[_loaded(each).words] = None
    return tuple(words)


def binder_of(connection: Any) -> Binder:
    """Return the binder of a connection.

    Raises `InvalidOption` for what is no connection, `ConnectorNotInstalled` for one of a kind
    that a package of this project binds that is not installed, `ConnectorConflict` if two packages
    bind it, and `ConnectorBroken`.
    """
    kind: Any = type(connection)  # for a checker, a class need not be hashable
    return _binder_of(kind, _claimed_class(connection))


def bound(binder: Binder, connection: Any) -> Executor:
    """Return an executor in the transaction of a caller's synchronous connection.

    Raises `InvalidOption` for an asynchronous connection, or one that cannot be used.
    """
    if binder.bind is None:
        raise errors.InvalidOption(
            f"the {binder.words} given as connection= is for coroutines: await the _async method,"
            " as in `await task.configure(connection=connection).defer_async(...)`"
        )
    with _refusals(binder):
        return binder.bind(connection)


def bound_async(binder: Binder, connection: Any) -> AsyncExecutor:
    """Return an executor in the transaction of a caller's asynchronous connection.

    Raises `InvalidOption` for one that cannot be used.
    """
    assert binder.bind_async is not None
    with _refusals(binder):
        return binder.bind_async(connection)


@contextlib.contextmanager
def _refusals(binder: Binder) -> Iterator[None]:
    try:
        yield
    except errors.ProcrastinateException:
        raise
    except Exception as exc:  # what only says that it is a connection may raise anything
        raise errors.InvalidOption(
            f"what is given as connection= cannot be used as {_article(binder.words)}:"
            f" {_name(type(exc))}"
        ) from exc


@functools.lru_cache(maxsize=256)
def _binder_of(kind: type, claimed: type | None) -> Binder:
    installed = connectors.entry_points(GROUP)
    for name in _names(kind, claimed):
        if name in NEIGHBOURS:
            raise errors.InvalidOption(f"connection= takes no {name}: {NEIGHBOURS[name]}")
        if name in installed:
            return _only(name, installed[name])
        if name in PUBLISHED:
            words, package = PUBLISHED[name]
            raise errors.ConnectorImportError(
                f"the {words} given as connection= cannot be used yet: run `pip install {package}`"
            )
    raise errors.InvalidOption(
        f"connection= takes a connection or session to PostgreSQL, not {_name(kind)}"
        f" (installed packages take: {', '.join(sorted(installed)) or 'none'})"
    )


def _only(name: str, found: list[metadata.EntryPoint]) -> Binder:
    if len(found) > 1:
        raise errors.ConnectorConflict(
            f"two packages bind connections of the class {name}: uninstall one of {_origins(found)}"
        )
    return _loaded(found[0])


def _loaded(entry_point: metadata.EntryPoint) -> Binder:
    binder = connectors.load(entry_point, "the binder of")
    if not isinstance(binder, Binder):
        raise errors.ConnectorBroken(
            f"the binder of {entry_point.name!r} of {connectors._origin(entry_point)} is no"
            f" procrastinate.connector.Binder: {_name(type(binder))}"
        )
    return binder


def _names(kind: type, claimed: type | None) -> Iterator[str]:
    for each in (kind, claimed):
        if each is not None:
            yield from map(_name, _MRO(each))


def _claimed_class(connection: Any) -> type | None:
    """Return what an object says its class is, if that is another class."""
    try:
        claimed = connection.__class__
    except Exception:  # a proxy without a target may raise anything
        return None
    kind = type(connection)
    return claimed if issubclass(type(claimed), type) and claimed is not kind else None


def _article(words: str) -> str:
    return f"{'an' if words[:1].lower() in 'aeiou' or words[:3] == 'SQL' else 'a'} {words}"


def _name(kind: type) -> str:
    return f"{_MODULE(kind)}.{_QUALNAME(kind)}"


def _origins(found: list[metadata.EntryPoint]) -> str:
    return " and ".join(sorted(map(connectors._origin, found)))
