"""The door for WSGI servers and frameworks: Flask, gunicorn, mod_wsgi."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from procrastinate_dashboard.messages import LARGEST_FORM, Request, Response, fields

if TYPE_CHECKING:
    from procrastinate_dashboard.dashboard import Dashboard

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]


def application(dashboard: Dashboard) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Return the WSGI application of a dashboard."""

    def serve(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            request = _request(environ)
        except ValueError as exc:  # too many fields, or too long
            text = f"{exc}\n".encode()
            response = Response(text, 400, content_type="text/plain; charset=utf-8")
        else:
            response = dashboard.respond(request)
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        start_response(status, _headers(response))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    return serve


def _request(environ: Environ) -> Request:
    return Request(
        method=environ["REQUEST_METHOD"],
        path=_text(environ.get("PATH_INFO", "")),
        mount=_text(environ.get("SCRIPT_NAME", "")),
        query=fields(environ.get("QUERY_STRING", "")),
        form=fields(_body(environ).decode("utf-8", "replace")),
        headers=_request_headers(environ),
        scheme=environ.get("wsgi.url_scheme", "http"),
        remote=environ.get("REMOTE_ADDR"),
        native=environ,
    )


def _text(path: str) -> str:
    """Return a path, whose bytes WSGI gives as if they were Latin-1."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _request_headers(environ: Environ) -> dict[str, str]:
    return {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }


def _body(environ: Environ) -> bytes:
    if environ["REQUEST_METHOD"] != "POST":
        return b""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > LARGEST_FORM:
        raise ValueError("the form is too long")
    return bytes(environ["wsgi.input"].read(int(length)))


def _headers(response: Response) -> list[tuple[str, str]]:
    given = [(name.title(), value) for name, value in response.headers.items()]
    if response.status in (204, 304):  # they have no body
        return given
    length = str(len(response.body))
    return [*given, ("Content-Type", response.content_type), ("Content-Length", length)]
