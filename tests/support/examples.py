"""An application from examples/, run as its README says: commands, a server and a worker."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds, for a machine that is busy with other tests


class Example:
    """A copy of one example, with the environment in which its commands run."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder / name
        shutil.copytree(ROOT / "examples" / name, self.folder)
        self.readme = (self.folder / "README.md").read_text("utf-8")
        self.environment = {**environment, "HOME": str(folder)}  # gunicorn leaves a socket there

    def documented(self, program: str) -> list[str]:
        """Return the command of the README that begins with these words."""
        (line,) = re.findall(rf"^\$ ({re.escape(program)}\b.*)$", self.readme, re.MULTILINE)
        return shlex.split(line)

    def run(self, program: str) -> None:
        """Run a documented command to its end."""
        done = subprocess.run(
            self.documented(program),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, program: str, *, shows: str, port: int | None = None) -> Iterator[Process]:
        """Run a documented command that does not end, on another port where one is given."""
        command = self.documented(program)
        if port is not None:
            command = [re.sub(r"\b800\d$", str(port), word) for word in command]
        process = Process(command, self.folder, self.environment)
        try:
            process.wait_for(shows)
            yield process
        finally:
            process.kill()


class Process:
    """A server or a worker, whose output is kept in a file."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        with tempfile.NamedTemporaryFile(delete=False, dir=folder, suffix=".log") as log:
            self._log = Path(log.name)
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until this was printed."""
        wait_until(lambda: text in self.output or self._process.poll() is not None)
        assert text in self.output, self.output

    def ask_to_stop(self) -> None:
        """Send SIGTERM, as systemd or Docker do."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask for a graceful end, and return the exit code."""
        self.ask_to_stop()
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End the process and its children, if they are still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def request(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send one HTTP request; return its status, and what its JSON says (None for other bodies)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json and text else None


def wait_until(condition: Callable[[], object]) -> None:
    """Look often until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that no process listens on.

    It is none of those that systems give to whoever asks for any: another test could be given it
    before the server of this one listens.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
