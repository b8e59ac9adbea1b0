"""A server that is ready to use, and its databases; psql does the talking, no driver is needed."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from procrastinate_embedded.errors import EmbeddedServerError
from procrastinate_embedded.request import clean_environment

_TIMEOUT = 120.0  # seconds for one statement


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server: an embedded one, or one that the user gave.

    ``dsn`` names a database that is there to connect to, ``version`` is the major version,
    ``pid`` the server's process (None for a given one).
    """

    dsn: str
    version: int
    pid: int | None
    _psql: Path = field(repr=False)

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database, under a new random name if none is given; return its DSN.

        Raises EmbeddedServerError, for instance when the name is taken.
        """
        name = name or f"procrastinate_{secrets.token_hex(8)}"
        self._execute(f"CREATE DATABASE {_quoted(name)}")
        return dsn_for(self.dsn, name)

    def drop_database(self, name: str) -> None:
        """Drop the database ``name`` if it exists, ending its sessions.

        Raises EmbeddedServerError, for instance when the user may not do that.
        """
        self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    @contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a new empty database, which is dropped at the end."""
        name = f"procrastinate_{secrets.token_hex(8)}"
        dsn = self.create_database(name)
        try:
            yield dsn
        finally:
            self.drop_database(name)

    def _execute(self, statement: str) -> str:
        return run_psql(self._psql, self.dsn, statement, is_given=self.pid is None)


def run_psql(program: Path, dsn: str, statement: str, *, is_given: bool) -> str:
    """The output of one statement. Raises EmbeddedServerError.

    A given server keeps libpq's environment variables: its password may be there.
    """
    environment = dict(os.environ) if is_given else clean_environment()
    command = [str(program), "-XqAt", "-w", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", statement]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={"PGCONNECT_TIMEOUT": "30", **environment},
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        # Not the exception's own words: they would show the DSN, which may hold a password.
        raise EmbeddedServerError(
            f"{program} could not run {statement!r}: {type(exc).__name__}"
        ) from exc
    if result.returncode != 0:
        raise EmbeddedServerError(f"{statement!r} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def embedded_dsn(host: str, port: int, database: str = "postgres") -> str:
    """The URL of a database of an embedded server."""
    return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(host)}&port={port}"


def dsn_for(dsn: str, database: str) -> str:
    """The same server, user and options as in `dsn`, a URL or a keyword string, for `database`."""
    if dsn.startswith(("postgresql://", "postgres://")):
        url = urlsplit(dsn)
        options = [part for part in url.query.split("&") if not part.startswith("dbname=")]
        query = "?" + "&".join(options) if any(options) else ""
        return f"{url.scheme}://{url.netloc}/{quote(database, safe='')}{query}"
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"{dsn} dbname='{escaped}'".lstrip()  # libpq takes the last of two


def _quoted(name: str) -> str:
    if "\0" in name or not name or len(name.encode()) > 63:
        raise EmbeddedServerError(
            f"{name!r} cannot name a database: use 1 to 63 bytes, and no NUL among them"
        )
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
