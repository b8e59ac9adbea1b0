"""A worker process that is measured: ``python -m benchmarks.worker '{"dsn": ...}'``.

It is an ordinary worker with the options that it is given. Its tasks do nothing but count, or note
what a workload wants to know. It writes lines of JSON to its standard output:

``{"began": t}``     at each body of the task ``tell``, with the moment that it was entered
``{"ran": n, ...}``  once ``report_at`` bodies were entered; with ``report``, all the time
``{"ended": ...}``   at its end: what it ran, CPU seconds, peak memory, statements, notes

Moments are of ``time.monotonic()``, which all processes of a machine share on Linux and macOS, and
where a job's time counts also of ``time.time()``. Only what is needed is imported, since start and
memory are measured too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import resource
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import procrastinate
from benchmarks import limits
from benchmarks.lengths import seconds_of
from procrastinate import connectors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from procrastinate.connector import AsyncSessionExecutor, Query, Rows

TEXT = "x" * 198  # a result of 200 bytes of JSON


class Recorder:
    """What the tasks note."""

    def __init__(self, report_at: int) -> None:
        self.report_at = report_at
        self.ran = 0
        self.notes: list[Any] = []
        self._count = itertools.count(1)

    def entered(self) -> None:
        """Count a body that was entered, from any thread."""
        self.ran = number = next(self._count)
        if number == self.report_at:
            say(ran=number, monotonic=time.monotonic())


def say(**message: Any) -> None:
    """Write one message, in one system call."""
    os.write(1, json.dumps(message).encode() + b"\n")


def add_keepers(app: procrastinate.App, recorder: Recorder, lengths: Sequence[float]) -> None:
    """Add the tasks that keep results, which older versions do not know."""

    @app.task(name="keep_none", result=True)
    async def keep_none(n: int) -> None:
        recorder.entered()

    @app.task(name="keep_text", result=True)
    async def keep_text(n: int) -> str:
        recorder.entered()
        return TEXT

    @app.task(name="sleep_and_keep", result=True)
    async def sleep_and_keep(n: int) -> int:
        await asyncio.sleep(lengths[n - 1])
        recorder.entered()
        return n


def app_on(connector: Any, recorder: Recorder, lengths: Sequence[float] = ()) -> procrastinate.App:
    """Return an app with the tasks of all workloads. Job ``n`` sleeps for ``lengths[n - 1]``."""
    app = procrastinate.App(connector=connector)

    @app.task(name="noop")
    async def noop(n: int) -> None:
        recorder.entered()

    @app.task(name="noop_sync")
    def noop_sync(n: int) -> None:
        recorder.entered()

    @app.task(name="warm_up")
    def warm_up(n: int) -> None:
        pass

    @app.task(name="tell")
    async def tell(n: int) -> None:
        moment, clock = time.monotonic(), time.time()
        say(began=moment, clock=clock, n=n)

    @app.task(name="in_line")
    async def in_line(n: int, line: str) -> None:
        recorder.notes.append([line, n, "begins"])
        await asyncio.sleep(0)
        recorder.notes.append([line, n, "ends"])
        recorder.entered()

    @app.task(name="sleep")
    async def sleep(n: int) -> None:
        await asyncio.sleep(lengths[n - 1])
        recorder.entered()

    @app.task(name="sleep_sync")
    def sleep_sync(n: int) -> None:
        time.sleep(lengths[n - 1])
        recorder.entered()

    failed: set[int] = set()

    @app.task(name="fail_once", retry=3)
    async def fail_once(n: int) -> None:
        recorder.entered()
        if n not in failed:
            failed.add(n)
            raise ValueError("this attempt fails")

    @app.task(name="hold")
    async def hold(n: int) -> None:
        await asyncio.sleep(n)

    return app


def connector_for(name: str, dsn: str, *, traced: bool, notes: list[Any]) -> Any:
    """Return a connector, or an AiopgConnector that notes each statement's name and time in ms."""
    if name == "psycopg":
        return procrastinate.PsycopgConnector(conninfo=dsn)
    if name == "asyncpg":
        return procrastinate.AsyncpgConnector(**limits.for_asyncpg(dsn))
    if not traced:
        return connectors.get(name)(dsn=dsn)  # type: ignore[call-arg]

    class Traced(procrastinate.AiopgConnector):
        def session_async(
            self, **options: Any
        ) -> AbstractAsyncContextManager[AsyncSessionExecutor]:
            return _traced(super().session_async(**options), notes)

    return Traced(dsn=dsn)


@asynccontextmanager
async def _traced(
    session: AbstractAsyncContextManager[AsyncSessionExecutor], notes: list[Any]
) -> AsyncIterator[AsyncSessionExecutor]:
    async with session as executor:
        yield _TracedExecutor(executor, notes)


class _TracedExecutor:
    def __init__(self, executor: AsyncSessionExecutor, notes: list[Any]) -> None:
        self._executor = executor
        self._notes = notes

    def sever(self) -> None:
        self._executor.sever()

    async def execute(self, query: Query, /) -> Rows:
        began = time.perf_counter()
        try:
            return await self._executor.execute(query)
        finally:
            self._notes.append([query.name, (time.perf_counter() - began) * 1e3, time.monotonic()])


def run(app: procrastinate.App, recorder: Recorder, options: dict[str, Any]) -> None:
    """Work until told to stop, and report all the time if that was asked for."""
    if options.pop("report", False):
        threading.Thread(target=_report, args=[recorder], daemon=True).start()
    app.run_worker(**options)


def _report(recorder: Recorder) -> None:
    while True:
        say(ran=recorder.ran, monotonic=time.monotonic())
        time.sleep(0.25)


def log_as_the_command_does() -> None:
    """Format and write each line from INFO on, as `procrastinate worker` does: to nowhere.

    Warnings are shown too.
    """
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=[logging.FileHandler(os.devnull), shown],
    )


def _peak_mib(maxrss: int) -> float:
    """Return the peak of this program's resident set.

    On Linux ``ru_maxrss`` goes back to before the program was executed: the process that spawned it
    may have been larger.
    """
    if sys.platform == "darwin":
        return maxrss / 2**20
    with open("/proc/self/status") as status:
        (peak,) = [line for line in status if line.startswith("VmHWM:")]
    return int(peak.split()[1]) / 2**10


def main() -> None:
    """Run the worker that the first argument describes."""
    options = json.loads(sys.argv[1])
    log_as_the_command_does()
    statements: list[Any] = []
    recorder = Recorder(options.pop("report_at", 0))
    lengths = seconds_of(*options.pop("lengths", ("0ms", 0)))
    keeps = options.pop("keeps", False)
    connector = connector_for(
        options.pop("connector", "aiopg"),
        options.pop("dsn"),
        traced=options.pop("traced", False),
        notes=statements,
    )
    app = app_on(connector, recorder, lengths)
    if keeps:
        add_keepers(app, recorder, lengths)
    run(app, recorder, options)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    say(
        ended=True,
        ran=recorder.ran,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=_peak_mib(usage.ru_maxrss),
        statements=statements,
        notes=recorder.notes,
    )


if __name__ == "__main__":
    main()
