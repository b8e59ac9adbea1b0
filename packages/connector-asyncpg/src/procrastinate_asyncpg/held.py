"""One asyncpg connection in the hands of a session: what goes to the server, and in how few trips.

Rules

1. asyncpg speaks the extended protocol, in which settings and BEGIN cannot travel with a statement.
   On a connection of our own they are set for the session, in one message, and stay until a query
   wants them otherwise: so most statements need no message of their own for that.
2. On a connection that others use too, or behind a pooler, a query whose settings differ from what
   is in force gets a transaction of its own. What is in force is asked once per pool.
3. In a transaction, settings are its own (SET LOCAL). A query in it that has none is not given
   back what was in force before: that is rule 9 of the contract.
4. Statements with parameters are prepared on a direct connection of our own, which saves a round
   trip each. The server plans those with settings for the planner anew for each execution, unless
   they say `keeps_plan`. The others (defers) are calls of functions, whose plans it is to keep: it
   made a defer take the server half as long again to plan those anew.
5. Nothing is prepared behind a pooler, which is found by the server's process id: the protocol's is
   not the one that the server itself says.
6. The owner of a pool may take back what was prepared (DISCARD ALL). asyncpg goes on to send the
   names of such statements, and each would fail for ever. So all are forgotten at the first error;
   outside of a transaction the statement, which was not executed, is sent again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import sockets
from procrastinate.errors import ConnectorException
from procrastinate_asyncpg.calls import fetched, is_direct, to_its_end
from procrastinate_asyncpg.failures import DRIVER_ERRORS, is_closed, terminate
from procrastinate_asyncpg.kinds import Connection
from procrastinate_asyncpg.statements import is_script, prepared, rows_of

PREPARED_AT_MOST = 200  # statements on one connection
#: The session's form of what is a transaction's own setting.
_OF_SESSION = {"transaction_isolation": "default_transaction_isolation"}
#: What stays set on a connection of ours for statements that do not name it: they are right with
#: either, and each change would be a round trip.
_STAY = frozenset(
    {
        "jit",
        "array_nulls",
        "default_transaction_isolation",
        "enable_indexscan",
        "enable_nestloop",
    }
)
#: Without it, a statement executed often gets a plan that does not look at its values (rule 4): to
#: end 500 jobs by one that was made for 10 took 140 ms instead of 2.
_PLANNED_ANEW = {"plan_cache_mode": "force_custom_plan"}
_CHANGED = "0A000"  # the type of a prepared statement's result, and other things
_MISSING, _IN_THE_WAY = "26000", "42P05"  # prepared statements, where a pooler was not found
_SAVEPOINTS = ("savepoint", "release", "rollback")


@dataclass(slots=True)
class Known:
    """What is known of all connections of a pool."""

    #: Whether they lead to one server process each, and are ours alone; None: not asked yet.
    direct: bool | None
    #: What is in force without us, by name.
    in_force: dict[str, str | None] = field(default_factory=dict)


class Held:
    """A connection as a lease of a session (`procrastinate.connector_tools.sessions`)."""

    __slots__ = (
        "_fileno",
        "_in_transaction_set",
        "_known",
        "_made",
        "_plans",
        "_set",
        "_settled",
        "broken",
        "connection",
    )

    def __init__(self, connection: Connection, known: Known) -> None:
        self.connection = connection
        self._known = known
        #: Not to be given out again, whatever its state.
        self.broken = False
        self._plans: OrderedDict[str, Any] = OrderedDict()
        self._set: dict[str, str] = {}  # for the session
        #: For the transaction; None if it is not known any more.
        self._in_transaction_set: dict[str, str] | None = None
        self._made = 0  # statements prepared
        #: Settings of a query, which the session has: a query with the very same sends none.
        self._settled: Mapping[str, str] | None = None
        self._fileno = fileno_of(connection)

    # As a lease

    @property
    def in_transaction(self) -> bool:
        return not is_closed(self.connection) and self.connection.is_in_transaction()

    @property
    def reusable(self) -> bool:
        connection = self.connection
        return not (self.broken or is_closed(connection) or connection.is_in_transaction())

    def sever(self) -> None:
        self.broken = True
        terminate(self.connection)

    async def run(self, query: Query, begin: str) -> Rows:
        """Execute a query, after ``begin`` if that is not empty. Raises `ConnectorException`."""
        try:
            return await to_its_end(self.connection, self._run(query, begin), query)
        except ConnectorException as exc:
            if exc.sqlstate in (_CHANGED, _MISSING, _IN_THE_WAY) and self._plans:
                self.broken = True
            if isinstance(exc.__cause__, TimeoutError):  # the server may still be at it
                self.broken = True
            if exc.sqlstate != _MISSING:
                raise
            self._plans.clear()
            await self.connection.reload_schema_state()
            if begin or self.in_transaction:
                raise
        return await to_its_end(self.connection, self._run_again(query), query)

    async def _run_again(self, query: Query) -> Rows:
        if self._set:  # it may be what it was, or not
            await self.connection.execute("RESET ALL")
            self._set.clear()
        self._settled = None
        return await self._run(query, "")

    async def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK, and return what the server says that it did."""
        return await to_its_end(self.connection, self._command(command))

    async def _command(self, sql: str) -> str:
        if is_closed(self.connection):
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed before")
        done: str = await self.connection.execute(sql)
        return done

    async def _run(self, query: Query, begin: str) -> Rows:
        if is_closed(self.connection):
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed before")
        is_settled = query.settings is self._settled and query.params and not begin
        if is_settled and not self.connection.is_in_transaction():
            return await self._fetch(query)
        query.set_local()  # refuses what cannot be a setting
        if begin:
            self._in_transaction_set = {}
            first = begin + self._local(self._wanted(query), begins=True)
            if is_script(query):
                await self.connection.execute(first + query.sql)
                return []
            await self.connection.execute(first)
            return await self._fetch(query)
        if self.connection.is_in_transaction():
            return await self._run_in_transaction(query)
        if is_script(query):  # one message is one transaction
            await self.connection.execute(query.set_local() + query.sql)
            return []
        if self._known.direct:
            self._settled = None
            await self._set_for_session(self._wanted(query))
            self._settled = query.settings
            return await self._fetch(query)
        wanted = self._wanted(query)
        if await self._deviates(wanted):
            return await self._run_in_own_transaction(query, wanted)
        return await self._fetch(query)

    async def _run_in_transaction(self, query: Query) -> Rows:
        first = self._local(self._wanted(query)) if query.settings else ""
        if is_script(query):
            await self.connection.execute(first + query.sql)
            return []
        if first:
            await self.connection.execute(first)
        if query.sql.lstrip()[:9].lower().startswith(_SAVEPOINTS):
            self._in_transaction_set = None  # a savepoint takes back what was set after it
        return await self._fetch(query)

    async def _run_in_own_transaction(self, query: Query, wanted: Mapping[str, str]) -> Rows:
        self._in_transaction_set = {}
        await self.connection.execute("BEGIN;" + self._local(wanted))
        try:
            rows = await self._fetch(query)
        except BaseException:
            await self._back_out()
            raise
        await self.connection.execute("COMMIT")
        return rows

    async def _back_out(self) -> None:
        """Roll back; a failure must not hide the error that is under way."""
        try:
            if not is_closed(self.connection):
                await self.connection.execute("ROLLBACK")
        except DRIVER_ERRORS:
            self.broken = True

    # Settings

    def _wanted(self, query: Query) -> dict[str, str]:
        """Return the settings of a query, and how its plan is made (rule 4)."""
        wanted = dict(query.settings)
        if query.is_for_the_planner and not query.keeps_plan:
            wanted.update(_PLANNED_ANEW)
        return wanted

    def _local(self, wanted: Mapping[str, str], *, begins: bool = False) -> str:
        """Return what sets these for the transaction; at its begin, takes back all others."""
        changes = {name: value for name, value in wanted.items() if self._in_force(name) != value}
        if self._in_transaction_set is not None:
            self._in_transaction_set.update(changes)
        back = self._to_take_back(wanted) if begins else []
        return "".join(
            [f"SET LOCAL {name} TO DEFAULT;" for name in back]
            + [f"SET LOCAL {name} = '{value}';" for name, value in changes.items()]
        )

    def _in_force(self, name: str) -> str | None:
        """Return what was set in this transaction, or for the session; None if it is not known."""
        if self._in_transaction_set is None:
            return None
        return self._in_transaction_set.get(name, self._set.get(_OF_SESSION.get(name, name)))

    def _to_take_back(self, wanted: Mapping[str, str]) -> list[str]:
        return [name for name in self._set if name not in wanted and name not in _STAY]

    async def _set_for_session(self, settings: Mapping[str, str]) -> None:
        wanted = {_OF_SESSION.get(name, name): value for name, value in settings.items()}
        changes = {name: value for name, value in wanted.items() if self._set.get(name) != value}
        back = self._to_take_back(wanted)
        if not (changes or back):
            return
        # Some of it may be set and not be noted, if this fails.
        broken, self.broken = self.broken, True
        await self.connection.execute(
            "".join(f"SET {name} = '{value}';" for name, value in changes.items())
            + "".join(f"RESET {name};" for name in back)
        )
        self.broken = broken
        self._set.update(changes)
        for name in back:
            del self._set[name]

    async def _deviates(self, settings: Mapping[str, str]) -> bool:
        in_force = self._known.in_force
        unknown = [name for name in settings if name not in in_force]
        if unknown:
            in_force.update(await self._ask(unknown))
        return any(in_force[name] != value for name, value in settings.items())

    async def _ask(self, names: list[str]) -> dict[str, str | None]:
        query = Query(
            "ask_for_settings",
            "SELECT name, pg_catalog.current_setting(name, true)"
            " FROM pg_catalog.unnest(%(names)s::text[]) AS name",
            {"names": names},
        )
        return dict(await fetched(self.connection, query))

    # Statements

    async def _fetch(self, query: Query) -> Rows:
        if not (self._known.direct and query.params):
            return await fetched(self.connection, query)
        sql, values = prepared(query)
        plan = self._plans.get(sql)
        if plan is None:
            self._made += 1  # no name is used twice
            plan = self._plans[sql] = await self.connection.prepare(
                sql, name=f"procrastinate_{self._made}", record_class=asyncpg.Record
            )
            if len(self._plans) > PREPARED_AT_MOST:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(sql)
        return rows_of(await plan.fetch(*values))

    # The life of a connection

    async def find_out(self) -> None:
        """Ask whether the connection leads straight to a server process (rule 5)."""
        self._known.direct = await is_direct(self.connection)

    def is_alive(self) -> bool:
        """Return whether an idle connection is still the server's, as far as it can be known.

        The event loop may not have had the time to hear of its end: so the socket is looked at.
        """
        if is_closed(self.connection):
            return False
        return self._fileno is None or not sockets.readable(self._fileno)


def fileno_of(connection: Connection) -> int | None:
    """Return the file descriptor of a connection's socket; None if it is not to be had."""
    transport = getattr(connection, "_transport", None)  # asyncpg has no public word for it
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return None
    fileno: int = found.fileno()
    return fileno if fileno >= 0 else None
