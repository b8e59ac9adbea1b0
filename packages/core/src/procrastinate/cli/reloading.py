"""``worker --reload``: workers that start again when a Python file changes, for development.

Rules

1. The workers are children of a supervisor, as with ``--processes``. The supervisor imports nothing
   of the application's, so that a module which cannot be imported ends a child only.
2. The files are those below the current folder, where the application's modules are found. They
   are looked at twice a second, because Python has no portable way to be told of changes.
3. A change stops the workers gracefully, but a running job may take only `JOBS_MAY_TAKE`. Then it
   is aborted or handed back, as by a second signal, and runs again.
4. A child that ends by itself is started again at the next change: nothing else will mend it.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field

from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.processes import Child, Ended, Event, Supervisor, told
from procrastinate.model.text.printable import line

logger = logging.getLogger("procrastinate.supervisor")

INTERVAL = 0.5  # seconds between looks at the files
JOBS_MAY_TAKE = 5.0  # seconds that running jobs get when a file has changed
ABORTING_MAY_TAKE = 10.0  # seconds more until a worker that does not end is killed

SKIPPED = {"__pycache__", "node_modules", "site-packages"}

#: Of each Python file, what changes when it is written.
Files = dict[str, tuple[int, int]]


def files_below(folder: str) -> Files:
    """Return the Python files below a folder, without hidden folders and virtual environments."""
    found: Files = {}
    for parent, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = [each for each in folders if each not in SKIPPED and each[0] != "."]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(parent, name)
                try:
                    status = os.stat(path)
                except OSError:  # it is being replaced, or it is a link to nowhere
                    continue
                found[os.path.relpath(path, folder)] = (status.st_mtime_ns, status.st_size)
    return found


def changed(before: Files, after: Files) -> list[str]:
    """Return the paths that were added, removed or written between two looks."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def forget_bytecode(path: str) -> None:
    """Remove what Python has compiled from a file.

    It tells whether that is old by the second and the size of the file. A second edit within a
    second would not be seen if it changes one letter.
    """
    try:
        os.unlink(importlib.util.cache_from_source(os.path.abspath(path)))
    except (OSError, NotImplementedError):  # there is none, or it is not ours
        pass


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """Files were changed."""

    paths: tuple[str, ...]


@dataclass(slots=True)
class Reloader(Supervisor):
    """A supervisor that starts its children again when a file changes."""

    folder: str = "."
    _restarting: set[int] = field(default_factory=set)

    def run(self) -> ExitCode:
        """Work until it is told to stop; see `Supervisor.run`."""
        over = threading.Event()
        before = files_below(self.folder)
        threading.Thread(target=self._watch, args=(before, over), daemon=True).start()
        try:
            return Supervisor.run(self)
        finally:
            over.set()

    def _watch(self, before: Files, over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            after = files_below(self.folder)
            if paths := changed(before, after):
                self._events.put(Changed(tuple(paths)))
            before = after

    def _handle(self, event: Event, children: list[Child]) -> None:
        if isinstance(event, Changed):
            self._reload(event.paths, children)
        elif isinstance(event, Ended) and not self._stopping:
            self._bury(children[event.number - 1])
            self._await_change(children[event.number - 1], event.code)
        else:
            Supervisor._handle(self, event, children)

    def _reload(self, paths: tuple[str, ...], children: list[Child]) -> None:
        if self._stopping:
            return
        for path in paths:
            forget_bytecode(os.path.join(self.folder, path))
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        logger.info("%s%s changed: reloading", line(paths[0]), more)
        for child in children:
            if child.process is None:
                child.start_at = time.monotonic()
            elif child.number not in self._restarting:
                self._restarting.add(child.number)
                threading.Thread(target=_end, args=(child.process,), daemon=True).start()

    def _await_change(self, child: Child, code: int) -> None:
        if child.number in self._restarting:
            self._restarting.remove(child.number)
            child.start_at = time.monotonic()
        else:
            child.start_at = math.inf
            logger.warning(
                "worker process %d %s; it is started again when a file changes",
                child.number,
                told(code),
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a worker: gracefully, then at once, then by force."""
    process.terminate()
    for seconds, ask in ((JOBS_MAY_TAKE, process.terminate), (ABORTING_MAY_TAKE, process.kill)):
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            ask()
