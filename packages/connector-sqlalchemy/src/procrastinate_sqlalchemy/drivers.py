"""What is different between the drivers under SQLAlchemy.

A `Driver` has no state: it gets the driver's own connection, which it calls the real one.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from typing import Any, ClassVar, cast

from sqlalchemy.engine.interfaces import Dialect

from procrastinate.connector import Query, Row, Rows
from procrastinate.errors import ConfigurationError, ConnectorException, InvalidOption

#: Executes SQL with values through SQLAlchemy, and returns the rows as the cursor gives them.
Send = Callable[[str, Any], list[Row]]


class Driver(abc.ABC):
    """One of the drivers."""

    #: SQLAlchemy's name of it.
    name: ClassVar[str]
    #: The class of all of its errors.
    error: ClassVar[type[Exception]]
    #: What its connect() takes beside libpq's parameters.
    not_libpqs: ClassVar[frozenset[str]]
    #: What connections of ours are made with besides.
    connect_args: ClassVar[Mapping[str, Any]] = {}

    @abc.abstractmethod
    def real_connection(self, connection: Any) -> Any:
        """Return the driver's connection inside any proxies. Raises TypeError."""

    @abc.abstractmethod
    def check_encoding(self, real: Any, owner: str) -> None:
        """Raise `InvalidOption` unless texts travel in UTF8."""

    @abc.abstractmethod
    def check_bound(self, real: Any) -> None:
        """Raise `InvalidOption` if a caller's connection would store texts as others."""

    @abc.abstractmethod
    def is_idle(self, real: Any) -> bool:
        """Whether a connection is open, and outside of any transaction."""

    @abc.abstractmethod
    def in_transaction(self, real: Any) -> bool:
        """Whether a transaction is open, also a failed one."""

    @abc.abstractmethod
    def has_failed(self, real: Any) -> bool:
        """Whether the transaction that is open has failed."""

    @abc.abstractmethod
    def take(self, real: Any) -> Any:
        """Make a connection ready for a session, and return what `restore` needs. Sends nothing."""

    @abc.abstractmethod
    def restore(self, real: Any, before: Any) -> None:
        """Make a connection what it was before `take`. Sends nothing."""

    @abc.abstractmethod
    def looks_alive(self, real: Any) -> bool:
        """Whether an idle connection can be used, without a round trip."""

    @abc.abstractmethod
    def sever(self, real: Any) -> None:
        """Shut the socket down, from any thread. Never raises."""

    @abc.abstractmethod
    def run(self, real: Any, query: Query, prefix: str, send: Send | None) -> Rows:
        """Execute a query in a session, with ``prefix`` in front; by ``send`` if that is given."""

    @abc.abstractmethod
    def run_bound(self, real: Any, query: Query, send: Send) -> Rows:
        """Execute a query by ``send`` in the transaction of the connection's owner."""

    @abc.abstractmethod
    def translate(self, exc: Any, query: Query) -> ConnectorException:
        """Return the error for what a query raised on an established connection."""

    @abc.abstractmethod
    def connect_error(self, exc: Any) -> ConnectorException:
        """Return the error for what the driver raised while it made a connection."""


_DRIVERS: Mapping[str, tuple[str, str]] = {
    "psycopg2": ("procrastinate_sqlalchemy.over_psycopg2", "OverPsycopg2"),
    "psycopg": ("procrastinate_sqlalchemy.over_psycopg", "OverPsycopg"),
}
_LIBPQ = (
    "the driver psycopg finds no libpq, PostgreSQL's client library: run `pip install"
    " 'psycopg[binary]'`, which brings one, or install your system's libpq"
)
ALL: Sequence[str] = tuple(_DRIVERS)
_loaded: dict[str, Driver] = {}


def check_dialect(
    dialect: Dialect | type[Dialect], what: str, drivers: Sequence[str] = ALL
) -> None:
    """Raise `InvalidOption` unless a dialect is a synchronous one for one of the drivers."""
    if dialect.name == "postgresql" and dialect.driver in drivers and not dialect.is_async:
        return
    urls = " or ".join(f"postgresql+{name}://" for name in drivers)
    raise InvalidOption(
        f"{what} uses SQLAlchemy's dialect {dialect.name}+{dialect.driver}, and this connector "
        f"needs {' or '.join(drivers)}: write {urls} in the URL (SQLAlchemy 2.1 takes "
        "postgresql:// for psycopg 3)"
    )


def driver_of(dialect: Dialect | type[Dialect]) -> Driver:
    """Return what runs queries on connections of a dialect that `check_dialect` has let pass.

    Raises `ConfigurationError` if the driver cannot be imported.
    """
    name = dialect.driver
    if name not in _loaded:
        module, attribute = _DRIVERS[name]
        try:
            _loaded[name] = cast(Driver, getattr(importlib.import_module(module), attribute)())
        except ImportError as exc:
            if name == "psycopg" and util.find_spec(name) is not None:
                raise ConfigurationError(f"{_LIBPQ} ({' '.join(str(exc).split())})") from exc
            raise ConfigurationError(
                f"the driver {name} cannot be imported ({exc}): run"
                f" `pip install 'procrastinate-sqlalchemy[{name}]'`"
            ) from exc
    return _loaded[name]
