"""What lies in a server's directory, and who may use the directory.

``data``             the cluster; complete, or not there (``data.new`` is one being made)
``server.log``       the server's log since its last start
``server.json``      what runs here; only there while a server is ready
``start.lock``       held while a server is looked for, started, joined, left or stopped
``users.lock``       held, shared, by everybody who uses the server
``supervisor.lock``  held by the supervisor for as long as it lives

An existing directory is never chmod-ed. Root gives a directory that it made, or that is empty, to
the server's user; any other that this user cannot enter is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from procrastinate_embedded.accounts import Account, blocking_folder, short_folder
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.locks import FileLock, give_to_folder_owner


@dataclass(frozen=True)
class Running:
    """A ready server: what another process needs to know to use or to recognise it."""

    pid: int
    started: int  # Unix time, as the server itself wrote it down
    version: int
    bin_dir: str
    host: str  # the socket's folder, or an address on Windows
    port: int
    settings: dict[str, str]


class Home:
    """The directory of one server, and the names of the things in it."""

    def __init__(self, path: Path, *, temporary: bool) -> None:
        self.path = path
        self.temporary = temporary
        self.data = path / "data"
        self.unfinished_data = path / "data.new"
        self.log = path / "server.log"
        self._state = path / "server.json"

    def start_lock(self) -> FileLock:
        return FileLock(self.path / "start.lock")

    def users_lock(self) -> FileLock:
        return FileLock(self.path / "users.lock")

    def supervisor_lock(self) -> FileLock:
        return FileLock(self.path / "supervisor.lock")

    def running(self) -> Running | None:
        """What ``server.json`` says; None when there is none, or none that can be read."""
        try:
            return Running(**json.loads(self._state.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def publish(self, running: Running) -> None:
        """Say that the server is ready. Readers see the whole file or none."""
        draft = self._state.with_suffix(".new")
        with open(draft, "w", encoding="utf-8", opener=_open_private) as file:
            give_to_folder_owner(file.fileno(), self.path)
            json.dump(asdict(running), file)
        draft.replace(self._state)

    def retract(self) -> None:
        """Say that no server is ready."""
        self._state.unlink(missing_ok=True)

    def open_log(self) -> int:
        """An empty log, as a file descriptor."""
        fd = _open_private(str(self.log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        give_to_folder_owner(fd, self.path)
        return fd

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        try:
            return last_lines(self.log.read_text("utf-8", errors="replace"))
        except OSError:
            return "(no log)"

    def data_version(self) -> int | None:
        """The major version of the cluster here; None if there is none yet."""
        try:
            return int((self.data / "PG_VERSION").read_text("ascii").split(".")[0])
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        """Remove everything, also while a dying server still writes the last of its files."""
        for _ in range(100):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.02)


def last_lines(text: str, count: int = 15) -> str:
    """The end of a program's output, indented, for an error message."""
    lines = text.strip().splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


def _open_private(path: str, flags: int) -> int:
    # As root the folder may belong to the server's user: never follow a link out of it.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def temporary_home(account: Account | None, token: str | None = None) -> Home:
    """A home that is removed after use: a new one, or the one that all with `token` share."""
    base = short_folder(account)
    if token is None:
        path = Path(tempfile.mkdtemp(prefix="procrastinate-", dir=base))
        give(path, account)
        return Home(path, temporary=True)
    home = Home(base / f"procrastinate-{token}", temporary=True)
    prepare(home, account)
    return home


def prepare(home: Home, account: Account | None) -> None:
    """Make the directory if needed, and refuse one that the server cannot live in."""
    if "\n" in str(home.path):
        raise LaunchFailed(f"the directory {str(home.path)!r} has a line break in its name")
    try:
        home.path.parent.mkdir(parents=True, exist_ok=True)
        home.path.mkdir(mode=0o700)
        give(home.path, account)
    except FileExistsError:
        _check_existing(home, account)
    except OSError as exc:
        raise LaunchFailed(
            f"cannot make the directory {home.path}: {exc.strerror}; choose one below a folder "
            f"that you may write to"
        ) from exc
    _check_reachable(home, account)


def _check_existing(home: Home, account: Account | None) -> None:
    if not home.path.is_dir():
        raise LaunchFailed(f"{home.path} is not a directory: choose another one")
    if not os.access(home.path, os.R_OK | os.W_OK | os.X_OK):
        raise LaunchFailed(
            f"the directory {home.path} is not yours to write to: choose another one, or run as "
            f"the user that it belongs to"
        )
    if home.temporary and not _is_own(home.path, account):
        raise LaunchFailed(f"{home.path} belongs to somebody else: remove it, or set TMPDIR")
    names = {entry.name for entry in home.path.iterdir()}
    if "PG_VERSION" in names:
        raise LaunchFailed(
            f"{home.path} is itself a PostgreSQL data directory, made by something else: "
            f"give another directory, for this package's own cluster"
        )
    if names and "start.lock" not in names:
        raise LaunchFailed(
            f"{home.path} holds other files ({', '.join(sorted(names)[:3])}, ...): give a new or "
            f"an empty directory, or one that was made by procrastinate_embedded"
        )
    if not names and blocking_folder(home.path, account) == home.path:
        give(home.path, account)


def _is_own(path: Path, account: Account | None) -> bool:
    if sys.platform == "win32":
        return True
    owners = {os.getuid()} if account is None else {0, account.uid}
    return path.stat().st_uid in owners


def _check_reachable(home: Home, account: Account | None) -> None:
    blocking = blocking_folder(home.path, account)
    if blocking is not None and account is not None:
        raise LaunchFailed(
            f"PostgreSQL does not run as root, and the user {account.name!r}, who runs it "
            f"instead, cannot enter {blocking}: give a directory outside it (or none, for a "
            f"temporary one), or run as an ordinary user"
        )


def give(path: Path, account: Account | None) -> None:
    """As root, make `path` belong to the server's user."""
    if sys.platform != "win32" and account is not None:
        os.chown(path, account.uid, account.gid)


def socket_folder(home: Home, account: Account | None) -> Path:
    """A new folder, for the server's user only, with a path short enough for a socket."""
    if home.temporary:  # its own path is short, and one folder is easier to remove than two
        path = home.path / "socket"
        path.mkdir(mode=0o700, exist_ok=True)
    else:
        path = Path(tempfile.mkdtemp(prefix="procrastinate-", dir=short_folder(account)))
    give(path, account)
    return path


def remove_socket_folder(host: str) -> None:
    """Remove the folder that was made for a server's socket."""
    if is_socket_folder(host):
        shutil.rmtree(host, ignore_errors=True)


def is_socket_folder(host: str) -> bool:
    """Whether `host` names a folder made by `socket_folder`, and so one that may be removed."""
    path = Path(host)
    return path.is_absolute() and (path.name == "socket" or path.name.startswith("procrastinate-"))


def describe(settings: dict[str, Any]) -> str:
    """Settings as a user would write them, for messages."""
    return ", ".join(f"{name}={value}" for name, value in sorted(settings.items())) or "none"
