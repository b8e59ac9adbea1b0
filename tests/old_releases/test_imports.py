"""Databases that were made by old releases' own code are imported, row by row."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import SchemaError
from procrastinate.storage.importing import ROOM

from .conftest import OldRelease

MANY = 30_000
LONG = "its lock or its queueing lock is longer than 512 characters"


def app_of(old: OldRelease) -> procrastinate.App:
    connector = procrastinate.PsycopgConnector(conninfo=old.dsn, schema="queue")
    return procrastinate.App(connector=connector)


COMMON = "id, queue_name, task_name, lock, queueing_lock, args, scheduled_at, attempts"


def jobs(old: OldRelease, where: str, condition: str = "true") -> dict[int, tuple[Any, ...]]:
    sql = f"select {COMMON}, status::text from {where}.procrastinate_jobs where {condition}"
    return {row[0]: row[1:] for row in old.query(sql)}


def statuses(found: dict[int, tuple[Any, ...]]) -> dict[int, str]:
    return {job_id: row[-1] for job_id, row in found.items()}


def priorities(old: OldRelease) -> list[int]:
    return [row[0] for row in old.query("select priority from queue.procrastinate_jobs")]


def test_every_row_goes_where_it_should(old: OldRelease) -> None:
    before = jobs(old, "public")
    last = max(before)
    kept = {job_id for job_id, row in before.items() if len(row[2] or "") > 512}
    running = {job_id for job_id, row in before.items() if row[-1] in ("doing", "aborting")}
    waiting = {job_id for job_id, row in before.items() if row[-1] == "todo"} - kept
    ended = before.keys() - kept - running - waiting
    assert (len(kept), len(running), len(ended)) == (1, 1, 2)

    with app_of(old).open() as app:
        app.schema_manager.apply_schema()
        with pytest.raises(SchemaError, match="1 job in the schema public is running"):
            app.schema_manager.import_jobs()
        said = app.schema_manager.import_jobs(history=True, leave_running=True, dry_run=True)
        assert jobs(old, "public") == before
        done = app.schema_manager.import_jobs(history=True, leave_running=True)
    assert done == said
    assert (done.waiting, done.scheduled, done.ended) == (len(waiting), 1, len(ended))
    assert (done.running, done.schedules) == (1, 1)
    marks = (
        "select task_name, extract(epoch from done_until)::bigint from queue.procrastinate_periodic"
    )
    assert old.query(marks) == [("tick", 1795000060)]
    assert [(left.reason, left.ids) for left in done.left] == [(LONG, tuple(kept))]

    taken = "cancelled" if old.release.startswith(("2", "3")) else "failed"
    after = jobs(old, "public")
    assert statuses(after) == {
        **statuses(before),
        **dict.fromkeys(waiting, taken),
    }
    assert {job_id: row[:-1] for job_id, row in after.items()} == {
        job_id: row[:-1] for job_id, row in before.items()
    }
    assert jobs(old, "queue") == {job_id: before[job_id] for job_id in waiting | ended}
    assert (7 in priorities(old)) == old.release.startswith(("2", "3"))

    # A worker that was forgotten runs what stayed, and what its own programs defer.
    old.act("defer")
    new = last + 1
    assert {*old.act("work")} - running == kept | {new}
    old.act("defer")
    with app_of(old).open() as app:
        done = app.schema_manager.import_jobs(leave_running=True)
        assert (done.ready, done.left) == (1, ())
        assert app.configure_task("send").defer() == last + ROOM + 1


def test_what_was_imported_runs(old: OldRelease) -> None:
    app = app_of(old)
    ran: list[int] = []

    @app.task(name="send")
    def send(n: int, nested: Any = None) -> None:
        ran.append(n)

    with app.open():
        app.schema_manager.apply_schema()
        app.schema_manager.import_jobs(leave_running=True)
        app.run_worker(wait=False, queues=["mail"], install_signal_handlers=False)
    first = [10] if old.release.startswith(("2", "3")) else []
    assert sorted(ran) == [1, 2, 3, 4, 6, 7, *first]
    assert ran[: len(first)] == first  # its priority is higher
    assert ran.index(2) < ran.index(3)  # they have one lock


@pytest.mark.parametrize(
    ("source", "said", "path"),
    [
        ("old one", "queue", '"$user", public'),
        ("old one", None, "queue"),
        ("public", None, "queue"),
        ("public", "queue", ""),
    ],
)
def test_the_old_tables_may_be_anywhere(
    old: OldRelease, source: str, said: str | None, path: str
) -> None:
    """Their triggers find their names by the search_path, as the old programs had it."""
    if source != "public":
        old.query(f'alter schema public rename to "{source}"')
        old.query("create schema public")
    old.query("create schema queue")
    before = statuses(jobs(old, f'"{source}"'))
    options = "-c search_path=" + path.replace(" ", "\\ ")
    connector = procrastinate.PsycopgConnector(conninfo=old.dsn, options=options, schema=said)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
        both = {"history": True, "leave_running": True}
        dry = app.schema_manager.import_jobs(source, dry_run=True, **both)
        assert statuses(jobs(old, f'"{source}"')) == before
        done = app.schema_manager.import_jobs(source, **both)
    assert done == dry
    assert len(jobs(old, "queue")) == done.waiting + done.ended > 2
    after = statuses(jobs(old, f'"{source}"'))
    assert sum(after[each] != before[each] for each in before) == done.waiting


def test_it_is_killed_at_ten_points_and_repeated(old: OldRelease, tmp_path: Path) -> None:
    old.query(
        "insert into procrastinate_jobs (queue_name, task_name, args)"
        f" select 'many', 'send', '{{}}' from generate_series(1, {MANY})"
    )
    waiting = statuses(jobs(old, "public", "status = 'todo' and length(lock) is distinct from 513"))
    (tmp_path / "new.py").write_text(
        "import os, procrastinate\n"
        "connector = procrastinate.PsycopgConnector(conninfo=os.environ['DSN'], schema='queue')\n"
        "app = procrastinate.App(connector=connector)\n"
    )
    command = [sys.executable, "-m", "procrastinate", "--app=new.app"]
    where: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "DSN": old.dsn}}
    subprocess.run([*command, "schema", "--apply"], check=True, **where)
    for point in range(10):
        process = subprocess.Popen([*command, "import", "--leave-running"], **where)
        time.sleep(0.2 + 0.2 * point)  # it takes some seconds
        process.kill()
        process.wait()
        await_sessions(old)
        assert len(jobs(old, "queue")) in (0, len(waiting))
    done_process = subprocess.run([*command, "import", "--leave-running"], check=False, **where)
    assert done_process.returncode == 1  # one stays, because of its lock
    assert jobs(old, "queue").keys() == waiting.keys()
    assert not jobs(old, "public", "status = 'todo' and length(lock) is distinct from 513")


def await_sessions(old: OldRelease) -> None:
    """Wait until the server has ended the sessions of a killed process."""
    deadline = time.monotonic() + 60
    others = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    while old.query(others) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
