"""A user's side of the server: join it or have it started, and leave it.

Rules:

- A user first takes the start lock, then its share of ``users.lock``, which it keeps until it
  leaves. Between the two no process can decide that the server is unused.
- A server is ready when ``server.json`` says so while a supervisor lives. With a supervisor and
  no such file, a start or an end is under way, and we wait for it.
- The last one who leaves waits until the server is gone, so that nothing runs on after that.
- Whether others are there is asked under the start lock only. Without it, one who asks may take
  for a user who is none: another who asks, or a supervisor that removes the lock's file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from procrastinate_embedded import home as homes
from procrastinate_embedded import postmaster, remains
from procrastinate_embedded.accounts import Account
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.home import Home, Running
from procrastinate_embedded.locks import FileLock
from procrastinate_embedded.request import Request

_STOP_TIMEOUT = sum(seconds for _, seconds in postmaster.STOP_STEPS) + 10
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _CREATION_FLAGS = 0
_BOOT = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from procrastinate_embedded.supervisor import main; main()"
)


class Membership:
    """This process's use of one server, from `join` to `leave`."""

    def __init__(self, home: Home, request: Request, account: Account | None) -> None:
        self._home = home
        self._request = request
        self._account = account
        self._users = home.users_lock()
        self._process_id = os.getpid()

    def join(self) -> Running:
        """Join the server, starting it if needed. Raises LaunchFailed."""
        # Others may be before us, each of whom may need the whole time to start or to stop.
        deadline = time.monotonic() + 2 * self._request.timeout + _STOP_TIMEOUT
        while time.monotonic() < deadline:
            try:
                homes.prepare(self._home, self._account)
                running = self._join_now(deadline)
            except FileNotFoundError:  # a last user removed a shared temporary directory
                continue
            if running is not None:
                return running
            time.sleep(0.02)
        raise LaunchFailed(
            f"the server in {self._home.path} was being started or stopped by somebody else all "
            f"the time: look at {self._home.log}, and for processes that hang"
        )

    def _join_now(self, deadline: float) -> Running | None:
        start = self._home.start_lock()
        if not start.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return None
        try:
            # Not at once: a supervisor that has stopped its server keeps the lock until it ends.
            is_user = self._users.acquire(shared=True, timeout=5)
            running = self._find_or_start() if is_user else None
        except BaseException:
            self._users.release()
            if self._home.temporary and not self._is_used() and not self._is_supervised():
                self._home.remove()
            raise
        finally:
            start.release()
        if running is None:
            self._users.release()
        return running

    def _find_or_start(self) -> Running | None:
        if not self._is_supervised():
            self._check_data()
            if not _spawn_supervisor(self._request):
                return None
        running = self._home.running()
        if running is not None:
            self._check_same(running)
        return running

    def _is_supervised(self) -> bool:
        supervisor = self._home.supervisor_lock()
        try:
            is_free = supervisor.acquire()
        except FileNotFoundError:
            return False
        supervisor.release()
        return not is_free

    def _check_data(self) -> None:
        found = self._home.data_version()
        if found is not None and found != self._request.version:
            raise LaunchFailed(
                f"{self._home.path} holds a cluster of PostgreSQL {found}, and PostgreSQL "
                f"{self._request.version} cannot use it: ask for version={found}, or give another "
                f"directory"
            )

    def _check_same(self, running: Running) -> None:
        if running.version != self._request.version:
            raise LaunchFailed(
                f"PostgreSQL {running.version} already runs in {self._home.path}, and version "
                f"{self._request.version} was asked for: ask for the same one, or give another "
                f"directory"
            )
        if running.settings != self._request.settings:
            raise LaunchFailed(
                f"the server in {self._home.path} already runs with other settings "
                f"({homes.describe(running.settings)}) than were asked for "
                f"({homes.describe(self._request.settings)}): ask for the same ones, or give "
                f"another directory"
            )

    def leave(self) -> None:
        """Stop using the server. If no other process uses it, wait until it is gone.

        In a forked child this does nothing: it is the parent who uses the server.
        """
        if os.getpid() != self._process_id:
            return
        self._users.release()
        deadline = time.monotonic() + _STOP_TIMEOUT
        try:
            while self._is_supervised():
                if self._is_left_to_others():
                    return
                if time.monotonic() > deadline:
                    raise LaunchFailed(
                        f"the server in {self._home.path} did not stop within "
                        f"{_STOP_TIMEOUT:g} s: look at {self._home.log}"
                    )
                time.sleep(0.01)
            self._clear_up()
        except FileNotFoundError:
            return  # the directory is gone, as it should be

    def _is_left_to_others(self) -> bool:
        """Whether others use the server; False also while another process starts or stops it."""
        start = self._home.start_lock()
        try:
            return start.acquire() and self._is_used()
        finally:
            start.release()

    def _is_used(self) -> bool:
        """Whether others use the server; to be asked with the start lock in hand.

        A lock held alone is a supervisor's that is ending, or one that has just seen the last
        user go. The latter lets go at once, and only once: users are still there at a second look.
        """
        return (
            not _can_be_held(self._users)
            and _can_be_held(self._users, shared=True)
            and not _can_be_held(self._users)
        )

    def _clear_up(self) -> None:
        """Finish what a supervisor should have done that was killed."""
        if not self._home.path.exists():
            return
        start = self._home.start_lock()
        if not start.acquire(timeout=_STOP_TIMEOUT):
            return
        try:
            if self._is_used() or self._is_supervised():
                return
            remains.clear_remains(self._home)
            if self._home.temporary:
                self._home.remove()
        finally:
            start.release()


def _can_be_held(lock: FileLock, *, shared: bool = False) -> bool:
    held = lock.acquire(shared=shared)
    lock.release()
    return held


def _spawn_supervisor(request: Request) -> bool:
    """Have a supervisor start the server; False if another one is at work. Raises LaunchFailed."""
    command = [
        *(sys.executable, "-I", "-S", "-c", _BOOT),
        f"procrastinate-embedded supervisor of {request.home}",
        *(str(_import_root(name)) for name in ("procrastinate_embedded", "psutil")),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Not in our session: Ctrl-C and a closed terminal are not to reach it.
        start_new_session=sys.platform != "win32",
        creationflags=_CREATION_FLAGS,
    )
    output, problems = process.communicate(json.dumps(asdict(request)).encode())
    answer = _parse(output)
    if "error" in answer:
        raise LaunchFailed(answer["error"])
    if not answer:
        raise LaunchFailed(
            f"the supervisor of the server in {request.home} ended without an answer; its last "
            f"lines:\n{homes.last_lines(problems.decode(errors='replace'))}"
        )
    return "ready" in answer


def _parse(output: bytes) -> dict[str, Any]:
    return dict(json.loads(output)) if output.strip() else {}


def _import_root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LaunchFailed(f"{package} is not installed: run pip install {package}")
    return Path(spec.origin).resolve().parent.parent
