"""The public ways to a server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, Unpack

from procrastinate_embedded import databases, installed
from procrastinate_embedded import home as homes
from procrastinate_embedded.accounts import account_for
from procrastinate_embedded.databases import Server
from procrastinate_embedded.errors import EmbeddedServerError, reported
from procrastinate_embedded.launch import Membership
from procrastinate_embedded.programs import reachable
from procrastinate_embedded.request import Request

GIVEN_DSN = "PROCRASTINATE_TEST_DSN"
Settings = Mapping[str, str | int | float | bool]


class Options(TypedDict, total=False):
    """The keyword arguments of `server`."""

    version: int
    durable: bool
    settings: Settings | None
    bin_dir: str | os.PathLike[str] | None
    timeout: float


_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_OURS = {"data_directory", "external_pid_file", "port", "unix_socket_directories"}


@contextmanager
def server(
    directory: str | os.PathLike[str] | None = None,
    *,
    version: int = 18,
    durable: bool = True,
    settings: Settings | None = None,
    bin_dir: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
) -> Iterator[Server]:
    """A PostgreSQL server, started or joined, and stopped when its last user leaves or dies.

    Without a directory the cluster is a temporary one, removed afterwards. A directory keeps its
    data, and every process that names it uses the same server. ``version`` is the wheel's 18 or 16;
    ``bin_dir`` names the programs of another server, and ``version`` does not count then.
    ``durable=False`` is faster and loses data when the machine stops. ``settings`` are
    PostgreSQL's, as in postgresql.conf. ``timeout`` is in seconds, for making a cluster and for a
    start.

    Raises EmbeddedServerError when the server cannot be started, or cannot be stopped.
    """
    options = Options(
        version=version, durable=durable, settings=settings, bin_dir=bin_dir, timeout=timeout
    )
    with _serve(directory, None, **options) as running:
        yield running


@contextmanager
def shared_temporary_server(token: str, **options: Unpack[Options]) -> Iterator[Server]:
    """A temporary server for all processes that know `token`; the last one removes it."""
    with _serve(None, token, **options) as running:
        yield running


@contextmanager
def server_or_given(
    directory: str | os.PathLike[str] | None = None, **options: Unpack[Options]
) -> Iterator[Server]:
    """The server that the environment variable PROCRASTINATE_TEST_DSN names, else `server`.

    Raises EmbeddedServerError when the given server does not answer.
    """
    given = given_server()
    if given is not None:
        yield given
        return
    with server(directory, **options) as running:
        yield running


def given_server() -> Server | None:
    """The server that PROCRASTINATE_TEST_DSN names; None if it is unset or empty."""
    dsn = os.environ.get(GIVEN_DSN, "").strip()
    if not dsn:
        return None
    psql = installed.psql()
    try:
        number = databases.run_psql(psql, dsn, "SHOW server_version_num", is_given=True)
    except EmbeddedServerError as exc:
        raise EmbeddedServerError(
            f"the server that {GIVEN_DSN} names cannot be used: {exc}"
        ) from exc
    return Server(dsn, int(number) // 10000, None, psql)


@contextmanager
def _serve(
    directory: str | os.PathLike[str] | None,
    token: str | None,
    *,
    version: int = 18,
    durable: bool = True,
    settings: Settings | None = None,
    bin_dir: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
) -> Iterator[Server]:
    with reported():
        folder = installed.binaries(version) if bin_dir is None else Path(bin_dir).resolve()
        major = version if bin_dir is None else installed.major_version(folder)
        written = _written(settings or {}, durable)
        path = None if directory is None else Path(directory).expanduser().resolve()
        account = account_for(path)
        usable = reachable(folder, account)
        home = homes.Home(path, temporary=False) if path else homes.temporary_home(account, token)
        request = Request(
            home=str(home.path),
            temporary=home.temporary,
            bin_dir=str(usable),
            version=major,
            durable=durable,
            settings=written,
            timeout=timeout,
            account=asdict(account) if account else None,
        )
        membership = Membership(home, request, account)
        running = membership.join()
    try:
        dsn = databases.embedded_dsn(running.host, running.port)
        yield Server(dsn, running.version, running.pid, installed.psql(folder))
    finally:
        with reported():
            membership.leave()


def _written(settings: Settings, durable: bool) -> dict[str, str]:
    """The settings as PostgreSQL reads them. Raises EmbeddedServerError for one that cannot be."""
    written = {} if durable else dict(_NOT_DURABLE)
    for name, value in settings.items():
        if name in _OURS:
            raise EmbeddedServerError(f"the setting {name} is this package's own: leave it out")
        if re.fullmatch(r"[A-Za-z_][\w.]*", name, re.ASCII) is None or "\0" in str(value):
            raise EmbeddedServerError(f"{name!r}={value!r} is not a setting of PostgreSQL")
        written[name] = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return written
