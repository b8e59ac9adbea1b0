"""The server under test: one whose every process may be killed, and which is started again.

The embedded package makes the cluster and shows which program and account it runs with. From then
on the server is the harness's own child, because the package's supervisor would end with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psutil
import psycopg2

import procrastinate_embedded
from chaos.guard import Guard

T = TypeVar("T")

PATIENCE = 120.0  # seconds for a start, and for a statement that a fault holds up
ROLE, DATABASE = "chaos", "chaos"
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    # A crash of the server is no crash of the machine: what was written survives without fsync.
    "fsync": "off",
    "max_connections": "150",
    "superuser_reserved_connections": "8",
    "wal_level": "logical",
    "unix_socket_permissions": "0777",
}


class Database:
    """A database that may be away for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"

    def dsn(self, user: str = ROLE, database: str = DATABASE) -> str:
        """Return how to reach it directly."""
        raise NotImplementedError

    def _connect(self, database: str) -> Any:
        connection = psycopg2.connect(self.dsn("postgres", database), connect_timeout=10)
        connection.autocommit = True
        return connection

    def query(self, sql: str, *values: Any, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the superuser's, as soon as the server answers."""
        return insist(lambda: self.ask(sql, *values, database=database))

    def ask(self, sql: str, *values: Any, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the superuser's, or raise psycopg2's error."""
        connection = self._connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def make_database(self) -> None:
        """Make the role and the database of the queue."""
        self.query(f"create role {ROLE} login", database="postgres")
        self.query(f"create database {DATABASE} owner {ROLE}", database="postgres")


class Cluster(Database):
    """A server on a Unix socket in `folder`."""

    def __init__(
        self, folder: Path, guard: Guard, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._guard = guard
        self._settings = {**SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        home = folder / "cluster"
        with procrastinate_embedded.server(home, settings={"fsync": False}) as made:
            program = psutil.Process(made.pid)
            self._program = program.exe()
            self._user, self._group = program.uids().real, program.gids().real
        self.data = home / "data"
        self.sockets = folder / "sockets"
        self.sockets.mkdir(exist_ok=True)
        if os.getuid() == 0:
            os.chown(self.sockets, self._user, self._group)

    @property
    def account(self) -> tuple[int, int]:
        """The user and group that the server runs as."""
        return self._user, self._group

    # --- Life and death ---

    @property
    def pid(self) -> int:
        """The postmaster's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._launch()
            if self._is_ready(deadline):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start: see {self.log}")
            time.sleep(0.1)

    def _launch(self) -> None:
        settings = {**self._settings, "unix_socket_directories": str(self.sockets)}
        command = [self._program, "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        is_root = os.getuid() == 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                user=self._user if is_root else None,
                group=self._group if is_root else None,
                extra_groups=[] if is_root else None,
            )
        self._guard.watch(self._process.pid)

    def _is_ready(self, deadline: float) -> bool:
        """Return whether it answers; False if it has ended instead."""
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._connect("postgres").close()
                return True
            except psycopg2.OperationalError:
                time.sleep(0.02)
        return False

    def is_up(self) -> bool:
        """Return whether the postmaster runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT is fast, SIGQUIT immediate, SIGKILL leaves all to the kernel."""
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Those that a killed postmaster leaves behind hold its shared memory.
        _, alive = psutil.wait_procs(children, 5)
        for each in alive:
            each.kill()
        psutil.wait_procs(alive, 10)

    def backends(self) -> list[psutil.Process]:
        """Return the server's processes."""
        return psutil.Process(self.pid).children()

    # --- Reaching it ---

    def dsn(self, user: str = ROLE, database: str = DATABASE) -> str:
        """Return how to reach it directly."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.sockets), safe='')}&port=5432"

    @property
    def socket(self) -> Path:
        """The socket itself."""
        return self.sockets / ".s.PGSQL.5432"


def insist(action: Callable[[], T]) -> T:
    """Do something with the database until it works."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except psycopg2.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
