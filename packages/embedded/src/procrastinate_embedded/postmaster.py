"""Starting and stopping a server that is our own child."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from procrastinate_embedded import home as homes
from procrastinate_embedded.accounts import Account
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.home import Home, Running
from procrastinate_embedded.request import Request

STOP_STEPS = (("SIGINT", 30.0), ("SIGQUIT", 10.0), ("SIGKILL", 10.0))  # fast, immediate, by force


class Postmaster:
    """A server that is our own child."""

    def __init__(self, process: subprocess.Popen[bytes], running: Running) -> None:
        self.process = process
        self.running = running

    def stop(self, data: Path) -> None:
        """Stop it fast: sessions are ended, what was committed is kept."""
        if sys.platform == "win32":
            pg_ctl = str(Path(self.running.bin_dir) / "pg_ctl")
            subprocess.run([pg_ctl, "stop", "-D", str(data), "-m", "fast"], capture_output=True)
            return
        for name, seconds in STOP_STEPS:
            self.process.send_signal(getattr(signal, name))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return


def start(request: Request, home: Home) -> Postmaster:
    """Start the server and wait until it accepts connections. Raises LaunchFailed."""
    host, port = _address(home, request.user())
    command = [request.program("postgres"), "-D", str(home.data)]
    for name, value in (_own_settings(host, port) | request.settings).items():
        command += ["-c", f"{name}={value}"]
    log = home.open_log()
    try:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent(),
            **request.popen_options(),
        )
    except (OSError, subprocess.SubprocessError) as exc:
        homes.remove_socket_folder(host)
        raise LaunchFailed(f"cannot run {command[0]}: {exc}") from exc
    finally:
        os.close(log)
    postmaster = Postmaster(
        process,
        Running(process.pid, 0, request.version, request.bin_dir, host, port, request.settings),
    )
    try:
        postmaster.running = _wait_until_ready(postmaster, home, request)
    except LaunchFailed:
        if process.poll() is None:
            postmaster.stop(home.data)
        homes.remove_socket_folder(host)
        raise
    return postmaster


def _die_with_parent() -> Callable[[], object] | None:
    """What makes Linux send a new process SIGINT, a fast shutdown, when its parent dies."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # here, because the server's user may not be able to read Python's files
    except ImportError:
        return None
    pr_set_pdeathsig = 1
    return functools.partial(ctypes.CDLL(None).prctl, pr_set_pdeathsig, int(signal.SIGINT))


def _address(home: Home, account: Account | None) -> tuple[str, int]:
    if sys.platform != "win32":
        return str(homes.socket_folder(home, account)), 5432
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", probe.getsockname()[1]


def _own_settings(host: str, port: int) -> dict[str, str]:
    if sys.platform == "win32":
        return {"listen_addresses": host, "port": str(port)}
    return {
        "listen_addresses": "",
        "port": str(port),
        "unix_socket_directories": host,
        "unix_socket_permissions": "0700",
    }


def _wait_until_ready(postmaster: Postmaster, home: Home, request: Request) -> Running:
    process, deadline = postmaster.process, time.monotonic() + request.timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LaunchFailed(
                f"PostgreSQL {request.version} in {home.path} ended with code "
                f"{process.returncode} instead of starting; its last lines:\n{home.log_tail()}"
            )
        file = read_pid_file(home.data)
        if file is not None and file.pid == process.pid and file.status == "ready":
            return Running(**{**vars(postmaster.running), "started": file.started})
        time.sleep(0.01)
    raise LaunchFailed(
        f"PostgreSQL {request.version} in {home.path} was not ready within {request.timeout:g} s "
        f"(timeout= allows more); its last lines:\n{home.log_tail()}"
    )


@dataclass(frozen=True)
class PidFile:
    """What a postmaster.pid says."""

    pid: int
    started: int
    status: str


def read_pid_file(data: Path) -> PidFile | None:
    """The postmaster.pid in `data`; None if there is none, or one that is still being written."""
    try:
        lines = (data / "postmaster.pid").read_text("utf-8", errors="replace").splitlines()
        pid = abs(int(lines[0]))  # negative: a server without a postmaster
        return PidFile(pid, int(lines[2]), lines[7].strip() if len(lines) > 7 else "")
    except (OSError, ValueError, IndexError):
        return None
