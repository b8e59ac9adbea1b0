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
from types import ModuleType
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import fastapi
import flask
import uvicorn
from browser_jobs import app_of
from psycopg2.extensions import parse_dsn
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
        with served_by_threads(under) as url:
            yield f"{url}/admin/jobs/"


@contextmanager
def django_views(dsn: str, _: Path) -> Iterator[str]:
    """A Django project whose every visitor is logged in as one of its staff."""
    from django.conf import settings

    way = parse_dsn(dsn)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": way["dbname"],
        "USER": way.get("user", ""),
        "HOST": way.get("host", ""),
        "PORT": way.get("port", ""),
    }
    settings.configure(
        SECRET_KEY="of the browser's tests",
        USE_TZ=True,
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": database},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "procrastinate_django",
        ],
        MIDDLEWARE=[
            "django.middleware.csrf.CsrfViewMiddleware",
            f"{__name__}.as_one_of_the_staff",
        ],
        ROOT_URLCONF=f"{__name__}_urls",
    )
    import django
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    urls = ModuleType(f"{__name__}_urls")
    django.setup()
    urls.urlpatterns = [path("staff/jobs/", include("procrastinate_django.dashboard"))]  # type: ignore[attr-defined]
    sys.modules[urls.__name__] = urls
    with served_by_threads(get_wsgi_application()) as url:
        yield f"{url}/staff/jobs/"


def as_one_of_the_staff(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let Django take everybody for one who may do everything."""
    from django.contrib.auth.models import User

    def middleware(request: Any) -> Any:
        request.user = User(username=USER, is_staff=True, is_superuser=True)
        return get_response(request)

    return middleware


@contextmanager
def served_by_threads(app: Any) -> Iterator[str]:
    """A WSGI application on a port of its own."""
    server = make_server("127.0.0.1", 0, app, _Threads, _Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
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
    socket.listen()  # now: the server does so in its own time, and others would be refused
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
    "Django's views": django_views,
    "the command": the_command,
}
