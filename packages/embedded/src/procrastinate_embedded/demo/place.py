"""Where the demo takes place: in an embedded server of its own, or in the one that is named.

Whichever it is, everything happens in a schema with a new name, which is dropped at the end.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from procrastinate import connectors
from procrastinate.errors import ConnectorNotInstalled
from procrastinate_embedded.servers import server

_DASHBOARD = "procrastinate_dashboard"


class PackagesMissing(ConnectorNotInstalled):
    """The demo needs packages that are not installed; the message names them."""


@dataclass(frozen=True)
class Place:
    """A database (libpq's URL or keywords), the schema for the demo, and what server that is."""

    dsn: str
    schema: str
    server: str
    #: What can be done with tables that are kept.
    afterwards: str


@contextmanager
def place(dsn: str | None, *, keep: bool) -> Iterator[Place]:
    """Yield the place; without a DSN a server is started, and stopped at the end.

    Raises `PackagesMissing`, and the embedded server's errors.
    """
    check_packages()
    schema = f"procrastinate_demo_{secrets.token_hex(4)}"
    if dsn is not None:
        yield Place(
            dsn, schema, "the server that was named", f"`drop schema {schema} cascade` removes it"
        )
        return
    directory = Path(tempfile.gettempdir()) / schema if keep else None
    afterwards = f"procrastinate_embedded.server({str(directory)!r}) starts its server again"
    with server(directory=directory) as started:
        yield Place(started.dsn, schema, "started for this demo", afterwards)


def check_packages(*, dashboard: bool = False) -> None:
    """Raise `PackagesMissing` unless there is all that the demo needs."""
    missing = []
    try:
        connectors.get("aiopg")
    except ConnectorNotInstalled:
        missing.append("procrastinate-aiopg")
    if dashboard and not (find_spec(_DASHBOARD) and find_spec("uvicorn")):
        missing.append("'procrastinate-dashboard[server]'")
    if missing:
        raise PackagesMissing(
            f"the demo needs packages that are not installed: run `pip install {' '.join(missing)}`"
        )
