"""Connections of our own: several hosts, forks, loops, and psycopg's builds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import procrastinate
from procrastinate.connector import Query
from procrastinate.errors import ConnectionFailed
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector

from .conftest import Observer, rows, sync_rows

PID = "select pg_backend_pid()"


def beside(dsn: str, other: str) -> dict[str, Any]:
    """Return parameters with another host in front of the server's."""
    given = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    host, port = given.pop("host", ""), given.pop("port", "5432")
    return {**given, "host": f"{other},{host}", "port": f"1,{port}"}


async def test_a_host_that_refuses_is_passed_over(procrastinate_dsn: str) -> None:
    arguments = beside(procrastinate_dsn, "127.0.0.1")
    connector = PsycopgConnector(**arguments, target_session_attrs="read-write")
    await connector.open_async()
    assert await rows(connector, "select 1") == [(1,)]
    await connector.close_async()
    half = connector.sync_connector()
    half.open()
    assert sync_rows(half, "select 1") == [(1,)]
    half.close()


async def test_a_server_of_the_wrong_kind_is_a_failed_connection(procrastinate_dsn: str) -> None:
    connector = PsycopgConnector(conninfo=procrastinate_dsn, target_session_attrs="standby")
    with pytest.raises(ConnectionFailed):
        await connector.open_async()


async def test_no_server_is_a_failed_connection_at_once_and_shows_no_password() -> None:
    arguments: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "password": "canary"}
    with pytest.raises(ConnectionFailed, match=r"host=127\.0\.0\.1 port=1\)") as caught:
        await PsycopgConnector(**arguments).open_async()
    assert "canary" not in str(caught.value)
    with pytest.raises(ConnectionFailed, match=r"host=127\.0\.0\.1 port=1\)"):
        SyncPsycopgConnector(**arguments).open()


# Forks


def in_child(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def test_a_forked_process_gets_connections_of_its_own(
    sync_connector: SyncPsycopgConnector,
) -> None:
    before = sync_rows(sync_connector, PID)

    def child() -> Any:
        mine = sync_rows(sync_connector, PID)
        sync_connector.close()
        return mine

    assert in_child(child) != [list(row) for row in before]
    assert sync_rows(sync_connector, PID) == before


def test_a_fork_inside_a_session_leaves_the_session_to_the_parent(
    sync_connector: SyncPsycopgConnector,
) -> None:
    query = Query("pid", PID)
    with sync_connector.session(transaction=True) as session:
        pid = session.execute(query)
        assert in_child(lambda: session.__exit__(None, None, None)) is None  # type: ignore[attr-defined]
        assert session.execute(query) == pid


SCRIPT = """
import os, sys
from procrastinate.connector import Query
from procrastinate_psycopg import SyncPsycopgConnector

connector = SyncPsycopgConnector(conninfo=sys.argv[1])
connector.open()

def pid():
    with connector.session() as session:
        return session.execute(Query("pid", "select pg_backend_pid()"))

before = pid()
if os.fork() == 0:
    assert pid() != before
    sys.exit(0)  # the interpreter finalises everything
assert os.wait()[1] == 0
assert pid() == before
"""


def test_a_child_that_ends_normally_leaves_the_parents_connections_alone(
    procrastinate_dsn: str,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, procrastinate_dsn],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# Loops and builds

WORKER = """
import asyncio, sys
import psycopg
import procrastinate

loop, dsn = sys.argv[1:]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
ran = []

@app.task
async def coroutine(n, text, lock=None):
    ran.append((n, text))
    if n == 2:
        app_stop.set()

@app.task
def in_a_thread(n):
    coroutine.defer(n=2, text="last")

async def main():
    global app_stop
    app_stop = asyncio.Event()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await coroutine.defer_async(n=1, text="it's \\\\ 100% é🦆")
        await in_a_thread.configure(lock="a").defer_async(n=3)
        stopped = asyncio.create_task(app_stop.wait())
        await asyncio.wait([worker, stopped], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        worker.cancel()
        await asyncio.wait([worker], timeout=60)
        print(sorted(ran))

if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
print(psycopg.pq.__impl__)
"""


#: Those that are installed: the C build has to be compiled (CONTRIBUTING.md).
BUILDS = [
    *(("asyncio", "binary"), ("asyncio", "python"), ("uvloop", "binary")),
    *((loop, "c") for loop in ("asyncio", "uvloop") if find_spec("psycopg_c") is not None),
]


@pytest.mark.parametrize("loop, build", BUILDS)
def test_a_worker_runs_on_either_build_and_on_uvloop(
    procrastinate_dsn: str, loop: str, build: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, loop, procrastinate_dsn],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
        env={**os.environ, "PSYCOPG_IMPL": build, "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [str([(1, "it's \\ 100% é🦆"), (2, "last")]), build],
    ), done.stderr


def test_a_psycopg_without_libpq_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import procrastinate_psycopg"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PSYCOPG_IMPL": "nothing"},
    )
    assert "pip install 'procrastinate-psycopg[binary]'" in done.stderr.splitlines()[-1]


def test_procrastinates_names_lead_here() -> None:
    assert procrastinate.PsycopgConnector is PsycopgConnector
    assert procrastinate.SyncPsycopgConnector is SyncPsycopgConnector


# Cancellation

SLOW = Query("slow", "insert into things select 'a' from (select pg_sleep(1.5)) as s")
ACTIVE = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and state = 'active' and pid <> pg_backend_pid() and query like %s"
)


async def under_way(observer: Observer) -> None:
    deadline = time.monotonic() + 60
    while not observer.value(ACTIVE, "%pg_sleep%"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_cancelled_task_ends_after_its_statement(
    connector: PsycopgConnector, observer: Observer
) -> None:
    async def insert() -> None:
        async with connector.session_async() as session:
            await session.execute(SLOW)

    before = await rows(connector, PID)
    task = asyncio.create_task(insert())
    await under_way(observer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.sql("select name from things") == [("a",)]
    assert await rows(connector, PID) == before


async def test_a_large_statement_and_a_large_answer_arrive_whole(
    connector: PsycopgConnector,
) -> None:
    text = "é'\\" * 2_000_000
    assert await rows(connector, "select %(x)s::text", x=text) == [(text,)]


def test_a_large_statement_and_a_large_answer_arrive_whole_in_a_thread(
    sync_connector: SyncPsycopgConnector,
) -> None:
    text = "é'\\" * 2_000_000
    assert sync_rows(sync_connector, "select %(x)s::text", x=text) == [(text,)]


def test_copy_is_refused_and_leaves_no_connection_waiting(
    sync_connector: SyncPsycopgConnector, observer: Observer
) -> None:
    with pytest.raises(procrastinate.ConnectorException, match="COPY is not supported"):
        sync_rows(sync_connector, "copy things from stdin")
    assert sync_rows(sync_connector, "select 1") == [(1,)]


def test_psycopg_is_the_driver() -> None:
    assert psycopg.__version__.startswith("3.")
