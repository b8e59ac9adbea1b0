"""The end of everything, also if the harness is killed: ``python -m chaos.guard``.

It reads a process's id and the moment of its creation from each line of its standard input. At the
end of the input it kills those that still run, and removes the folder that its argument names.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent  # where -m finds this package


class Guard:
    """The harness's side: tells of each process that must not outlive it."""

    def __init__(self, folder: Path | None) -> None:
        command = [sys.executable, "-m", "chaos.guard", *([str(folder)] if folder else [])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True
        )
        self._lock = threading.Lock()

    def watch(self, pid: int) -> None:
        """Let a process be killed at the end."""
        try:
            created = psutil.Process(pid).create_time()
        except psutil.Error:
            return
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{pid} {created!r}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Kill what still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Wait for the end of the harness, and clear up."""
    watched = [line.split() for line in sys.stdin]
    for pid, created in watched:
        kill(int(pid), float(created))
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def kill(pid: int, created: float) -> None:
    """Kill a process with its children, unless another one has its id now."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > 0.05:
            return
        doomed = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for each in doomed:
        try:
            each.kill()
        except psutil.Error:
            pass


if __name__ == "__main__":
    main()
