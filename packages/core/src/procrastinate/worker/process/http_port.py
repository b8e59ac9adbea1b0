"""A port for probes and metrics: a small HTTP server in a thread of its own.

Rules

1. Nothing that a client does reaches the worker. A request has `PATIENCE` seconds, `HEAD_BYTES` and
   a connection of its own. Of more than `MOST` connections the oldest is cut off, so that clients
   which send nothing cannot keep out those that do.
2. GET and HEAD, one answer for each connection. A body is never read.
3. Answers are made in the server's thread, by functions that return at once, or coroutines.
4. The socket listens once the object is made: a port that is taken is an error before any thread
   or job has begun. A forked child lets go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from procrastinate.errors import ConfigurationError
from procrastinate.model.text import failure, printable
from procrastinate.observing.safe_log import SafeLog
from procrastinate.worker.log import logger

PATIENCE = 5.0  # seconds, from the connection to the end of the answer
HEAD_BYTES = 16 * 1024
MOST = 100  # connections
STOP_MAY_TAKE = 2.0  # seconds until a thread that does not end is left to itself
CHUNK = 4096  # bytes
END_OF_HEAD = b"\r\n\r\n"
ACCEPT_AGAIN_AFTER = 0.1  # seconds
BACKLOG = 128  # connections that wait to be accepted

PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets."""

    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN


def text(status: HTTPStatus, *lines: str) -> Answer:
    """Return an answer of some lines."""
    return Answer(status, "".join(f"{printable.line(line)}\n" for line in lines).encode())


#: Answers a request for one path; it is told what the client accepts.
Route = Callable[[str], Answer | Awaitable[Answer]]


class HttpPort:
    """Answers requests for some paths, from `start` to `close`.

    Port 0 is any that is free; ``patience`` is seconds, in place of `PATIENCE`. ``log`` is the log
    of the program that answers. Raises `ConfigurationError` if it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        *,
        patience: float | None = None,
        log: SafeLog = logger,
    ) -> None:
        self._log = log
        self._routes = routes
        self._patience = patience
        self._socket = _listening(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        # Not the loop of the app's policy: it must watch sockets, and Windows' usual one does not.
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(lambda loop, context: None)  # rule 1
        self._stopping = asyncio.Event()
        #: The tasks that answer clients, in the order in which these came.
        self._clients: dict[asyncio.Task[None], None] = {}
        self._thread = threading.Thread(target=self._run, name="procrastinate-http", daemon=True)
        self._complained: set[str] = set()
        _OPEN.add(self)

    def start(self, *, quietly: bool = False) -> None:
        """Begin to answer, and log where, unless only other programs need to know."""
        self._thread.start()
        if not quietly:
            self._log.info("answering HTTP requests on %s", self.url, extra={"action": "http_port"})

    @property
    def url(self) -> str:
        """The address at which it answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Let go of the port, and of all clients."""
        _OPEN.discard(self)
        if self._thread.ident is None:
            self._loop.close()
        else:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_MAY_TAKE)
        self._socket.close()

    def forget(self) -> None:
        """Close what a fork has copied."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as exc:
            self._log.error("the HTTP port is closed", exc_info=exc)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._begin_to_accept()
        try:
            await self._stopping.wait()
        finally:
            self._loop.remove_reader(self._socket)
            tasks = list(self._clients)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # for what is called once they have ended

    def _begin_to_accept(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):  # the client is gone already
            return
        except OSError:  # for instance, there are no more descriptors
            self._loop.remove_reader(self._socket)
            self._loop.call_later(ACCEPT_AGAIN_AFTER, self._begin_to_accept)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._attend_to(client))
        self._clients[task] = None
        task.add_done_callback(functools.partial(self._over, client))
        if len(self._clients) > MOST:
            next(iter(self._clients)).cancel()

    def _over(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        client.close()  # here, because a task that is cancelled at once has no first step
        self._clients.pop(task, None)

    async def _attend_to(self, client: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._patience or PATIENCE):
                await self._talk(client)
        except (OSError, TimeoutError):
            pass  # rule 1: it is gone, or too slow

    async def _talk(self, client: socket.socket) -> None:
        head = b""
        while END_OF_HEAD not in head and len(head) <= HEAD_BYTES:
            more = await self._loop.sock_recv(client, CHUNK)
            if not more:
                return
            head += more
        answer = await self._answer(head)
        said = _encoded(answer, with_body=not head.startswith(b"HEAD "))
        await self._loop.sock_sendall(client, said)
        client.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(client, CHUNK):  # else a reset might overtake the answer
            pass

    async def _answer(self, head: bytes) -> Answer:
        if len(head) > HEAD_BYTES:
            return text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too long")
        try:
            method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        except ValueError:  # UnicodeDecodeError is one
            return text(HTTPStatus.BAD_REQUEST, "that is no HTTP request")
        if not version.startswith("HTTP/1."):
            return text(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1, please")
        if method not in ("GET", "HEAD"):
            return text(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD, please")
        path = target.partition("?")[0]
        if path not in self._routes:
            return text(HTTPStatus.NOT_FOUND, f"there are {', '.join(self._routes)}")
        return await self._answer_for(path, _accepted_by(head))

    async def _answer_for(self, path: str, accept: str) -> Answer:
        try:
            answer = self._routes[path](accept)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as exc:
            said = printable.line(failure.headline_of(exc))
            if said not in self._complained and len(self._complained) < MOST:
                self._complained.add(said)
                self._log.error("%s cannot be answered: %s", path, said, exc_info=exc)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot listen on port {port} of {printable.line(host)}: {_reason(exc)}"
        ) from exc
    listening.setblocking(False)
    return listening


def _reason(exc: OSError) -> str:
    number = exc.errno or 0  # below 0 if a name was looked up
    return os.strerror(number) if number > 0 else str(exc.strerror or exc)


def _accepted_by(head: bytes) -> str:
    """Return the value of a request's Accept header."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")


_OPEN: weakref.WeakSet[HttpPort] = weakref.WeakSet()


def _forget_in_child() -> None:
    for port in list(_OPEN):
        port.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
