"""PgBouncers in front of the tests' server: see `nox -s pgbouncer`.

There are three: in session mode, in transaction mode, and in transaction mode with one connection
to the server for all clients.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
PROGRAM = shutil.which("pgbouncer", path=PATH)
#: It refuses to run as root; Debian's package brings this user.
USER = "postgres"
STARTING_MAY_TAKE = 30.0  # seconds
#: Mode, and connections to the server for each database.
MODES = {
    "session": ("session", 20),
    "transaction": ("transaction", 5),
    "one_connection": ("transaction", 1),
}
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}{password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
max_client_conn = 200
default_pool_size = {size}
server_login_retry = 1
logfile = {log}
"""


def pytest_configure(config: pytest.Config) -> None:
    if PROGRAM is None:
        raise pytest.UsageError("there is no pgbouncer: on Debian, apt-get install pgbouncer")


@pytest.fixture(scope="session")
def bouncers(procrastinate_server: Any) -> Iterator[Mapping[str, int]]:
    """The port of each PgBouncer."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(bouncer(procrastinate_server.dsn, *mode))
            for name, mode in MODES.items()
        }


@contextmanager
def bouncer(dsn: str, mode: str, size: int) -> Iterator[int]:
    """A PgBouncer, and the port on which it answers."""
    server = parse_dsn(dsn)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        log = folder / "pgbouncer.log"
        log.touch()
        log.chmod(0o666)
        port = free_port()
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                host=server.get("host", "localhost"),
                port=server.get("port", 5432),
                user=server["user"],
                password=f" password={server['password']}" if "password" in server else "",
                listen_port=port,
                mode=mode,
                size=size,
                log=log,
            )
        )
        as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            as_user = {"user": USER, "group": USER, "extra_groups": []}
        errors = stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            [str(PROGRAM), str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            **as_user,
        )
        try:
            wait_for(process, f"postgresql://{server['user']}@127.0.0.1:{port}/postgres", log)
            yield port
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a query goes through."""
    deadline = time.monotonic() + STARTING_MAY_TAKE
    while True:
        try:
            with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
                cursor.execute("select 1")
                return
        except psycopg2.OperationalError:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                pytest.fail(f"PgBouncer does not start: {log.read_text()[-2000:]}", pytrace=False)
            time.sleep(0.02)


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
