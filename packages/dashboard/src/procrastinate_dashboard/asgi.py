"""The door for ASGI servers and frameworks: Starlette, FastAPI, uvicorn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, fail_after, to_thread
from anyio.lowlevel import RunVar
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.types import Receive, Scope, Send

from procrastinate_dashboard.messages import LARGEST_FORM, Request, Response, fields
from procrastinate_dashboard.shared import PATIENCE, NoAnswer
from procrastinate_dashboard.silence import CHANGE_WITHIN

if TYPE_CHECKING:
    from procrastinate_dashboard.dashboard import Dashboard

#: Threads that wait for the database at a time, of our own: the application keeps all of its.
MOST_THREADS = 8
#: Seconds that a change may take, a little more than its calls to the database.
PATIENCE_OF_CHANGES = CHANGE_WITHIN + 1.0
_limiter = RunVar[CapacityLimiter]("procrastinate_dashboard_threads")


async def serve(dashboard: Dashboard, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    else:
        native = StarletteRequest(scope, receive)
        try:
            response = await _respond(dashboard, native)
        except ClientDisconnect:
            return
        await _sent(native, response)(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Say that there is nothing to start, nor to stop."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _respond(dashboard: Dashboard, native: StarletteRequest) -> Response:
    try:
        request = await _request(native)
    except ValueError as exc:  # too many fields, or too long
        return Response(f"{exc}\n".encode(), 400, content_type="text/plain; charset=utf-8")
    patience = PATIENCE_OF_CHANGES if request.method == "POST" else PATIENCE
    return await dashboard.respond_async(request, partial(in_thread, patience))


async def in_thread(patience: float, function: Any, *arguments: Any) -> Any:
    """Run a function in a thread. Raises `NoAnswer` after so many seconds; the thread goes on."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(MOST_THREADS)
        _limiter.set(limiter)
    try:
        with fail_after(patience):
            return await to_thread.run_sync(
                function, *arguments, limiter=limiter, abandon_on_cancel=True
            )
    except TimeoutError:
        raise NoAnswer from None


async def _request(native: StarletteRequest) -> Request:
    return Request(
        method=native.method,
        path=_path_below_mount(native.scope),
        mount=native.scope.get("root_path", ""),
        query=fields(native.scope["query_string"].decode("ascii", "replace")),
        form=fields((await _body(native)).decode("utf-8", "replace")),
        headers=dict(native.headers.items()),
        scheme=native.url.scheme,
        remote=native.client.host if native.client else None,
        native=native,
    )


def _path_below_mount(scope: Scope) -> str:
    """Return the path below the place where this is mounted.

    ``root_path`` is that place, and servers differ in whether they leave it at the path's front.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path


async def _body(native: StarletteRequest) -> bytes:
    body = b""
    if native.method == "POST":
        async for chunk in native.stream():
            body += chunk
            if len(body) > LARGEST_FORM:
                raise ValueError("the form is too long")
    return body


def _sent(native: StarletteRequest, response: Response) -> StarletteResponse:
    headers = {**response.headers, "content-type": response.content_type}
    if native.method != "HEAD":
        return StarletteResponse(response.body, response.status, headers)
    return StarletteResponse(
        b"", response.status, {**headers, "content-length": str(len(response.body))}
    )
