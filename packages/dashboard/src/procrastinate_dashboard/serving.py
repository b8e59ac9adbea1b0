"""The server of ``procrastinate dashboard``: where it listens, and whom it lets in."""

from __future__ import annotations

import contextlib
import errno
import getpass
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

from procrastinate import App
from procrastinate.model.text.printable import shown
from procrastinate_dashboard.dashboard import AccessFunction, Dashboard
from procrastinate_dashboard.guard import LOOPBACK
from procrastinate_dashboard.login import by_password
from procrastinate_dashboard.messages import Access
from procrastinate_dashboard.thresholds import LATE_AFTER, LONG_AFTER

if TYPE_CHECKING:
    import uvicorn

PASSWORD = "PROCRASTINATE_DASHBOARD_PASSWORD"
_BACKLOG = 128
#: Seconds that requests under way may take at the end.
_LAST_REQUESTS = 2


@dataclass(frozen=True)
class Settings:
    """What the command was told."""

    host: str = "127.0.0.1"
    port: int = 8010
    user: str | None = None
    read_only: bool = False
    allowed_hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    late_after: float = LATE_AFTER
    long_after: float = LONG_AFTER

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def may(self) -> Literal["read", "act"]:
        """What users may do."""
        return "read" if self.read_only else "act"


def serve(app: App, settings: Settings) -> None:
    """Serve the dashboard of an open app until SIGINT or SIGTERM.

    Raises `click.UsageError` without a password for others, and `click.ClickException` if the
    address cannot be had.
    """
    check_proxies(settings)
    dashboard = dashboard_for(app, settings, password_for(settings))
    with listening(settings) as bound:
        said = f"The dashboard is at {address_of(settings, bound)}"
        run(server_of(dashboard, settings.proxies), bound, said)


def check_proxies(settings: Settings) -> None:
    """Raise `click.UsageError` if what is said to be a proxy is no address and no network."""
    for each in settings.proxies:
        try:
            ipaddress.ip_network(each)
        except ValueError as exc:
            raise click.UsageError(
                f"--proxy {shown(each)} is no address: give one such as 127.0.0.1 or 10.0.0.0/8"
            ) from exc


def dashboard_for(app: App, settings: Settings, password: str | None) -> Dashboard:
    """Return the dashboard that the command serves."""
    hosts = None
    if settings.is_loopback:
        hosts = {*LOOPBACK, settings.host, *settings.allowed_hosts}
    return Dashboard(
        app,
        access=_access(settings, password),
        hosts=hosts,
        late_after=settings.late_after,
        long_after=settings.long_after,
    )


def _access(settings: Settings, password: str | None) -> AccessFunction:
    user = settings.user or _own_name()
    if password is not None:
        return by_password(user, password, settings.may)
    granted = Access(user, settings.may)
    return lambda request: granted


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "local"


def password_for(settings: Settings) -> str | None:
    """Return the password to ask for; None if this machine alone may look without one."""
    password = os.environ.get(PASSWORD) or None
    if password is None and (settings.user is not None or not settings.is_loopback):
        password = _asked_for(settings)
    return password


def _asked_for(settings: Settings) -> str:
    if not sys.stdin.isatty():
        whom = f"user {settings.user}" if settings.user else f"address {settings.host}"
        raise click.UsageError(f"{whom} needs a password: set {PASSWORD}")
    return str(click.prompt("Password", hide_input=True, err=True, type=str))


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Give the socket, bound to the address. Raises `click.ClickException` if that fails."""
    try:
        bound = _bound(settings)
    except OSError as exc:
        raise click.ClickException(_why_not(settings, exc)) from exc
    with bound:
        yield bound


def _bound(settings: Settings) -> socket.socket:
    found = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    return socket.create_server(
        address,
        family=family,
        backlog=_BACKLOG,
        reuse_port=False,
    )


def _why_not(settings: Settings, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"port {settings.port} of {settings.host} is taken: choose another with --port"
    return f"cannot listen on {settings.host}, port {settings.port}: {exc.strerror or exc}"


def address_of(settings: Settings, bound: socket.socket) -> str:
    """Return the URL to open."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{bound.getsockname()[1]}/"


def run(server: uvicorn.Server, bound: socket.socket, said: str) -> None:
    """Run the server on a socket until SIGINT or SIGTERM, which are obeyed once this was said."""
    with _stopping(server):
        click.echo(f"{said} (Ctrl-C stops it)")
        server.run(sockets=[bound])


def server_of(dashboard: Dashboard, proxies: Sequence[str] = ()) -> uvicorn.Server:
    """Return the server, not running. It takes a user's address from the header of ``proxies``.

    Raises `click.ClickException` if it is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise click.ClickException(
            "the dashboard's server is not installed: run"
            " pip install 'procrastinate-dashboard[server]'"
        ) from None
    config = uvicorn.Config(
        dashboard,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )
    server = uvicorn.Server(config)
    # Its own handlers end the process by the signal once it has stopped, which is no error here.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    return server


@contextlib.contextmanager
def served(app: App) -> Iterator[str]:
    """Serve the dashboard of an open app in a thread for the length of a block; give its URL.

    Only this machine can reach it, at a free port.
    """
    settings = Settings(port=0)
    dashboard = dashboard_for(app, settings, None)
    with listening(settings) as bound:
        server = server_of(dashboard)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield address_of(settings, bound)
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the server; a second one does not wait for requests."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    before: dict[int, Any] = {
        each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
