"""The demo from beginning to end: deferring, running, watching, and the reckoning."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

import procrastinate
from procrastinate.connector import AsyncConnector
from procrastinate.errors import ConnectorException
from procrastinate_embedded.demo import crash, files, report, visits
from procrastinate_embedded.demo.counts import Counts, counts
from procrastinate_embedded.demo.place import Place, check_packages, place
from procrastinate_embedded.demo.progress import Display, display
from procrastinate_embedded.demo.summary import Summary, failures, lost_files, summary
from procrastinate_embedded.demo.tables import Tables, tables_of
from procrastinate_embedded.demo.tasks import READ_FILE, make_app
from procrastinate_embedded.demo.worker import WorkerProcess, running

logger = logging.getLogger("procrastinate_embedded.demo")

BATCH = 1_000  # jobs deferred in one statement
LOOK_EVERY = 0.1  # seconds

_WHERE = """
select current_setting('server_version'), current_database()::text,
    coalesce(host(inet_server_addr()), 'local socket'), inet_server_port()
"""


@dataclass(frozen=True)
class Options:
    """What the command line says; ``dsn`` None means an embedded server."""

    folder: bytes
    without: tuple[bytes, ...] = ()
    dsn: str | None = None
    concurrency: int = 10
    limit: int | None = None
    crash: bool = False
    keep: bool = False
    dashboard: bool = False


def tell(options: Options, console: Console) -> bool:
    """Run the demo. Returns whether every file was read, or failed with an error that says why."""
    check_packages(dashboard=options.dashboard)
    paths = _find(options, console)
    if not paths:
        _say(console, f"There is no file below {files.shown(options.folder)}: nothing to do.")
        return True
    _say(
        console,
        f"procrastinate {procrastinate.__version__} on Python {platform.python_version()}:"
        f" one job for each of {len(paths):,} files, to read it",
    )
    _say(console, f"  folder  {files.shown(options.folder)}")
    with place(options.dsn, keep=options.keep) as where, _opened(where, options) as demo:
        _say(console, f"  server  {_server(demo.tables, where)}")
        _say(console, f"  schema  {where.schema}")
        with _dashboard(demo, options, console):
            good = demo.run(paths, console)
            if options.dashboard:
                demo.go_on(console)
        if options.keep:
            _say(console, f"Schema {where.schema} is kept: {where.afterwards}")
        return good


def _find(options: Options, console: Console) -> list[bytes]:
    closed: list[OSError] = []
    found = files.find(options.folder, without=options.without, on_error=closed.append)
    paths = list(itertools.islice(found, options.limit))
    if closed:
        first = f"{files.shown(os.fsencode(closed[0].filename))}: {closed[0].strerror}"
        _say(console, f"Left out, because they cannot be read: {len(closed):,} folders ({first})")
    return paths


@contextmanager
def _opened(where: Place, options: Options) -> Iterator[Demo]:
    """Yield the demo in its own schema, which is dropped at the end."""
    app = make_app(where.dsn, where.schema, application_name=where.schema)
    assert isinstance(app.connector, AsyncConnector)
    with app.open(), tables_of(app.connector, where.schema) as tables:
        try:
            app.schema_manager.apply_schema()
            tables.create()
            yield Demo(app, tables, where, options)
        finally:
            if not options.keep:
                _drop(tables)


@contextmanager
def _dashboard(demo: Demo, options: Options, console: Console) -> Iterator[None]:
    """Serve the dashboard for the length of the block, if it was asked for."""
    if not options.dashboard:
        yield
        return
    # By name: the package is needed for this alone.
    served = importlib.import_module("procrastinate_dashboard.serving").served
    with served(demo.app) as address:
        _say(console, f"  pages   {address}")
        yield


def _drop(tables: Tables) -> None:
    try:
        tables.drop_schema()
    except ConnectorException as exc:
        # Not raised: it would hide what went wrong before.
        logger.warning("schema %s is still there: %s", tables.schema, exc)


def _server(tables: Tables, where: Place) -> str:
    version, database, host, port = tables.one(_WHERE)
    address = host if port is None else f"{host}:{port}"
    return f"PostgreSQL {version}, {where.server}; database {database}, {address}"


class Demo:
    """The application's part: its app, its tables, its workers."""

    def __init__(
        self, app: procrastinate.App, tables: Tables, where: Place, options: Options
    ) -> None:
        self.app = app
        self.tables = tables
        self._where = where
        self._options = options

    def run(self, paths: Sequence[bytes], console: Console) -> bool:
        """Defer and run a job for each file, and print what came of it."""
        with display(console, len(paths)) as shown:
            self._defer(paths, shown)
            if self._options.crash:
                self._run_jobs_with_crash(len(paths), shown)
            else:
                self._run_jobs(1, len(paths), shown)
        return self._reckon(len(paths), console)

    def go_on(self, console: Console) -> None:
        """Run more jobs, for those who look at the dashboard, until Ctrl-C."""
        _say(console, "The dashboard stays, and jobs go on, until Ctrl-C.")
        with running(self._worker(3)) as worker, suppress(KeyboardInterrupt):
            for number in itertools.count():
                worker.check()
                visits.defer_some(self.app, number)
                time.sleep(visits.EVERY)

    def _defer(self, paths: Sequence[bytes], shown: Display) -> None:
        read_file = self.app.tasks[READ_FILE]
        for start in range(0, len(paths), BATCH):
            batch = [files.encoded(path) for path in paths[start : start + BATCH]]
            job_ids = read_file.batch_defer(*({"path": path} for path in batch))
            self.tables.add_files(batch, job_ids)
            shown.deferred(start + len(batch))

    def _run_jobs(self, number: int, total: int, shown: Display) -> None:
        with running(self._worker(number)) as worker:
            self._watch(worker, total, shown)

    def _run_jobs_with_crash(self, total: int, shown: Display) -> None:
        with running(self._worker(1, hold_after=crash.hold_at(total))) as worker:
            self._watch(worker, crash.kill_at(total), shown)
            left = crash.kill(worker, self.tables)
        shown.note(
            f"Killed the worker (process {worker.pid}) with SIGKILL: {left.ended:,} jobs had ended,"
            f" {left.held:,} were in its hands. Starting another."
        )
        self._run_jobs(2, total, shown)

    def _worker(self, number: int, hold_after: int | None = None) -> WorkerProcess:
        return WorkerProcess(
            dsn=self._where.dsn,
            schema=self._where.schema,
            number=number,
            concurrency=self._options.concurrency,
            hold_after=hold_after,
        )

    def _watch(self, worker: WorkerProcess, until: int, shown: Display) -> None:
        """Show the progress until this number of jobs has ended, and at least one has begun."""
        while True:
            began = time.monotonic()
            now = counts(self.app)
            shown.done(now)
            if now.ended >= until and _has_begun(now):
                return
            worker.check()
            # Of millions of jobs, counting takes a while: the worker's share of the time is larger.
            time.sleep(max(LOOK_EVERY, 4 * (time.monotonic() - began)))

    def _reckon(self, total: int, console: Console) -> bool:
        found = summary(self.tables)
        report.show_summary(console, found)
        folder = self._options.folder
        if found.failed:
            some = failures(self.tables, report.SHOWN)
            report.show_failures(console, folder, some, found.failed)
        if found.lost:
            report.show_lost(console, folder, lost_files(self.tables, report.SHOWN), found.lost)
        proof = crash.proof(self.tables) if self._options.crash else None
        if proof is not None:
            report.show_proof(console, proof)
        report.show_verdict(console, found)
        return _is_good(found, total) and (proof is None or proof.holds)


def _has_begun(now: Counts) -> bool:
    return now.ended > 0 or now.running > 0


def _is_good(found: Summary, total: int) -> bool:
    return found.files == total and found.lost == 0


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
