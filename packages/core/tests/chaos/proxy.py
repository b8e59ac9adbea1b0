"""A TCP proxy in front of a server that can be made to misbehave.

Rules

1. `cut` breaks connections at once. `cut_next_answer` lets the next request on each connection
   through to the server, waits for the answer, and breaks the connection instead of passing it
   on. `cut_next_request` sends the server only half of the next request.
2. `freeze` stops all traffic for some seconds, in both directions, and loses nothing.
3. It runs an event loop of its own in a thread; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.cut_answer = self.cut_request = False

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1 while its block lasts; see `port`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Proxy:
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
        for link in list(self._links):
            link.cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # Trouble

    def cut(self, share: float = 1.0) -> None:
        """Break this share of the connections now."""
        self._on_each(share, _Link.cut)

    def cut_next_answer(self, share: float = 1.0) -> None:
        """Break this share of the connections right before their next answer arrives."""
        self._on_each(share, lambda link: setattr(link, "cut_answer", True))

    def cut_next_request(self, share: float = 1.0) -> None:
        """Break this share of the connections in the middle of their next request."""
        self._on_each(share, lambda link: setattr(link, "cut_request", True))

    def freeze(self, seconds: float) -> None:
        """Let nothing through for so many seconds."""

        def begin() -> None:
            self._flowing.clear()
            self._loop.call_later(seconds, self._flowing.set)

        self._loop.call_soon_threadsafe(begin)

    def _on_each(self, share: float, action: Callable[[_Link], None]) -> None:
        def act() -> None:
            for link in list(self._links):
                if random.random() < share:
                    action(link)

        self._loop.call_soon_threadsafe(act)

    # Traffic

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        pumps = [
            asyncio.ensure_future(self._requests(link, reader)),
            asyncio.ensure_future(self._answers(link, server_reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            link.client.close()
            link.server.close()

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if link.cut_request:
                    link.server.write(data[: len(data) // 2])
                    await link.server.drain()
                    link.cut()
                    return
                link.server.write(data)
                await link.server.drain()

    async def _answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if link.cut_answer:
                    link.cut()
                    return
                link.client.write(data)
                await link.client.drain()
