"""The connector contract: all that core asks of a driver.

A connector package implements `SyncConnector`, or `AsyncConnector` (`ListeningConnector` where
it can LISTEN), and announces its class in the entry-point group ``procrastinate.connectors``.
The public test kit, ``procrastinate-connector-testkit``, says when it is done.

Rules

1. A `Query` is one SQL text with ``%(name)s`` placeholders and a mapping of values. Values come
   from the closed set `Value`; every placeholder in core's SQL carries a cast. With an empty
   mapping the text is sent as it is: ``%`` then means itself, and the text may hold several
   statements (migrations do).
2. ``execute`` returns the rows of the statement as a sequence of tuples, ``[]`` where it returns
   none. Numbers arrive as int and float, texts as str, timestamptz as aware datetimes, arrays as
   lists. JSON never reaches a connector: it travels as text, in both directions. Texts travel in
   UTF8, whatever the settings of the role, the database or the environment ask for.
3. A session is one connection. With ``transaction=True`` it is one transaction, committed when
   the block ends and rolled back when it raises; a block that ends well although one of its
   statements had failed raises instead of pretending to have committed. With
   ``transaction=False`` every query commits by itself (autocommit, one round trip each). With
   ``read_only=True``, which needs ``transaction=True``, the server refuses what would write;
   `begin` gives the SQL, so that it costs no round trip. The next user of the connection sees
   nothing of a session: no transaction, and no setting or prepared statement of the connector's
   own but those of rule 11. Core's statements leave nothing there.
4. A `Binder` gives an executor that runs inside the caller's own transaction, on the caller's
   connection: it never begins, commits, rolls back or closes, and neither needs nor changes the
   connection's row or cursor factory. A package announces one for each class of connections, in the
   entry-point group ``procrastinate.binders``.
5. Pools or engines handed to ``open`` belong to the caller and are never closed. One whose
   connections have another encoding than UTF8 is refused with `InvalidOption`.
6. Every error is a `procrastinate.errors.ConnectorException`, raised from the driver's own
   exception: `database_error` for what the server reported, `ConnectionFailed`, `PoolTimeout`
   and `ConnectionLost` for the connection itself. Messages are never parsed. A connection that
   broke is not given out again.
7. Connectors do not reconnect by themselves in the middle of a session and never repeat a
   statement; core decides that. They do replace connections of their pool found dead *before*
   a statement was sent.
8. What a connector cannot do is absent from its type.
9. A query's ``settings`` are in force only while it runs: in a session the connector
   sends `set_local` of them in front of the statement, in the same message (with BEGIN, if that is
   due), so that they cost no round trip. An executor of a `Binder` leaves them out: the caller's
   transaction keeps the caller's settings.
10. ``sever`` shuts a session's connection down while another thread, or another task, waits for
    it: the statement under way (COMMIT and ROLLBACK too) raises `ConnectionLost` at once. It sends
    nothing, waits for nothing and never raises; after the session's end it does nothing. Core calls
    it if no answer came in time. So the connector closes its own idle connections too, because
    these are probably as silent.
11. The plan of a query that says `keeps_plan` fits all values: one that a worker sends often, or a
    call of a function. A connector may prepare it, but only on connections of its own, and not
    behind a pooler, where the next transaction may be on another connection of the server. There
    the settings of a call may stay for the session as well. It may prepare all other queries there
    too, if that saves a round trip, under names that begin with ``procrastinate_``. The plans of
    those that have settings are then to be made anew for each execution (``plan_cache_mode``).
12. ``timeout`` of a session is how many seconds it waits for a connection of the pool (0: not at
    all), instead of the pool's own time; then it raises `PoolTimeout`. To make a new connection may
    take longer: that has a limit of its own.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from procrastinate import json_codec
from procrastinate.connector_options import check_function, check_schema
from procrastinate.errors import SchemaError
from procrastinate.former import HasFormerNames, missing_from
from procrastinate.query import GENERIC as GENERIC
from procrastinate.query import Query as Query
from procrastinate.query import Row as Row
from procrastinate.query import Rows as Rows
from procrastinate.query import Value as Value

T = TypeVar("T")

#: The version of this contract. A connector names the one that it was built for in
#: `Connector.contract`; another number is refused when the connector is loaded.
CONTRACT_VERSION = 2


class Executor(Protocol):
    """Runs queries on one connection, synchronously."""

    def execute(self, query: Query, /) -> Rows:
        """Execute one statement and return its rows (rule 2)."""
        ...


class AsyncExecutor(Protocol):
    """Runs queries on one connection, asynchronously."""

    async def execute(self, query: Query, /) -> Rows:
        """Execute one statement and return its rows (rule 2)."""
        ...


class SessionExecutor(Executor, Protocol):
    """What a session gives: it runs queries, and can be severed."""

    def sever(self) -> None:
        """Shut the connection's socket down, from any thread (rule 10)."""


class AsyncSessionExecutor(AsyncExecutor, Protocol):
    """What an asynchronous session gives: it runs queries, and can be severed."""

    def sever(self) -> None:
        """Shut the connection's socket down, on the session's event loop (rule 10)."""


class RollsBack(Protocol):
    """A connection or session with ``rollback()``, such as psycopg's or SQLAlchemy's."""

    @property
    def rollback(self) -> Callable[..., Any]:
        """What ends its transaction without a change."""
        ...


class HasTransactions(Protocol):
    """A connection with ``transaction()`` and ``is_in_transaction()``, such as asyncpg's."""

    @property
    def transaction(self) -> Callable[..., Any]:
        """What begins a transaction."""
        ...

    @property
    def is_in_transaction(self) -> Callable[..., Any]:
        """What says whether it is in one."""
        ...


class OwnConnection:
    """A connection that a connector has made itself (`Connector.own_binder`)."""


#: What type checkers take for ``connection=``: connections and sessions of every driver that is
#: bound, and not their pools, engines, cursors or factories. At run time, binders decide.
CallerConnection: TypeAlias = RollsBack | HasTransactions | OwnConnection


@dataclass(frozen=True)
class Binder:
    """What gives executors on the connections of callers (rule 4), for one class of connections.

    An entry point of the group ``procrastinate.binders`` has it as its object, and the qualified
    name of the class as its name: ``"psycopg2.extensions.connection"``. It serves subclasses too.
    ``words`` are for people: "psycopg2 connection". A synchronous connection has ``bind``, and an
    asynchronous one ``bind_async``. They send nothing, and raise `InvalidOption` for a connection
    that is closed, and for what only says that it is one.

    ``call_async`` makes a blocking call on a synchronous connection from a coroutine; None: in a
    thread.
    """

    words: str
    bind: Callable[[Any], Executor] | None = None
    bind_async: Callable[[Any], AsyncExecutor] | None = None
    call_async: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """One NOTIFY as heard by a listener."""

    channel: str
    payload: str


class Connector(HasFormerNames, abc.ABC):
    """What every connector has; implement one of its subclasses.

    ``schema`` names the PostgreSQL schema of procrastinate's tables; None leaves it to the
    connection's ``search_path``. ``json_dumps`` and ``json_loads`` encode and decode task
    arguments (object to str, str to object). Raises `InvalidOption` if one of them cannot be that.
    """

    #: The contract version that this class was written for: a literal, not `CONTRACT_VERSION`.
    contract: ClassVar[int]
    #: Whether ``execute`` runs any SQL, or (False) only core's named statements.
    runs_sql: ClassVar[bool] = True
    #: Whether it prepares of many texts only those that come again, as ``connector_tools.plans``
    #: does. Then what is sent often to a cluster names its partition, so that its plan can be kept.
    chooses_plans: ClassVar[bool] = False
    #: Whether it can be used without ``open``, having nothing to connect to.
    always_open: ClassVar[bool] = False

    def __init__(
        self,
        *,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
    ) -> None:
        self.json_dumps = check_function("json_dumps", json_dumps, json_codec.dumps)
        self.json_loads = check_function("json_loads", json_loads, json_codec.loads)
        self.schema = None if schema is None else check_schema(schema)

    @classmethod
    @abc.abstractmethod
    def from_url(cls, url: str) -> Connector:
        """Return a connector for ``NAME://user:password@host:port/database?option=value``.

        The scheme is the connector's entry-point name; ``NAME://`` alone leaves everything to
        libpq's environment. Raises `ConfigurationError` for an URL that cannot be one.
        """

    def worded(self, exc: SchemaError) -> SchemaError:
        """Return an error of the app's calls about the schema, with this connector's advice.

        For a connector whose tables are made otherwise than by the command line.
        """
        return exc

    def own_binder(self, connection: Any) -> Binder | None:
        """Return what binds a connection that this connector has made itself; else None.

        For a connector that keeps its jobs elsewhere than in a database. A connector that runs no
        SQL takes any other connection as well, and nothing goes through it.
        """
        return None


class SyncConnector(Connector):
    """A connector for synchronous code. Threads may share it; a forked child gets its own pool."""

    #: Whether it is core's own, of which an event loop in a thread serves all calls.
    runs_on_a_loop: ClassVar[bool] = False

    @abc.abstractmethod
    def open(self, pool: Any = None) -> None:
        """Make ready, with the caller's pool or engine where one is given. Twice is harmless."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what this connector opened itself. Twice is harmless; it may be opened again."""

    @abc.abstractmethod
    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractContextManager[SessionExecutor]:
        """Return a block holding one connection (rules 3 and 12).

        Raises `AppNotOpen` before ``open``, and `ConnectionFailed` or `PoolTimeout` when no
        connection is to be had. ``read_only`` without ``transaction`` is a ValueError.
        """

    def is_in_transaction(self) -> bool:
        """Whether a session would now be part of a transaction that the application has open.

        For a connector whose sessions are on the application's own connections: observers are told
        then that the application may still roll back, and waits for jobs go by `apart`.
        """
        return False

    def apart(self) -> SyncConnector | None:
        """Return a new, unopened connector whose sessions are part of no such transaction.

        It leads to the same tables, on connections of its own. Core opens it for one wait for a job
        inside of a transaction, and closes it afterwards. With None such a wait is refused: it sees
        the transaction's own jobs, which no worker can end before the commit.
        """
        return None

    async def call_async(self, function: Callable[[], T]) -> T:
        """Run a function that uses this connector and blocks, for an asynchronous caller.

        It runs in a thread. A connector whose connections belong to threads of their own runs it
        there.
        """
        from procrastinate.threads import in_thread  # not at the top: it needs asyncio

        return await in_thread(function)


class AsyncConnector(Connector):
    """A connector for asynchronous code, with a synchronous counterpart for plain code."""

    @abc.abstractmethod
    async def open_async(self, pool: Any = None) -> None:
        """Make ready, with the caller's pool where one is given. Twice is harmless."""

    @abc.abstractmethod
    async def close_async(self) -> None:
        """Close what this connector opened itself. Twice is harmless; it may be opened again."""

    @abc.abstractmethod
    def session_async(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncSessionExecutor]:
        """Return a block holding one connection (rules 3 and 12).

        A database call is never interrupted half-way by the cancellation of the waiting task:
        the call ends first, then the cancellation is delivered.
        """

    def sync_connector(self, *, connect_timeout: float | None = None) -> SyncConnector:
        """Return a new, unopened synchronous connector to the same database.

        Core opens it when it is first needed and closes it with the app. A worker asks for one
        more for its heartbeat, and for another one if it has periodic tasks to defer. Used by one
        thread, it opens one connection, whatever the sizes of the pool are. ``connect_timeout`` is
        the time to connect in seconds, unless the user gave another one.

        A connector whose driver has no synchronous half leaves this as it is, and implements
        `sibling`: then plain code is served by an event loop in a thread.
        """
        # Not at the top: it needs asyncio.
        from procrastinate.loop_thread import LoopThreadConnector

        return LoopThreadConnector(self, connect_timeout=connect_timeout)

    def check_for_worker(self) -> None:
        """Raise `ConfigurationError` if a worker cannot run on this connector as it is open.

        A pool handed in may be too small (a worker takes three connections of it), or say nothing
        of where it leads, which the connections beside it need to know.
        """
        self.sync_connector()

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> AsyncConnector:
        """Return a new, unopened connector to the same database, with the same options.

        Its pool makes up to ``max_connections``, and none before it needs one. ``connect_timeout``
        is the time to connect in seconds, unless the user gave another one. Core opens it on
        another event loop. A connector without a `sync_connector` of its own has to implement it.
        One that can listen should: if jobs are waited for, core LISTENs on a sibling with two
        connections. Without it, each wait asks the database now and then.
        """
        raise TypeError(
            f"{type(self).__name__} has neither a sync_connector() nor a sibling(): its class has"
            " to implement one of them"
        )


class ListeningConnector(AsyncConnector):
    """An asynchronous connector that hears NOTIFY."""

    @abc.abstractmethod
    def listen(
        self, channels: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notification]]:
        """Return a block that LISTENs on a connection of its own.

        Entering it returns once LISTEN is in force. The iterator raises `ConnectionLost` when the
        connection breaks; core then enters a new block and polls once for what was missed.
        Leaving the block leaves no LISTEN behind.
        """


def begin(*, transaction: bool, read_only: bool = False) -> str:
    """Return the SQL to send in front of a session's first query: empty without a transaction.

    Raises ValueError for ``read_only`` without ``transaction``.
    """
    if read_only:
        if not transaction:
            raise ValueError("a session can be read_only only with transaction=True")
        return "BEGIN READ ONLY;"
    return "BEGIN;" if transaction else ""


def capabilities(connector: type[Connector]) -> tuple[str, ...]:
    """Return what a connector class can do, as declared by its type, in words for people."""
    words = []
    if issubclass(connector, SyncConnector | AsyncConnector):
        words.append("defer")
    if issubclass(connector, AsyncConnector):
        words.extend(["async", "worker"])
    if issubclass(connector, ListeningConnector):
        words.append("listen")
    return tuple(words)


if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
