"""What the kit has to be told of a connector: an `Adapter`, and one class for each ability.

Rules

1. Abilities are declared: an adapter inherits `LimitsPool`, `TakesPools` or `Binds`, and the
   connector's own type says whether it is asynchronous, whether it listens and whether it runs
   SQL. A capability that is not declared contributes no test.
2. Everything that an adapter returns for a block may be a synchronous or an asynchronous context
   manager, and everything that it returns to be called a plain function or a coroutine function.
   Blocks of asynchronous connectors are entered on the loop on which the connector is opened.
3. The abilities are those of the connector itself. The synchronous counterpart of an asynchronous
   one is checked too, in all that needs no ability.
"""

from __future__ import annotations

import abc
import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

from procrastinate import binders
from procrastinate.connector import Binder, Connector

T = TypeVar("T")

Block: TypeAlias = AbstractContextManager[T] | AbstractAsyncContextManager[T]
Opener: TypeAlias = Callable[[str], Block[T]]


class Adapter(abc.ABC):
    """How to make connectors of one kind."""

    #: The connector's class. Its type decides which tests there are.
    connector_class: ClassVar[type[Connector]]
    #: The name of its entry point, which is the scheme of its URLs; None where it has none yet.
    name: ClassVar[str | None] = None

    @abc.abstractmethod
    def connector(self, dsn: str, **options: Any) -> Connector:
        """Return a new, unopened connector to the database that a libpq connection string names.

        ``options`` are those of the contract: ``schema``, ``json_dumps``, ``json_loads``. The
        pool must allow at least 4 connections and be willing to wait for one for 30 seconds.
        """

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop, of the kind that an asynchronous connector needs.

        It is uvloop's if the environment variable ``PROCRASTINATE_TEST_LOOP`` is ``uvloop``.
        """
        if os.environ.get("PROCRASTINATE_TEST_LOOP") == "uvloop":
            import uvloop  # not at the top: who does not ask for it need not have it

            return uvloop.new_event_loop()
        return asyncio.new_event_loop()

    def referee(self, dsn: str) -> Connector:
        """Return the connector through which the kit looks at the database from outside."""
        return self.connector(dsn)


class LimitsPool(abc.ABC):
    """The connector's own pool can be limited."""

    @abc.abstractmethod
    def limited(self, dsn: str) -> Connector:
        """Return an unopened connector with one connection, for which it waits about a second."""


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class OwnedPool:
    """A pool (or engine) that belongs to the application, open and in use."""

    #: What goes to ``open``.
    pool: Any
    #: Runs SQL on one of its connections as its owner would, commits, and returns the rows.
    query: Callable[[str], Any | Awaitable[Any]]
    #: What else its owner relies on and would compare: autocommit, isolation level, factories.
    state: Callable[[], Any | Awaitable[Any]] = _nothing


class TakesPools(abc.ABC):
    """``open`` takes pools or engines of the application's."""

    @abc.abstractmethod
    def pools(self) -> Mapping[str, Opener[OwnedPool]]:
        """Return functions from a DSN to a block that holds such a pool, by what is special to it.

        Each pool allows at least 4 connections. Have one with a row factory of the owner's.
        """


@dataclass(frozen=True)
class OwnedConnection:
    """A connection that belongs to the application, in a transaction or ready to begin one."""

    #: What goes to ``connection=``.
    connection: Any
    #: Runs SQL in the transaction as its owner would, and returns the rows.
    query: Callable[[str], Any | Awaitable[Any]]
    commit: Callable[[], Any | Awaitable[Any]]
    rollback: Callable[[], Any | Awaitable[Any]]
    #: What else its owner relies on and would compare: autocommit, isolation level, factories.
    state: Callable[[], Any | Awaitable[Any]] = _nothing


class Binds(abc.ABC):
    """The package runs queries inside the caller's transactions, by its binders."""

    def binder(self, connection: Any) -> Binder:
        """Return what binds a connection: the installed binder, unless there is none yet."""
        return binders.binder_of(connection)

    @abc.abstractmethod
    def connections(self) -> Mapping[str, Opener[OwnedConnection]]:
        """Return functions from a DSN to a block that holds a connection, by kind.

        Have one for each class that the package's binders are for, and one with a row factory of
        the owner's.
        """
