"""A PgBouncer in front of the server, which can be paused, killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import Any

import psycopg2

from chaos import debian
from chaos.cluster import DATABASE, ROLE, Cluster
from chaos.guard import Guard

STARTING_MAY_TAKE = 20.0  # seconds
CONFIGURATION = """
[databases]
{database} = host={sockets} port=5432 dbname={database} user={role}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = {role}
pool_mode = {mode}
max_client_conn = 400
default_pool_size = {size}
server_login_retry = 1
logfile = {log}
"""


class Bouncer:
    """One PgBouncer, in session or transaction mode."""

    def __init__(self, mode: str, cluster: Cluster, guard: Guard) -> None:
        self.mode = mode
        self._guard = guard
        self._account = cluster.account
        self.port = free_port()
        folder = cluster.folder / f"bouncer-{mode}"
        folder.mkdir()
        os.chown(folder, *self._account)
        users = folder / "users.txt"
        users.write_text(f'"{ROLE}" ""\n')
        self._configuration = folder / "pgbouncer.ini"
        self._configuration.write_text(
            CONFIGURATION.format(
                database=DATABASE,
                role=ROLE,
                sockets=cluster.sockets,
                port=self.port,
                mode=mode,
                # A session keeps its connection; a transaction shares one with the next.
                size=60 if mode == "session" else 12,
                users=users,
                log=folder / "pgbouncer.log",
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def route(self) -> str:
        """The way to the database that leads through it."""
        return f"through PgBouncer, {self.mode} mode"

    @property
    def dsn(self) -> str:
        """How to reach the database through it."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        user, group = self._account
        self._process = subprocess.Popen(
            [debian.program("pgbouncer"), "--quiet", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            group=group,
            extra_groups=[],
            start_new_session=True,
        )
        self._guard.watch(self._process.pid)
        deadline = time.monotonic() + STARTING_MAY_TAKE
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer does not start: see {self._configuration}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.tell("show version")
        except psycopg2.OperationalError:
            return False
        return True

    def tell(self, command: str) -> list[tuple[Any, ...]]:
        """Execute a command of its console."""
        dsn = f"postgresql://{ROLE}@127.0.0.1:{self.port}/pgbouncer"
        connection = psycopg2.connect(dsn, connect_timeout=5)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(command)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def kill(self) -> None:
        """End it at once, with all connections."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
