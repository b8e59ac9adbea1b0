"""The HTTP port of ``worker --processes``: one for all children, answered by their supervisor.

Rules

1. Each child has a port of its own that only this machine reaches, and writes its number into a
   file of a common folder. The supervisor asks all of them, and adds their metrics up, which the
   children count in files of the same folder.
2. ``/healthz`` fails if a child that runs is unwell, or says nothing. One that has ended is no
   reason: it is started again anyway. ``/readyz`` fails until all of them are ready.
3. A child counts under its number, not under its process id. One that is started again goes on
   with the counts of the one before, so no counter ever falls, and the files become no more.
4. The folder is removed at the end. What a killed supervisor has left is removed by the next one:
   as long as one lives, it holds a lock on a file in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from procrastinate.observing import exposing
from procrastinate.observing.safe_log import SafeLog
from procrastinate.worker.process import probes
from procrastinate.worker.process.http_port import Answer, HttpPort
from procrastinate.worker.process.probes import HEALTH, METRICS, READY, verdict
from procrastinate.worker.worker import Worker

#: Tells a child the common folder.
MARK = "_PROCRASTINATE_WORKER_FOLDER"
PREFIX = "procrastinate-worker-"
HERE = "127.0.0.1"
STARTING_MAY_TAKE = 60.0  # seconds until a child that has no port yet is unwell
ANSWER_MAY_TAKE = 3.0  # seconds
ANSWER_BYTES = 64 * 1024


class Child(Protocol):
    """What is asked about a worker process."""

    number: int
    started_at: float  # of the monotonic clock

    @property
    def runs(self) -> bool: ...

    @property
    def done(self) -> bool: ...


class ChildrenPort:
    """Answers for the children of one supervisor. Raises `ConfigurationError` for the port."""

    def __init__(
        self, host: str, port: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._port = HttpPort(
            *(host, port),
            {HEALTH: self._healthz, READY: self._readyz, METRICS: self._metrics},
            log=SafeLog(logging.getLogger("procrastinate.supervisor")),
        )
        _remove_left_ones()
        self.folder = tempfile.mkdtemp(prefix=PREFIX)
        self._lock = _locked(self.folder)
        self._children: Sequence[Child] = ()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a child has to be told."""
        return {MARK: self.folder}

    @contextlib.contextmanager
    def answering(self, children: Sequence[Child]) -> Iterator[None]:
        """Answer for the length of a block."""
        self._children = children
        self._port.start()
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the port, and remove the folder."""
        self._port.close()
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self, number: int) -> None:
        """Note that a child has ended."""
        _file_of(self.folder, number).unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # a scrape would tell of it
            if (found := exposing.exposition()) is not None:
                found.ended(self.folder, number)

    async def _healthz(self, accept: str) -> Answer:
        running = [child for child in self._children if child.runs]
        return verdict(await self._ask(running, HEALTH, starting=()))

    async def _readyz(self, accept: str) -> Answer:
        children = [child for child in self._children if not child.done]
        return verdict(await self._ask(children, READY, starting=("it starts",)))

    async def _metrics(self, accept: str) -> Answer:
        return probes.metrics(accept, lambda found: found.text_of_children(self.folder, accept))

    async def _ask(
        self, children: Sequence[Child], path: str, *, starting: Sequence[str]
    ) -> list[str]:
        asked = [self._problems_of(child, path, starting) for child in children]
        return [problem for found in await asyncio.gather(*asked) for problem in found]

    async def _problems_of(self, child: Child, path: str, starting: Sequence[str]) -> list[str]:
        found: Sequence[str]
        if not child.runs:
            found = ("it does not run",)
        elif (port := _port_of(self.folder, child.number)) is None:
            late = self._clock() - child.started_at > STARTING_MAY_TAKE
            found = ("it has not begun",) if late else starting
        else:
            found = await _problems_at(port, path)
        return [f"worker process {child.number}: {each}" for each in found]


async def _problems_at(port: int, path: str) -> Sequence[str]:
    """Return what a child answers that is not well."""
    try:
        async with asyncio.timeout(ANSWER_MAY_TAKE):
            reader, writer = await asyncio.open_connection(HERE, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {HERE}\r\n\r\n".encode())
                said = await reader.read(ANSWER_BYTES)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return ("it does not answer",)
    head, _, body = said.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200 "):
        return ()
    return body.decode("utf-8", "replace").splitlines() or ("it does not answer",)


# In a child


def folder_of_siblings() -> str | None:
    """Return the common folder of this process and its siblings; None if they have no port."""
    return os.environ.pop(MARK, None)


def count_in(folder: str, number: int) -> None:
    """Let this process count for its supervisor. Called before the app is imported."""
    if (found := exposing.exposition()) is not None:
        found.count_in(folder, number)


@contextlib.contextmanager
def answering_supervisor(worker: Worker, folder: str, number: int) -> Iterator[None]:
    """Answer the supervisor's requests for the length of a block."""
    worker.is_exposed = True
    with probes.answering(worker, HERE, 0, quietly=True) as port:
        assert port is not None
        _announce(folder, number, port.port)
        yield


def _announce(folder: str, number: int, port: int) -> None:
    file = _file_of(folder, number)
    draft = file.with_suffix(".new")
    draft.write_text(str(port))
    draft.replace(file)


def _file_of(folder: str, number: int) -> Path:
    return Path(folder) / f"{number}.port"


def _port_of(folder: str, number: int) -> int | None:
    try:
        return int(_file_of(folder, number).read_text())
    except (OSError, ValueError):
        return None


# The folder


def _locked(folder: str) -> IO[bytes] | None:
    """Hold a folder's lock for as long as what is returned is open; None where there are none.

    The file gets its name once it is locked. Otherwise another supervisor that has just begun could
    lock it first, and remove the folder.
    """
    draft = Path(folder) / "draft"
    lock = _try_lock(draft, lambda path: path.open("wb"))
    if lock is not None:
        draft.replace(Path(folder) / "lock")
    return lock


def _try_lock(path: Path, open_file: Callable[[Path], IO[bytes]]) -> IO[bytes] | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        file = open_file(path)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove_left_ones() -> None:
    """Remove the folders of supervisors that were killed (rule 4)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not _is_own(folder):
            continue
        lock = _try_lock(folder / "lock", lambda path: path.open("rb"))
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()


def _is_own(folder: Path) -> bool:
    """Whether this user has made a folder. Another user's "lock" could be a pipe, which blocks."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
