"""A TCP proxy in front of a PostgreSQL server that can fall silent without a word.

Rules

1. `hush` stops all traffic on the connections that are open, for ever: no FIN, no RST, and what is
   sent to them is acknowledged and lost, as behind a firewall that has forgotten them.
2. With ``new=True`` connections made from then on are accepted and are as silent. `speak` lets
   new ones work again; those that were silent stay so.
3. It runs an event loop of its own in a thread; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from psycopg2.extensions import make_dsn, parse_dsn


class SilentProxy:
    """Listens on a free port of 127.0.0.1 while its block lasts; `dsn` leads through it."""

    def __init__(self, dsn: str) -> None:
        self._server_dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._silent: set[_Link] = set()
        self._links: set[_Link] = set()
        self._new_are_silent = False
        self.port = 0

    @property
    def dsn(self) -> str:
        return make_dsn(self._server_dsn, host="127.0.0.1", port=self.port, sslmode="disable")

    @property
    def open_links(self) -> int:
        """How many connections to the server there are that are not silent."""
        return len(self._links)

    def hush(self, *, new: bool = False) -> None:
        """Silence what is open; with ``new`` also what will be opened."""
        self._call(self._hush, new)

    def speak(self) -> None:
        """Let new connections work again."""
        self._call(self._hush, None)

    def _hush(self, new: bool | None) -> None:
        self._new_are_silent = bool(new)
        if new is not None:
            for link in self._links:
                link.silent = True
            self._silent |= self._links
            self._links.clear()

    def _call(self, function: object, *args: object) -> None:
        async def call() -> None:
            function(*args)  # type: ignore[operator]

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def __enter__(self) -> SilentProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # the transports close at the loop's next turns

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(silent=self._new_are_silent)
        if link.silent:
            try:
                await _swallow(reader)
            finally:
                writer.transport.abort()
            return
        server_reader, server_writer = await _connect(self._server_dsn)
        self._links.add(link)
        pumps = [
            asyncio.ensure_future(link.pump(reader, server_writer)),
            asyncio.ensure_future(link.pump(server_reader, writer)),
        ]
        try:
            # A silent link ends when the client's side ends: the server's end goes unheard.
            await asyncio.wait([pumps[0]])
        finally:
            self._links.discard(link)
            self._silent.discard(link)
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()
            server_writer.transport.abort()


class _Link:
    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        if not self.silent:
            writer.close()


async def _swallow(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def _connect(dsn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = parse_dsn(dsn)
    host, port = where.get("host", "localhost"), where.get("port", "5432")
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, int(port))
