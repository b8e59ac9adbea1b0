"""The demo's worker as seen from outside: a process that is started, watched, stopped or killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from procrastinate.errors import ProcrastinateException
from procrastinate_embedded.demo.worker_process import DSN_VARIABLE

MAY_TAKE_TO_STOP = 10.0  # seconds before a worker that does not end is killed


class WorkerEnded(ProcrastinateException):
    """The worker process ended by itself."""


class WorkerProcess:
    """A worker in a process of its own. ``application_name`` is what its connections are called."""

    def __init__(
        self,
        *,
        dsn: str,
        schema: str,
        number: int,
        concurrency: int,
        hold_after: int | None = None,
    ) -> None:
        self.application_name = f"{schema}_worker_{number}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        command = [sys.executable, "-P", "-m", "procrastinate_embedded.demo.worker_process"]
        command += ["--schema", schema, "--application-name", self.application_name]
        command += ["--concurrency", str(concurrency)]
        if hold_after is not None:
            command += ["--hold-after", str(hold_after)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, DSN_VARIABLE: dsn},
            stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops its worker
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise `WorkerEnded` unless the process runs."""
        code = self._process.poll()
        if code is not None:
            raise WorkerEnded(f"the worker ended by itself with code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 10_000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def kill(self) -> None:
        """Kill it with SIGKILL, as a machine that loses its power would."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Stop it gracefully, or else with force. Twice is harmless."""
        self._process.terminate()
        try:
            self._process.wait(MAY_TAKE_TO_STOP)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()


@contextmanager
def running(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """Watch a worker for the length of a block, and end it."""
    try:
        yield worker
    finally:
        worker.end()
