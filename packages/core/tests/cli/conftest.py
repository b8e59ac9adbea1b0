"""The program ``procrastinate``, run as users run it: in a folder with an application's module."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHOP = """
import asyncio, json, os, sys, time
import procrastinate

dsn = os.environ.get("SHOP_DSN", "")
if os.environ.get("SHOP_ARGV"):
    with open(os.environ["SHOP_ARGV"], "a") as file:
        file.write(json.dumps(sys.argv) + "\\n")

def say(text):  # as one: processes share the pipe, and print writes the line's end by itself
    os.write(1, f"{text}\\n".encode())

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
sync_app = app.with_connector(procrastinate.Psycopg2Connector(dsn=dsn))
if sys.argv[0:2] == ["procrastinate", "worker"]:      # an example of a condition
    connector_class = procrastinate.AiopgConnector
else:
    connector_class = procrastinate.Psycopg2Connector
chosen_app = app.with_connector(connector_class(dsn=dsn))
named_app = procrastinate.App(
    connector=procrastinate.AiopgConnector(dsn=dsn),
    worker_defaults={"name": "till", "queues": ["letters"], "delete_jobs": "successful"},
)

@app.task(queue="letters")
def add(a, b): return a + b

@app.task(queue="letters", result=True)
def total(a, b): return a + b

@app.task
def pid(): say(f"running in {os.getpid()}")

@app.task
def chat(words):
    for word in words:
        print(word)  # says nothing about flushing
    if words[-1] == "die":
        os._exit(7)
    time.sleep(100)

@app.task
def stdin(): say(f"read {sys.stdin.read()!r}")

@app.task(pass_context=True)
def nap(context, seconds):
    say("napping")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if context.should_abort():
            raise procrastinate.JobAborted
        time.sleep(0.01)
"""


EACH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from procrastinate.cli.root import root

done = []
command_lines, sys.stdin = json.load(sys.stdin), io.StringIO()
sys.path.insert(0, "")
for args in command_lines:
    code = None
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        try:
            root.main(args, prog_name="procrastinate")
        except SystemExit as exc:
            code = exc.code
    done.append([args, code, stdout.getvalue(), stderr.getvalue()])
json.dump(done, sys.stdout)
"""


class Running:
    """A program that runs: what it has printed so far, and the signals it is sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self._lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """Lines of stdout and stderr, as they came."""
        return "\n".join(self._lines)

    def lines_with(self, text: str) -> list[str]:
        return [line for line in list(self._lines) if text in line]

    def wait_for(self, text: str, times: int = 1, seconds: float = 30) -> list[str]:
        """Return the lines with this text, once there are at least ``times`` of them."""
        until(lambda: len(self.lines_with(text)) >= times, seconds, lambda: self.output)
        return self.lines_with(text)

    def press_ctrl_c(self, seconds: float = 30) -> int:
        """Send SIGINT to the whole process group, as a terminal does, and return the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.ended(seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended(seconds)

    def ended(self, seconds: float = 30) -> int:
        """Return the exit code, once the program has ended and all it wrote was read."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code


class Terminal:
    """A program on a terminal of its own: what it shows, and what somebody types."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self._side, other = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=folder,
            env=env,
            start_new_session=True,
            # The terminal that Ctrl-C comes from.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._side, 65536):
                self._shown += chunk
        except OSError:  # how Linux says that the other side was closed
            return

    @property
    def shown(self) -> str:
        """All that was shown, with plain ends of lines."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def wait_for(self, text: str, times: int = 1, seconds: float = 30) -> None:
        until(lambda: self.shown.count(text) >= times, seconds, lambda: self.shown)

    def ended(self, seconds: float = 30) -> int:
        """Return the exit code, once the program has ended and all it showed was read."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        os.close(self._side)
        return code


class Program:
    """Runs ``procrastinate`` in a folder of its own, with the environment of its own."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PROCRASTINATE")
        } | {"COLUMNS": "80", **env}
        self.command = [str(Path(sys.executable).with_name("procrastinate"))]
        self.started: list[Running] = []
        self.terminals: list[Terminal] = []

    def __call__(
        self, *args: str, stdin: str | bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; its output as text."""
        done = subprocess.run(
            [*self.command, *args],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            cwd=self.folder,
            env=self.env | (env or {}),
            capture_output=True,
            timeout=60,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def each(self, command_lines: Iterable[list[str]]) -> list[subprocess.CompletedProcess[str]]:
        """Run many command lines in one process, which is quicker than one for each."""
        lines = [list(each) for each in command_lines]
        done = subprocess.run(
            [sys.executable, "-c", EACH],
            input=json.dumps(lines),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [subprocess.CompletedProcess(*each) for each in json.loads(done.stdout)]

    def on_terminal(self, *args: str, **env: str) -> Terminal:
        """Start on a terminal, which draws nothing but text."""
        fixed = {
            "TERM": "dumb",
            "XDG_STATE_HOME": str(self.folder / "state"),
            "INPUTRC": "/dev/null",
        }
        terminal = Terminal([*self.command, *args], self.folder, self.env | fixed | env)
        self.terminals.append(terminal)
        return terminal

    def shown(self, *args: str, **env: str) -> str:
        """Run to a good end on a terminal; the text that it shows, without colours."""
        terminal = self.on_terminal(*args, **{"TERM": "xterm", **env})
        assert terminal.ended() == 0, terminal.shown
        text = re.sub(r"\x1b\[[\d;]*m", "", terminal.shown)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())

    def start(self, *args: str, **env: str) -> Running:
        process = subprocess.Popen(
            [*self.command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.env | env,
            start_new_session=True,
        )
        self.started.append(Running(process))
        return self.started[-1]


@pytest.fixture
def bare_program(tmp_path: Path) -> Program:
    """The program in a folder with the module ``shop``, and no server."""
    tmp_path.joinpath("shop.py").write_text(SHOP)
    return Program(tmp_path, SHOP_DSN="host=127.0.0.1 port=9 connect_timeout=5")


@pytest.fixture
def program(bare_program: Program, dsn: str) -> Iterator[Program]:
    """The same with a database that has procrastinate's tables; the app is ``shop.app``."""
    bare_program.env |= {"SHOP_DSN": dsn, "PROCRASTINATE_APP": "shop.app"}
    yield bare_program
    for terminal in bare_program.terminals:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.ended()
    for running in bare_program.started:
        if running.process.poll() is None:
            running.process.kill()
        running.ended()


def until(
    condition: Callable[[], object], seconds: float = 30, describe: Callable[[], str] = str
) -> None:
    """Wait until a condition holds, looking often."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {describe()}"
        time.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until
