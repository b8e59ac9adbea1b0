"""Two nodes under Patroni, with etcd: one is the primary, the other its synchronous standby.

Each node reaches etcd through a proxy of its own, so that it can be cut off from it. Clients
name both nodes and ask for the one that takes writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from chaos import debian
from chaos.bouncer import free_port
from chaos.cluster import DATABASE, ROLE, Database
from chaos.guard import Guard
from chaos.proxy import Proxy

ACCOUNT = "postgres"
HEALTHY_WITHIN = 120.0  # seconds
#: Patroni's own times, in seconds: a primary that is lost is replaced once `ttl` is over.
TIMES = {"ttl": 15, "loop_wait": 2, "retry_timeout": 3}
CONFIGURATION: dict[str, Any] = {
    "scope": "chaos",
    "bootstrap": {
        "dcs": {
            **TIMES,
            "synchronous_mode": True,
            "postgresql": {
                "use_pg_rewind": True,
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
                "parameters": {"max_connections": 150, "wal_log_hints": "on", "fsync": "off"},
            },
        },
        "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}],
        "pg_hba": [
            "local all all trust",
            "host all all 127.0.0.1/32 trust",
            "host replication all 127.0.0.1/32 trust",
        ],
    },
    "postgresql": {
        "authentication": {
            "superuser": {"username": "postgres"},
            "replication": {"username": "replicator"},
        }
    },
}


class Node:
    """One of the two: a Patroni with the server that it keeps."""

    def __init__(self, name: str, folder: Path, etcd: int, guard: Guard) -> None:
        self.name = name
        self._guard = guard
        self._folder = folder
        self.port, self.api = free_port(), free_port()
        self.to_etcd = Proxy(lambda: asyncio.open_connection("127.0.0.1", etcd))
        self.to_etcd.start()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        own(folder)
        self._file = folder / "patroni.json"
        self._file.write_text(json.dumps(self._configuration()))

    def _configuration(self) -> dict[str, Any]:
        where, api = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.api}"
        postgresql = {
            **CONFIGURATION["postgresql"],
            "listen": where,
            "connect_address": where,
            "data_dir": str(self._folder / "data"),
            "pgpass": str(self._folder / "pgpass"),
            "bin_dir": str(debian.postgres()),
            "parameters": {"unix_socket_directories": str(self._folder)},
        }
        return {
            **CONFIGURATION,
            "name": self.name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"hosts": [f"127.0.0.1:{self.to_etcd.port}"], "use_proxies": True},
            "postgresql": postgresql,
        }

    def start(self) -> None:
        """Start Patroni, which starts the server."""
        with (self._folder / "patroni.log").open("ab") as log:
            self._process = launch([debian.program("patroni"), str(self._file)], log)
        self._guard.watch(self._process.pid)

    def kill(self) -> None:
        """End Patroni and the server at once."""
        if self._process is None or self._process.poll() is not None:
            return
        doomed = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for each in doomed:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(doomed, 10)

    def ask(self, path: str, body: dict[str, str] | None = None) -> Any:
        """Return what Patroni's interface answers; None if it does not."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=30 if body else 3) as answer:
                text = answer.read().decode()
        except (OSError, urllib.error.HTTPError):
            return None
        return json.loads(text) if text.startswith("{") else text


class Patroni(Database):
    """The two nodes, as one database."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        super().__init__(folder)
        folder.mkdir(exist_ok=True)
        self._guard = guard
        self._etcd_port = free_port()
        self._etcd = self._start_etcd()
        self.nodes = [Node(name, folder / name, self._etcd_port, guard) for name in ("a", "b")]

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        data = self.folder / "etcd"
        data.mkdir()
        own(data)
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        command = [debian.program("etcd"), "--data-dir", str(data / "data")]
        command += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
        command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        command += ["--initial-cluster", f"default={peers}"]
        with (data / "etcd.log").open("ab") as log:
            process = launch(command, log)
        self._guard.watch(process.pid)
        return process

    def start(self) -> None:
        """Start the first node, then the second, and wait until it is a synchronous standby."""
        self.nodes[0].start()
        self._until(lambda: self.leader() is not None, "a primary")
        self.nodes[1].start()
        self.wait_until_healthy()

    def stop(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.kill()
            node.to_etcd.close()
        self._etcd.kill()
        self._etcd.wait()

    # --- Who is what ---

    def _members(self) -> dict[str, tuple[str, str]]:
        """Return the role and state of each node, as the first one that answers sees it."""
        for node in self.nodes:
            answer = node.ask("/cluster")
            if isinstance(answer, dict):
                return {each["name"]: (each["role"], each["state"]) for each in answer["members"]}
        return {}

    def leader(self) -> Node | None:
        """Return the node that says of itself that it is the primary and holds the lock."""
        for node in self.nodes:
            if node.ask("/primary") is not None:
                return node
        return None

    def other(self, node: Node) -> Node:
        """Return the other node."""
        return self.nodes[1] if node is self.nodes[0] else self.nodes[0]

    def is_healthy(self) -> bool:
        """Return whether there are a primary and a synchronous standby."""
        roles = {role for role, state in self._members().values() if state in RUNNING}
        return roles == {"leader", "sync_standby"} and self.leader() is not None

    def wait_until_healthy(self) -> None:
        """Wait until both nodes are well."""
        self._until(self.is_healthy, "a primary and a synchronous standby")

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + HEALTHY_WITHIN
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Patroni has not got {what}: see {self.folder}")
            time.sleep(0.2)

    # --- Reaching it ---

    def dsn(self, user: str = ROLE, database: str = DATABASE) -> str:
        """Return how to reach the node that takes writes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        wanted = "target_session_attrs=read-write&connect_timeout=3"
        return f"postgresql://{user}@{hosts}/{database}?{wanted}"


RUNNING = ("running", "streaming")


def launch(command: list[str], log: Any) -> subprocess.Popen[bytes]:
    """Start a program as the account that PostgreSQL runs with."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env={"PATH": debian.PATH, "LC_ALL": "C.UTF-8"},
        user=ACCOUNT,
        group=ACCOUNT,
        extra_groups=[],
        start_new_session=True,
    )


def own(folder: Path) -> None:
    """Give a folder to that account alone."""
    account = pwd.getpwnam(ACCOUNT)
    os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o700)
