"""``worker --processes N``: a supervisor that keeps N worker processes running.

Rules

1. A child is the same command in a new interpreter, told by a variable that it is one. Nothing is
   forked, so threads and connections of the application's modules cannot be torn.
2. One queue of events (a signal came, a child ended) and one loop that reads it, in the main
   thread. The threads that wait for signals and for children only put events in.
3. Signals go to the supervisor, which passes each on as a SIGTERM: a worker takes both alike, but
   an interpreter that is still starting would answer SIGINT with a traceback. Children are in a
   session of their own, or Ctrl-C in a terminal would reach them twice, and a second signal means
   "abort what runs".
4. A child that ends unasked is started again: at once after it lived for a
   while, else after a pause that doubles. Once a stop was asked for, nothing is started.
5. A child that cannot start, whatever is tried again, says so with its exit code (`refused`): then
   the others are stopped, gracefully, and the supervisor ends with the code that one worker alone
   would have. That is what is `PERMANENT`: a wrong set-up, a schema that does not fit, a missing
   grant. All else deserves another try: a crash, a database that is away, a module of the user's
   that raised something when it was imported.
6. No child outlives its supervisor, even one killed by SIGKILL: its standard input is a pipe whose
   other end only the supervisor holds. At the end of the file it stops gracefully, and is less and
   less graceful if that takes long.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from procrastinate.cli import environment
from procrastinate.cli.children_port import ChildrenPort
from procrastinate.cli.exit_codes import ExitCode, code_for
from procrastinate.errors import (
    ConfigurationError,
    InsufficientPrivilege,
    ProcrastinateException,
    SchemaError,
)
from procrastinate_entry.stopping import STOP

logger = logging.getLogger("procrastinate.supervisor")

#: Tells a child its number.
MARK = environment.CHILD

FIRST_PAUSE = 1.0  # seconds before a child that died young is started again
LONGEST_PAUSE = 60.0
GROWN_UP = 30.0  # seconds after which a child's death is no sign of one that cannot start

ORPHAN_MAY_FINISH = 30.0  # seconds that an orphan's running jobs may take
ORPHAN_MAY_ABORT = 10.0  # seconds more until it just exits; others then recover its jobs

_WELL_ENDED = (ExitCode.OK, -signal.SIGTERM)  # once a stop was asked for

#: What ends a worker at its start and would do so again.
PERMANENT = (ConfigurationError, SchemaError, InsufficientPrivilege)
#: Added to the exit code of a child that cannot start: what a job gives to os._exit is lower.
_REFUSAL = 192
#: Exit codes that no refusal of a worker to start has.
NEVER_OF_A_WORKER = {ExitCode.OK, ExitCode.JOB_UNSUCCESSFUL, ExitCode.NOT_IN_TIME}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the supervisor's loop must know."""


@dataclass(frozen=True, slots=True)
class Signalled(Event):
    """A signal reached the supervisor."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """A child ended, with an exit code, or minus the number of the signal that killed it."""

    number: int
    code: int


@dataclass(slots=True)
class Child:
    """One of the workers: its process while it runs, and else when to start it again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float | None = 0.0
    pause: float = FIRST_PAUSE

    @property
    def runs(self) -> bool:
        return self.process is not None

    @property
    def done(self) -> bool:
        return self.process is None and self.start_at is None


@dataclass(slots=True)
class Supervisor:
    """Runs ``count`` children of ``command`` until it is told to stop, or all ended for good."""

    command: Sequence[str]
    count: int
    one_shot: bool = False
    first_pause: float = FIRST_PAUSE
    port: ChildrenPort | None = None
    _events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    _stopping: bool = False
    _code: ExitCode = ExitCode.OK

    def run(self) -> ExitCode:
        """Return OK if all children ended well, the code of one that cannot start, else ERROR."""
        children = [Child(number, pause=self.first_pause) for number in range(1, self.count + 1)]
        with (
            STOP.told(lambda number: self._events.put(Signalled(number))),
            # Within it: once that block has ended, a further signal ends this process at once.
            nullcontext() if self.port is None else self.port.answering(children),
        ):
            while not all(child.done for child in children):
                self._start_due(children)
                self._handle_next(children)
        STOP.leave_with(self._code)
        return self._code

    def _start_due(self, children: list[Child]) -> None:
        for child in children:
            if child.start_at is not None and child.start_at <= time.monotonic():
                self._start(child)

    def _start(self, child: Child) -> None:
        process = subprocess.Popen(
            self.command,
            env={**os.environ, MARK: str(child.number), **self._more_environment()},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        # In this order, because the thread of the HTTP port looks meanwhile.
        child.started_at, child.process, child.start_at = time.monotonic(), process, None
        logger.info("worker process %d of %d has pid %d", child.number, self.count, process.pid)
        threading.Thread(target=self._wait_for, args=(child.number, process), daemon=True).start()

    def _more_environment(self) -> Mapping[str, str]:
        return {} if self.port is None else self.port.environment

    def _wait_for(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self._events.put(Ended(number, process.wait()))

    def _handle_next(self, children: list[Child]) -> None:
        try:
            event = self._events.get(timeout=_seconds_to_next_start(children))
        except queue.Empty:
            return
        self._handle(event, children)

    def _handle(self, event: Event, children: list[Child]) -> None:
        if isinstance(event, Signalled):
            self._pass_on(event.number, children)
        elif isinstance(event, Ended):
            self._bury(children[event.number - 1])
            if not self._stopping and _refusal(event.code) is not None:
                self._give_up(children, event)
            else:
                self._go_on_without(children[event.number - 1], event.code)

    def _pass_on(self, number: int, children: list[Child]) -> None:
        logger.info("%s: passed on to the worker processes", signal.Signals(number).name)
        self._stop(children)

    def _stop(self, children: list[Child]) -> None:
        self._stopping = True
        for child in children:
            child.start_at = None
            if child.process is not None:
                child.process.terminate()

    def _bury(self, child: Child) -> None:
        process, child.process = child.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self.port is not None:
            self.port.ended(child.number)

    def _give_up(self, children: list[Child], ended: Ended) -> None:
        self._code = _refusal(ended.code) or ExitCode.ERROR
        logger.error(
            "worker process %d cannot start, and no other could: stopping",
            ended.number,
            extra={"worker_process": ended.number, "exit_code": self._code.value},
        )
        self._stop(children)

    def _go_on_without(self, child: Child, code: int) -> None:
        if self._stopping:
            if code not in _WELL_ENDED and _refusal(code) is None:
                self._code = self._code or ExitCode.ERROR
                logger.error("worker process %d %s", child.number, told(code))
        elif not (self.one_shot and code == ExitCode.OK):
            self._plan_restart(child, code)

    def _plan_restart(self, child: Child, code: int) -> None:
        now = time.monotonic()
        if now - child.started_at >= GROWN_UP:
            child.pause = 0.0
        logger.error(
            "worker process %d %s; it is started again%s",
            child.number,
            told(code),
            f" in {child.pause:g} s" if child.pause else "",
            extra={"worker_process": child.number, "exit_code": code},
        )
        child.start_at = now + child.pause
        child.pause = min(max(child.pause * 2, self.first_pause), LONGEST_PAUSE)


def _seconds_to_next_start(children: list[Child]) -> float:
    """How long the loop may wait for an event: at most a second, as Windows needs for Ctrl-C."""
    now = time.monotonic()
    waits = [child.start_at - now for child in children if child.start_at is not None]
    return max(0.0, min([1.0, *waits]))


def told(code: int) -> str:
    """Return how a process ended, as a log says it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def refused(exc: ProcrastinateException) -> int:
    """Return the exit code of a child that cannot start, and could not if it were tried again."""
    return _REFUSAL + code_for(exc)


def _refusal(code: int) -> ExitCode | None:
    """Return what a worker alone would have ended with, if a child's code says it cannot start."""
    refusals = set(ExitCode) - NEVER_OF_A_WORKER
    return ExitCode(code - _REFUSAL) if code - _REFUSAL in refusals else None


def adopted() -> int | None:
    """Return the number of this process among its supervisor's children; None if it has none.

    From then on it stops when its supervisor is gone.
    """
    number = os.environ.pop(MARK, None)
    if number is None:
        return None
    # A descriptor that no job's own children inherit; jobs read an empty standard input.
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_stop_with_supervisor, args=(pipe,), daemon=True).start()
    return int(number)


def _stop_with_supervisor(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    logger.warning("the supervisor is gone: stopping")
    for patience in (ORPHAN_MAY_FINISH, ORPHAN_MAY_ABORT):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
    logger.error("running jobs do not end: exiting without them")
    sys.stderr.flush()
    os._exit(ExitCode.ERROR)
