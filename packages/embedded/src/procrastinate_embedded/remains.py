"""What a supervisor left that died before its time: recognised, stopped, cleared up.

Rules:

- Only our own server is signalled: a process that ``postmaster.pid`` *and* ``server.json`` name
  alike, and that is a ``postgres`` on this data directory, started when those files say.
- A ``postmaster.pid`` left by a crash may name a process that has nothing to do with it. The file
  is removed then, because PostgreSQL would refuse to start; the process is left alone.
- Any other live PostgreSQL on the data directory is somebody else's: we refuse to start.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from procrastinate_embedded import home as homes
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.home import Home, Running
from procrastinate_embedded.postmaster import STOP_STEPS, PidFile, read_pid_file

if TYPE_CHECKING:
    import psutil  # loaded only when there are remains: it takes as long as the supervisor itself

_CLOCK_SLACK = 3.0  # seconds between a process's start and the time that PostgreSQL writes down


def clear_remains(home: Home) -> None:
    """Deal with what a supervisor left that died before its time.

    Raises LaunchFailed when a server runs here that is not provably ours.
    """
    known, file = home.running(), read_pid_file(home.data)
    if file is not None:
        process = serving_process(file, home.data)
        if process is None:
            (home.data / "postmaster.pid").unlink(missing_ok=True)
        elif _was_started_by_us(process, file, known):
            _stop_orphan(process)
        else:
            raise LaunchFailed(
                f"another PostgreSQL server (process {file.pid}), which was not started by "
                f"procrastinate_embedded, runs in {home.data}: stop it first"
            )
    home.retract()
    if known is not None and _has_owner_of(home.data, known.host):
        homes.remove_socket_folder(known.host)


def _has_owner_of(data: Path, host: str) -> bool:
    # As root, do not believe all that a file says which another user could have written.
    with contextlib.suppress(FileNotFoundError):
        return Path(host).stat().st_uid == data.stat().st_uid
    return False


def serving_process(file: PidFile, data: Path) -> psutil.Process | None:
    """The live server on `data` that the pid file names; None if that process is another one.

    When the system does not tell, the process counts as the server, and is not to be touched.
    """
    import psutil

    try:
        process = psutil.Process(file.pid)
        if not _is_alive(process) or not _is_postgres(process):
            return None
        with contextlib.suppress(psutil.AccessDenied):
            if not _is_at(process.cwd(), data):
                return None
    except psutil.NoSuchProcess:
        return None
    return process


def _was_started_by_us(process: psutil.Process, file: PidFile, known: Running | None) -> bool:
    return (
        known is not None
        and (known.pid, known.started) == (file.pid, file.started)
        and abs(file.started - process.create_time()) <= _CLOCK_SLACK
    )


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _is_postgres(process: psutil.Process) -> bool:
    name: str = process.name()
    return name.removesuffix(".exe") in ("postgres", "postmaster")


def _is_at(folder: str, data: Path) -> bool:
    try:
        return data.samefile(folder)
    except FileNotFoundError:
        return False


def _stop_orphan(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        if sys.platform == "win32":  # where signals are no requests
            process.kill()
            process.wait(10)
            return
        for name, seconds in STOP_STEPS:
            process.send_signal(getattr(signal, name))
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not _is_alive(process):
                    return
                time.sleep(0.01)
