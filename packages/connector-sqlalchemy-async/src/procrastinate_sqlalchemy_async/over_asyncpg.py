"""Engines over asyncpg: its protocol carries one statement at a time.

Rules

1. Settings and BEGIN travel in a message of their own in front of the statement. On a connection
   that is ours alone, the settings stay for the statements that follow, and only what differs is
   sent: nearly all of ours ask for the same ones. On any other connection they end with a
   transaction around the statement.
2. asyncpg keeps the statement prepared. Its plan is made anew for each execution, unless the query
   says `keeps_plan`: one that was made for few jobs is slow for many. Those without settings for
   the planner (defers) are calls of functions, whose plans the server keeps.
3. Nothing is kept prepared behind a pooler. There a transaction is around each statement that has
   parameters, because its preparation and its execution must be on the same connection of the
   server.
4. JSON is text in both directions: the owner may have given jsonb another form. If the owner has
   changed how other types are read, a query does not go through SQLAlchemy (`asyncpg_values`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import asyncpg

from procrastinate.connector import Notification, Query, Rows
from procrastinate.connector_tools import failures, sockets
from procrastinate.connector_tools.asyncpg_values import (
    fetch_by_usual_codecs,
    has_changed_codecs,
    is_refused_value,
    with_json_as_text,
    without_value,
)
from procrastinate.connector_tools.calls import Uninterrupted
from procrastinate.errors import ConnectorException, database_error, why_read_only
from procrastinate_sqlalchemy_async.leases import Driver, Heard, Send, plain

_SAVEPOINT = re.compile(r"\s*(?:savepoint|rollback\s+to|release)\b", re.IGNORECASE)
#: asyncpg's own errors that stand for the end of a connection. InternalClientError: what the server
#: sent does not fit, such as the news of its end.
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InternalClientError, OSError)
_ISOLATION = "transaction_isolation"


class OverAsyncpg(Driver):
    """An asyncpg connection under SQLAlchemy."""

    name = "asyncpg"
    errors: ClassVar[tuple[type[Exception], ...]] = (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    )
    raw: asyncpg.Connection[Any]

    def __init__(
        self, raw: Any, *, own: bool, direct: bool, memory: dict[str, Any] | None = None
    ) -> None:
        super().__init__(raw, own=own, direct=direct)
        self._direct = direct
        #: What is set for the session on a connection that is ours alone; lives as long as that.
        self._kept: dict[str, str] = {} if memory is None else memory
        #: What is set in the transaction under way.
        self._local: dict[str, str] = {}
        self._isolation: Any = None
        self._ended: Any = None

    async def begin_session(self, adapter: Any) -> None:
        self._isolation, adapter.isolation_level = adapter.isolation_level, "autocommit"

    async def forget_prepared(self) -> None:
        await self.raw.reload_schema_state()

    async def end_session(self, adapter: Any) -> None:
        adapter.isolation_level = self._isolation

    async def run(self, query: Query, begin: str, send: Send | None) -> Rows:
        if not (query.params or _returns_rows(query.sql)):
            return await self._script(query, begin)
        settings = _wanted(query)
        if begin or self.in_transaction:
            await self._prepare_transaction(begin, settings)
            rows = await self._statement(query, send)
            if _SAVEPOINT.match(query.sql):
                self._local.clear()
            return rows
        if self.ours_alone:
            await self._keep(settings)
            return await self._statement(query, send)
        if not settings and (self._direct or not query.params):
            return await self._statement(query, send)
        return await self._in_transaction(query, settings, send)

    async def _prepare_transaction(self, begin: str, settings: dict[str, str]) -> None:
        if begin:
            self._local = {}
        new = {k: v for k, v in settings.items() if self._local.get(k) != v}
        front = begin + Query("settings", "", settings=new).set_local()
        if front:
            await self.command(front)
            self._local |= new

    async def _keep(self, settings: dict[str, str]) -> None:
        wanted = {_of_session(name): value for name, value in settings.items()}
        if wanted == self._kept:
            return
        message = "".join(f"RESET {name};" for name in self._kept if name not in wanted)
        message += "".join(
            f"SET {name} = '{value}';"
            for name, value in wanted.items()
            if self._kept.get(name) != value
        )
        await self.command(message)
        self._kept.clear()
        self._kept.update(wanted)

    async def _in_transaction(
        self, query: Query, settings: dict[str, str], send: Send | None
    ) -> Rows:
        await self._prepare_transaction("BEGIN;", settings)
        try:
            rows = await self._statement(query, send)
        except BaseException:
            if self.in_transaction:
                await self.command("ROLLBACK")
            raise
        await self.command("COMMIT")
        return rows

    async def _statement(self, query: Query, send: Send | None) -> Rows:
        sql, values = self.positional(query)
        if has_changed_codecs(self.raw):
            call = fetch_by_usual_codecs(self.raw, sql, values)
            return plain(await Uninterrupted(call, self.sever))
        if send is not None:
            return plain(await self.to_end(send(sql, values)))
        return plain(await Uninterrupted(self.raw.fetch(sql, *values), self.sever))

    async def _script(self, query: Query, begin: str) -> Rows:
        """Execute a text without values and rows, which may be several statements."""
        if self.ours_alone and not begin and not self.in_transaction:
            await self._keep({})
        await self.command(begin + query.set_local() + query.sql)
        self._local.clear()
        return []

    async def run_bound(self, query: Query, send: Send) -> Rows:
        is_script = not (query.params or _returns_rows(query.sql))
        if not (is_script or has_changed_codecs(self.raw)):
            return await super().run_bound(query, send)
        # Not by SQLAlchemy's adapter, which cannot send several statements, nor read by other
        # codecs. It begins its transaction with a statement of its own only.
        if not self.in_transaction:
            await self.to_end(send("SELECT 1", ()))
        if not is_script:
            return await self._statement(query, None)
        await self.command(query.sql)
        return []

    async def command(self, sql: str) -> str | None:
        return await Uninterrupted(self.raw.execute(sql), self.sever)

    @staticmethod
    def positional(query: Query) -> tuple[str, Any]:
        sql, values = query.numbered()
        return with_json_as_text(sql), tuple(values)

    def translate(self, exc: Exception, query: Query) -> ConnectorException | None:
        return translate(exc, query, self.raw)

    async def listen(self, channels: Sequence[str], heard: Heard) -> None:
        def notified(_: Any, pid: int, channel: str, payload: object) -> None:
            heard(Notification(channel=channel, payload=str(payload)))

        self._ended = lambda _: heard(
            asyncpg.ConnectionDoesNotExistError("the server has closed the connection")
        )
        self.raw.add_termination_listener(self._ended)
        for channel in channels:
            await self.to_end(self.raw.add_listener(channel, notified))

    def stop_listening(self) -> None:
        self.raw.remove_termination_listener(self._ended)

    @property
    def in_transaction(self) -> bool:
        return self.is_open and bool(self.raw.is_in_transaction())

    @property
    def is_open(self) -> bool:
        return not self.raw.is_closed()

    @property
    def is_quiet(self) -> bool:
        return True  # no call is left before it has ended

    def looks_alive(self) -> bool:
        fileno = self.fileno
        return fileno >= 0 and not sockets.readable(fileno)

    def sever(self) -> None:
        try:
            self.raw.terminate()
        except RuntimeError:  # its event loop has ended
            fileno = self.fileno
            if fileno >= 0:
                sockets.shut_down(fileno)

    @property
    def fileno(self) -> int:
        # asyncpg has no public word for it.
        transport = getattr(self.raw, "_transport", None)
        socket = None if transport is None else transport.get_extra_info("socket")
        return -1 if socket is None or self.raw.is_closed() else int(socket.fileno())

    @property
    def server_pid(self) -> int:
        return int(self.raw.get_server_pid())

    @property
    def encoding(self) -> str | None:
        said = getattr(self.raw.get_settings(), "client_encoding", None)
        # A pooler repeats it as asyncpg has asked for it: 'utf-8', with the quotes.
        return None if said is None else str(said).strip("'").replace("-", "").upper()


def _wanted(query: Query) -> dict[str, str]:
    """Return the settings of a query, and how its plan is made (rule 2)."""
    settings = dict(query.settings)
    if query.is_for_the_planner and query.params and not query.keeps_plan:
        settings["plan_cache_mode"] = "force_custom_plan"
    return settings


def _of_session(name: str) -> str:
    return f"default_{name}" if name == _ISOLATION else name


_COMMENTS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
_ROWS = re.compile(
    r"(?:select|with|values|table|show|explain|execute|insert|update|delete)\b", re.IGNORECASE
)


@functools.lru_cache(maxsize=1024)  # a cluster has many texts
def _returns_rows(sql: str) -> bool:
    """Return whether a text is one statement that may return rows."""
    start = _COMMENTS.match(sql)
    return _ROWS.match(sql, start.end() if start else 0) is not None and not _is_several(sql)


def _is_several(sql: str) -> bool:
    return ";" in re.sub(r"'(?:[^']|'')*'|--[^\n]*", "", sql.rstrip().rstrip(";"))


def translate(exc: Exception, query: Query, raw: Any) -> ConnectorException | None:
    """Return the error for what asyncpg raised on an established connection."""
    fields: Mapping[str, Any] = vars(exc)
    if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate and fields.get("severity"):
        primary = str(exc.args[0]) if exc.args else type(exc).__name__
        if failures.hides_detail(exc.sqlstate):
            exc.detail = None  # what a traceback shows of the cause
        return failures.server_error(
            primary,
            sqlstate=exc.sqlstate,
            detail=fields.get("detail"),
            constraint=fields.get("constraint_name"),
            severity=fields.get("severity_en"),
            reason=_why_read_only(raw) if exc.sqlstate == failures.READ_ONLY else "",
        )
    if isinstance(exc, _LOST):
        return failures.lost(exc)
    if isinstance(exc, asyncpg.DataError) and is_refused_value(exc):
        return failures.value_error(without_value(exc), query)
    if isinstance(exc, failures.VALUE_ERRORS):
        return failures.value_error(exc, query)
    if isinstance(exc, asyncpg.InterfaceError) and raw.is_closed():
        return failures.lost(exc)
    if isinstance(exc, OverAsyncpg.errors):
        return database_error(failures.one_line(exc))
    return None


def _why_read_only(raw: Any) -> str:
    said = raw.get_settings()
    return why_read_only(
        in_hot_standby=getattr(said, "in_hot_standby", None),
        by_default=getattr(said, "default_transaction_read_only", None),
        by_client=None,
    )
