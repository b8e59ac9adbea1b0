"""A TCP proxy in front of a server that can be made to misbehave.

Rules

1. A connection is a `Link`, with two pumps. What the proxy does to a link is a `Mode` of each
   pump's: let through, hold (a black hole: it reads nothing more and closes nothing), or delay.
2. `cut` breaks connections at once. `cut_next_answer` lets the next request through to the server,
   waits for the answer, and breaks the connection instead of passing it on, so that a COMMIT may
   have happened. `cut_next_request` sends the server only half of the next request.
3. It runs an event loop of its own in a thread; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
CHUNK = 65536


class Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter | None) -> None:
        self.client = client
        self.server = server
        self.cut_answer = self.cut_request = False
        self.held = asyncio.Event()  # set: traffic flows
        self.held.set()

    def cut(self) -> None:
        self.client.transport.abort()
        if self.server is not None:
            self.server.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1 from `start` to `close`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._loop = asyncio.new_event_loop()
        self._links: set[Link] = set()
        self._swallows_new = False
        self._delay = 0.0
        self.felt = 0  # links that a trouble has met, since the last `reset`
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def start(self) -> None:
        """Begin to listen; `port` says where."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def close(self) -> None:
        """Cut everything."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

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

    # --- Trouble ---

    def cut(self, share: float = 1.0) -> None:
        """Break this share of the connections now."""
        self._on_each(share, self._cut)

    def _cut(self, link: Link) -> None:
        self.felt += 1
        link.cut()

    def cut_next_answer(self, share: float = 1.0) -> None:
        """Break this share of the connections right before their next answer arrives."""
        self._on_each(share, lambda link: setattr(link, "cut_answer", True))

    def cut_next_request(self, share: float = 1.0) -> None:
        """Break this share of the connections in the middle of their next request."""
        self._on_each(share, lambda link: setattr(link, "cut_request", True))

    def black_hole(self, *, new_ones: bool) -> None:
        """Let nothing through on the connections there are, and on new ones if asked to."""

        def begin() -> None:
            self._swallows_new = new_ones
            for link in self._links:
                self.felt += 1
                link.held.clear()

        self._call(begin)

    def delay(self, seconds: float) -> None:
        """Deliver everything later by a time; 0 ends it."""

        def begin() -> None:
            self._delay = seconds

        self._call(begin)

    def heal(self, *, cut: bool = True) -> None:
        """End black holes. The connections that were in one are cut, or go on."""

        def end() -> None:
            self._swallows_new = False
            for link in list(self._links):
                if link.held.is_set():
                    continue
                if cut:
                    link.cut()
                link.held.set()

        self._call(end)

    def reset(self) -> None:
        """Count from here on what is felt."""
        self.felt = 0

    def _on_each(self, share: float, action: Callable[[Link], None]) -> None:
        def act() -> None:
            for link in list(self._links):
                if random.random() < share:
                    action(link)

        self._call(act)

    def _call(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait(10)

    # --- Traffic ---

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._swallows_new:
            link = Link(writer, None)
            link.held.clear()
            self.felt += 1
            self._links.add(link)
            await link.held.wait()
            self._links.discard(link)
            link.cut()
            return
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server_writer)
        self._links.add(link)
        await self._pump_both(link, reader, server_reader)

    async def _pump_both(
        self, link: Link, reader: asyncio.StreamReader, server_reader: asyncio.StreamReader
    ) -> None:
        assert link.server is not None
        pumps = [
            asyncio.ensure_future(self._requests(link, reader, link.server)),
            asyncio.ensure_future(self._answers(link, server_reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await link.held.wait()  # a black hole hides also that the other side is gone
        finally:
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            link.client.close()
            link.server.close()

    async def _requests(
        self, link: Link, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._let_through(link)
                if link.cut_request:
                    self.felt += 1
                    server.write(data[: len(data) // 2])
                    await server.drain()
                    link.cut()
                    return
                server.write(data)
                await server.drain()

    async def _answers(self, link: Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._let_through(link)
                if link.cut_answer:
                    self.felt += 1
                    link.cut()
                    return
                link.client.write(data)
                await link.client.drain()

    async def _let_through(self, link: Link) -> None:
        if self._delay:
            self.felt += 1
            await asyncio.sleep(self._delay)
        await link.held.wait()
