"""The dashboard behind each of its doors, served on this machine to a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import fastapi
import flask
import uvicorn
from browser_jobs import app_of
from starlette.applications import Starlette
from starlette.routing import Mount as StarletteMount

from procrastinate_dashboard import Access, Dashboard, Request

USER = "ada"
PASSWORD = "a password of the browser's tests"
PATIENCE = 30  # seconds
PROGRAM = (sys.executable, "-m", "procrastinate", "--app=served.app")

#: Serves the dashboard of the database with this DSN; the URL of its first page.
Mount: TypeAlias = Callable[[str, Path], AbstractContextManager[str]]


def let_in(request: Request) -> Access:
    """Let everybody act, or only read if the browser says so (`reading` in conftest.py)."""
    return Access(USER, may="read" if request.headers.get("x-may") == "read" else "act")


@contextmanager
def fastapi_at_a_prefix(dsn: str, _: Path) -> Iterator[str]:
    with app_of(dsn).open() as app:
        api = fastapi.FastAPI()
        api.mount("/ops/jobs", Dashboard(app, access=let_in))
        with served_by_uvicorn(api) as url:
            yield f"{url}/ops/jobs/"


@contextmanager
def starlette_at_a_prefix(dsn: str, _: Path) -> Iterator[str]:
    with app_of(dsn).open() as app:
        routes = [StarletteMount("/ops", Dashboard(app, access=let_in))]
        with served_by_uvicorn(Starlette(routes=routes)) as url:
            yield f"{url}/ops/"


@contextmanager
def flask_under_a_prefix(dsn: str, _: Path) -> Iterator[str]:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    with app_of(dsn).open() as app:
        dashboard = Dashboard(app, access=let_in).wsgi()
        under = DispatcherMiddleware(flask.Flask("shop").wsgi_app, {"/admin/jobs": dashboard})
        server = make_server("127.0.0.1", 0, under, _Threads, _Quiet)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/admin/jobs/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: what is wrong shows in the browser."""


@contextmanager
def served_by_uvicorn(app: object) -> Iterator[str]:
    """An ASGI application on a port of its own."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def the_command(dsn: str, folder: Path) -> Iterator[str]:
    """``procrastinate dashboard``, whose password is in the URL."""
    (folder / "served.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from browser_jobs import app_of\napp = app_of({dsn!r})\n"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "procrastinate",
            "--app=served.app",
            "dashboard",
            "--port=0",
            f"--user={USER}",
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
    )
    try:
        yield _announced(process)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()  # type: ignore[union-attr]


def _environment() -> dict[str, str]:
    return {**os.environ, "PROCRASTINATE_DASHBOARD_PASSWORD": PASSWORD, "PYTHONUNBUFFERED": "1"}


def _announced(process: subprocess.Popen[str]) -> str:
    """Return the URL that the command prints."""
    said = []
    for line in process.stdout or ():
        said.append(line)
        if found := re.search(r"http://\S+", line):
            return found[0].rstrip(".")
    raise AssertionError(f"the command names no URL: {''.join(said)}")


MOUNTS: dict[str, Mount] = {
    "FastAPI at a prefix": fastapi_at_a_prefix,
    "Starlette at a prefix": starlette_at_a_prefix,
    "WSGI under a prefix": flask_under_a_prefix,
    "the command": the_command,
}
