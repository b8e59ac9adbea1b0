"""The connector on Django's own connection, so that ``transaction.atomic`` decides about jobs.

Rules

1. Inside of ``atomic``, and where autocommit is off, a session is part of the transaction: it
   commits nothing, and a session with a transaction of its own is a savepoint. A query's settings
   are left out there (contract, rule 9).
2. Outside of it Django's connection is in autocommit mode, and a session is what it is in other
   connectors: a transaction is one BEGIN in front of its first query.
3. A session that begins while another one holds the thread's connection, outside of ``atomic``,
   gets a connection of its own, which is closed at its end. Only migrations do that.
4. A connection belongs to its thread, as Django has it. Coroutines come here by ``sync_to_async``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections, transaction

from procrastinate.connector import Query, Rows, SessionExecutor, SyncConnector, begin
from procrastinate.connector_tools import failures
from procrastinate.connector_tools.sessions import Session
from procrastinate.connector_tools.transactions import aborted
from procrastinate.errors import ConfigurationError, ConnectorException, InvalidOption, SchemaError
from procrastinate_django import drivers
from procrastinate_django.conf import read_conf

T = TypeVar("T")

_URL = re.compile(r"[A-Za-z][\w+.-]*://(?P<alias>[\w-]*)/?(\?schema=(?P<schema>\w+))?")
_READ_ONLY = Query("read_only", "set local transaction_read_only = on")
#: What Django raises if no connection can be made.
_DATABASE_ERRORS = (DatabaseError, InterfaceError)


class DjangoConnector(SyncConnector):
    """A synchronous connector on the connections of Django's ``DATABASES``.

    ``alias`` names the database, by default the one that the setting ``PROCRASTINATE`` names; the
    same goes for ``schema``. It needs no opening, and closing it closes nothing: connections are
    Django's. Inside of ``transaction.atomic`` jobs are part of the transaction.

    Raises ``ImproperlyConfigured`` for a setting that cannot be.
    """

    contract: ClassVar[int] = 2
    always_open: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alias: str | None = None,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
    ) -> None:
        conf = read_conf()
        schema = conf.schema if schema is None else schema
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        self.alias = conf.database if alias is None else alias

    @classmethod
    def from_url(cls, url: str) -> DjangoConnector:
        """Return a connector for ``django://ALIAS?schema=NAME``; both may be left out.

        Raises `ConfigurationError` for an URL that cannot be one.
        """
        match = _URL.fullmatch(url) if isinstance(url, str) else None
        if match is None:
            raise ConfigurationError(
                "the URL of Django's connector is django://ALIAS?schema=NAME: where the database"
                " is stands in DATABASES"
            )
        return cls(alias=match["alias"] or None, schema=match["schema"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias}>"

    def open(self, pool: Any = None) -> None:
        """Do nothing: Django connects when it has to.

        Raises `InvalidOption` for a pool, and `ConfigurationError` if the database is no PostgreSQL
        or its driver's package is not installed.
        """
        if pool is not None:
            raise InvalidOption(
                f"Django's connector runs on Django's connections, and takes no pool: leave"
                f" {type(pool).__name__} out"
            )
        check_database(connections[self.alias])

    def close(self) -> None:
        """Do nothing: the connections are Django's."""

    @contextmanager
    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> Iterator[SessionExecutor]:
        """Return a block on the connection of this thread.

        ``timeout`` has no meaning here: a pool of Django's has its own. Raises `ConnectionFailed`.
        """
        begin(transaction=transaction, read_only=read_only)  # or it raises
        wrapper = self._wrapper
        check_database(wrapper)
        if is_in_transaction(wrapper):
            with _joined(wrapper, transaction=transaction, read_only=read_only) as joined:
                yield joined
            return
        with (
            _own_if_busy(wrapper) as free,
            Session(_Source(free), transaction=transaction, read_only=read_only) as session,
        ):
            yield session

    def worded(self, exc: SchemaError) -> SchemaError:
        """Say what to do in Django, if its migrations make the tables that this connector uses."""
        conf = read_conf()
        if (self.alias, self.schema) == (conf.database, conf.schema):
            exc.args = (_in_django(str(exc), self.alias, self.schema), *exc.args[1:])
        return exc

    def is_in_transaction(self) -> bool:
        """Whether this thread is inside of ``atomic``, or without autocommit."""
        return is_in_transaction(self._wrapper)

    def apart(self) -> SyncConnector:
        """Return a connector on a connection of its own, in autocommit mode."""
        return _Apart(self)

    @property
    def _wrapper(self) -> Any:
        """Django's connection of this thread."""
        return connections[self.alias]

    async def call_async(self, function: Callable[[], T]) -> T:
        """Run a function in the thread of Django's synchronous code."""
        return await sync_to_async(function, thread_sensitive=True)()


class _Apart(DjangoConnector):
    """On a connection beside that of the thread, for a wait inside of a transaction."""

    def __init__(self, connector: DjangoConnector) -> None:
        super().__init__(
            alias=connector.alias,
            json_dumps=connector.json_dumps,
            json_loads=connector.json_loads,
            schema=connector.schema,
        )
        self._beside: Any = None

    @property
    def _wrapper(self) -> Any:
        if self._beside is None:  # made in the thread that will use it
            self._beside = connections[self.alias].copy()  # of its settings, too
            self._beside.settings_dict["AUTOCOMMIT"] = True
            # Threads that each hold a connection of a pool, and wait for another, would wait on.
            self._beside.settings_dict["OPTIONS"].pop("pool", None)
        return self._beside

    def close(self) -> None:
        """Close the connection."""
        if self._beside is not None:
            self._beside.close()


def _in_django(text: str, alias: str, schema: str | None) -> str:
    """Return a text of core's with Django's command and setting instead of core's own."""
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    migrate = f"`python manage.py migrate{database}`"
    for of_core in ("`procrastinate schema --apply`", "`procrastinate schema --migrate`"):
        text = text.replace(of_core, migrate)
    text = text.replace("`procrastinate import`", "`python manage.py procrastinate import`")
    text = text.replace(
        'by `schema="..."` for the connector (or its search_path)',
        "by `PROCRASTINATE = {'SCHEMA': ...}`",
    )
    text = text.replace("`schema=`", "`PROCRASTINATE = {'SCHEMA': ...}`")
    if schema is None:
        return text
    return text.replace(
        "in this database (or not on the search path)", f"in the schema {schema} of this database"
    )


def check_database(wrapper: Any) -> None:
    """Raise `ConfigurationError` unless a connection of Django's leads to PostgreSQL."""
    if wrapper.vendor != "postgresql":
        raise ConfigurationError(
            f"procrastinate needs PostgreSQL, and the database {wrapper.alias!r} is"
            f" {wrapper.vendor}: name another one in PROCRASTINATE['DATABASE']"
        )


def is_in_transaction(wrapper: Any) -> bool:
    """Return whether Django takes what is done now for part of a transaction."""
    if wrapper.in_atomic_block:
        return True
    if wrapper.connection is None:
        return not wrapper.settings_dict["AUTOCOMMIT"]
    return not wrapper.autocommit


def real_connection(wrapper: Any) -> Any:
    """Return the driver's connection, made if there is none. Raises `ConnectionFailed`."""
    try:
        wrapper.ensure_connection()
    except _DATABASE_ERRORS as exc:
        raise drivers.connect_error(exc) from exc
    return wrapper.connection


# Outside of transactions


class _Busy(threading.local):
    """The aliases whose connection a session of this thread holds."""

    def __init__(self) -> None:
        self.aliases: set[str] = set()


_busy = _Busy()


@contextmanager
def _own_if_busy(wrapper: Any) -> Iterator[Any]:
    """Give Django's connection to one session, and a new one to a session inside of that."""
    if wrapper.alias in _busy.aliases:
        another = wrapper.copy()
        try:
            yield another
        finally:
            another.close()
        return
    _busy.aliases.add(wrapper.alias)
    try:
        yield wrapper
    finally:
        _busy.aliases.remove(wrapper.alias)


class _Source:
    """Where a session gets Django's connection."""

    inherited = False

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._driver = drivers.driver()

    def acquire(self, timeout: float | None = None) -> drivers.Lease:
        wrapper = self._wrapper
        real = wrapper.connection
        if real is not None and not self._driver.looks_alive(real):
            wrapper.close()
        lease = self._driver.lease(real_connection(wrapper))
        if lease.in_transaction:
            raise ConnectorException(
                f"a transaction was begun by hand on the connection {wrapper.alias!r}, so Django"
                " does not know of it: use transaction.atomic()"
            )
        return lease

    def release(self, lease: drivers.Lease, *, discard: bool = False) -> None:
        if discard:
            self._wrapper.close()

    def discard_idle(self) -> None:
        """Leave the others alone: they are of other threads."""


# In a transaction


class _Joined:
    """Runs queries in the transaction that Django has, or will begin, on its connection."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._driver = drivers.driver()
        self._ended = False

    def execute(self, query: Query, /) -> Rows:
        if self._ended:
            raise failures.session_ended(query)
        return self._driver.bound(real_connection(self._wrapper)).execute(query)

    def sever(self) -> None:
        real = self._wrapper.connection
        if real is not None and not self._ended:
            self._driver.sever(real)

    def end(self) -> None:
        self._ended = True


@contextmanager
def _joined(wrapper: Any, *, transaction: bool, read_only: bool) -> Iterator[SessionExecutor]:
    joined = _Joined(wrapper)
    try:
        with _savepoint(wrapper) if transaction else nullcontext():
            if read_only:
                joined.execute(_READ_ONLY)
            yield joined
            if read_only:  # the setting would last to the end of the transaction
                set_rollback(wrapper)
    finally:
        joined.end()


@contextmanager
def _savepoint(wrapper: Any) -> Iterator[None]:
    block: AbstractContextManager[Any] = transaction.atomic(using=wrapper.alias)
    try:
        with block:
            yield
    except _DATABASE_ERRORS as exc:  # from its end: what runs within raises our errors
        raise aborted() from exc


def set_rollback(wrapper: Any) -> None:
    """Let the innermost block of ``atomic`` roll back at its end."""
    transaction.set_rollback(True, using=wrapper.alias)
