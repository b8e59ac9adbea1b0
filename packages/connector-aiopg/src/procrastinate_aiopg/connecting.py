"""Making aiopg connections.

Rules

1. aiopg watches the socket that it started with. With several hosts, or several addresses of one
   name, libpq drops that socket for another when the first server refuses or has the wrong
   ``target_session_attrs``, and aiopg waits for the dead one until its timeout (seen: 5 s of
   5 s allowed, where psycopg2 takes 7 ms). So libpq's handshake runs in a thread of ours, which
   asks for the socket's number at each step; that also keeps name resolution off the event loop.
   aiopg is handed the finished connection through psycopg2's ``connection_factory``.
2. In asynchronous mode libpq ignores ``connect_timeout``: we apply it. A host that answers nothing
   at all would use up all of the time, so among several hosts a synchronous connection picks the
   one to connect to, as libpq's whole logic does with ``connect_timeout`` for each.
3. libpq takes 16 KiB of an answer at a time, and aiopg lets the event loop turn in between. While
   a worker is busy a turn may take milliseconds, and the answer to a claim takes ten of them. So
   `ReadingConnection` reads on while something lies ready.
4. A process forked off must not say goodbye to the server over its parent's sockets: there they
   are detached.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiopg
import psycopg2
from psycopg2 import extensions

from procrastinate.connector_tools import failures, forks
from procrastinate.connector_tools.sockets import readable
from procrastinate.connector_tools.urls import shown
from procrastinate.errors import ConnectionFailed
from procrastinate_aiopg.calls import server_s_cancellation
from procrastinate_psycopg2.driver import connect_error, plain_cursor
from procrastinate_psycopg2.dsn import for_our_own

#: Seconds for one of several hosts to answer, where no ``connect_timeout`` is given.
_HOST_TIMEOUT = 10
#: Seconds between two looks at whether anybody still waits for a connection.
_SLICE = 0.25
FIRST_STATEMENT = "SELECT 1"


#: Reads in one turn of the event loop at the most: 1 MiB.
_READS = 64


class ReadingConnection(extensions.connection):
    """A connection that reads as much of an answer at once as has arrived."""

    def poll(self) -> int:
        """Go on with what is under way; see psycopg2."""
        state: int = super().poll()
        for _ in range(_READS):
            if state != extensions.POLL_READ or not (self.isexecuting() and self._has_more()):
                break
            state = super().poll()
        return state

    def _has_more(self) -> bool:
        return not self.closed and readable(self.fileno())


@dataclass(frozen=True)
class ConnectOptions:
    """What a connection is made of: psycopg2's arguments, and aiopg's. ``timeout`` in seconds."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 10.0
    on_connect: Callable[[aiopg.Connection], Awaitable[Any]] | None = None
    aiopg_options: Mapping[str, Any] = field(default_factory=dict)


async def connect(options: ConnectOptions) -> aiopg.Connection:
    """Return a new connection. Raises `ConnectionFailed`."""
    handshake = _Handshake(options)
    try:
        async with asyncio.timeout(options.timeout):
            raw = await handshake.connection()
            with server_s_cancellation():
                connection = await _wrapped(raw, options)
                if options.on_connect is not None:
                    await _prepared(connection, options.on_connect)
    except TimeoutError as exc:
        raise ConnectionFailed(
            f"cannot connect to PostgreSQL{failures.in_brackets(handshake.where)}:"
            f" no answer within {options.timeout:g} seconds"
        ) from exc
    except psycopg2.Error as exc:
        raise connect_error(exc, handshake.where) from exc
    return connection


async def _wrapped(raw: extensions.connection, options: ConnectOptions) -> aiopg.Connection:
    def finished(dsn: str, async_: int) -> extensions.connection:
        return raw

    # aiopg waits for something to end before it calls a connection its own.
    cursor = plain_cursor(raw)
    cursor.execute(FIRST_STATEMENT)
    no_timeout: Any = None
    try:
        connection = await aiopg.connect(
            "",
            timeout=no_timeout,
            connection_factory=finished,
            cursor_factory=options.arguments.get("cursor_factory"),
            **options.aiopg_options,
        )
    except BaseException:
        _close(raw)
        raise
    cursor.close()
    forks.detach_after_fork(connection, lambda it: it.raw.fileno())
    return connection


async def _prepared(
    connection: aiopg.Connection, on_connect: Callable[[aiopg.Connection], Awaitable[Any]]
) -> None:
    try:
        await on_connect(connection)
    except BaseException:
        connection.close()
        raise


class _Handshake:
    """One connection being made by a thread, for a coroutine that may stop waiting for it."""

    def __init__(self, options: ConnectOptions) -> None:
        #: Where to, as far as known: libpq's text of an asynchronous failure leaves it out.
        self.where = ""
        self._arguments = {
            "connection_factory": ReadingConnection,
            **for_our_own(options.arguments, connect_timeout=options.timeout),
        }
        self._deadline = time.monotonic() + options.timeout
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[extensions.connection] = self._loop.create_future()

    async def connection(self) -> extensions.connection:
        threading.Thread(target=self._run, name="procrastinate-connect", daemon=True).start()
        return await self._outcome

    def _run(self) -> None:
        raw, error = None, None
        try:
            raw = self._connected()
        except Exception as exc:
            error = exc
        try:
            self._loop.call_soon_threadsafe(self._settle, raw, error)
        except RuntimeError:  # the event loop has ended
            _close(raw)

    def _settle(self, raw: extensions.connection | None, error: Exception | None) -> None:
        if self._outcome.done():
            _close(raw)
        elif raw is not None:
            self._outcome.set_result(raw)
        else:
            self._outcome.set_exception(error or ConnectionFailed("cannot connect to PostgreSQL"))

    def _connected(self) -> extensions.connection:
        raw: extensions.connection = psycopg2.connect(async_=True, **self._arguments)
        try:
            settings = raw.info.dsn_parameters  # with libpq's environment and service files
            self.where = shown(settings)
            if _is_several_hosts(settings):
                _close(raw)
                chosen = self._host_of_choice(settings)
                raw = psycopg2.connect(async_=True, **(self._arguments | chosen))
            else:
                self._limit(settings.get("connect_timeout", ""))
            self._shake_hands(raw)
        except BaseException:
            _close(raw)
            raise
        return raw

    def _limit(self, connect_timeout: str) -> None:
        if not connect_timeout.isdigit() or int(connect_timeout) == 0:
            return  # libpq's word for no limit, or for nothing at all
        self._deadline = min(self._deadline, time.monotonic() + max(int(connect_timeout), 2))

    def _host_of_choice(self, settings: Mapping[str, str]) -> dict[str, str]:
        arguments = {k: v for k, v in self._arguments.items() if k != "connection_factory"}
        if not settings.get("connect_timeout"):
            arguments["connect_timeout"] = _HOST_TIMEOUT
        probe = psycopg2.connect(**arguments)
        try:
            return chosen_host(settings, probe.info.host, str(probe.info.port))
        finally:
            probe.close()

    def _shake_hands(self, raw: extensions.connection) -> None:
        while (state := raw.poll()) != extensions.POLL_OK:
            event = (
                selectors.EVENT_WRITE if state == extensions.POLL_WRITE else selectors.EVENT_READ
            )
            with selectors.DefaultSelector() as selector:
                selector.register(raw.fileno(), event)
                while not selector.select(_SLICE):
                    self._check_wanted()

    def _check_wanted(self) -> None:
        if self._outcome.done() or time.monotonic() > self._deadline:
            raise ConnectionFailed(
                "cannot connect to PostgreSQL: the server did not answer in time"
            )


def _is_several_hosts(settings: Mapping[str, str]) -> bool:
    return any("," in settings.get(name, "") for name in ("host", "hostaddr"))


def chosen_host(settings: Mapping[str, str], host: str, port: str) -> dict[str, str]:
    """Return the arguments that name one of the several hosts in libpq's settings."""
    hosts = settings.get("host", "").split(",")
    addresses = settings.get("hostaddr", "").split(",")
    if len(addresses) <= 1 and not addresses[0]:
        return {"host": host, "port": port}
    ports = settings.get("port", "").split(",")
    names = hosts if any(hosts) else addresses
    for i, (name, address) in enumerate(zip(names, addresses, strict=True)):
        if name in ("", host) and port == (ports[i] if len(ports) > 1 else ports[0]):
            return {"host": hosts[i] if any(hosts) else "", "hostaddr": address, "port": port}
    return {"host": host, "port": port}


def _close(raw: extensions.connection | None) -> None:
    if raw is not None:
        with suppress(psycopg2.Error):
            raw.close()
