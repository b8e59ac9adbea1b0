from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from psycopg2.extensions import connection as Connection
from psycopg2.pool import ThreadedConnectionPool

from procrastinate.errors import AppNotOpen
from procrastinate_psycopg2 import Psycopg2Connector

from .helpers import PID, once, pids, run


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


def test_a_forked_process_gets_connections_of_its_own(connector: Psycopg2Connector) -> None:
    before = pids(connector, 3)

    def child() -> list[int]:
        with connector.session(transaction=True) as session:
            mine = run(session, PID)[0][0]
        connector.close()
        return [mine]

    theirs = in_child(child)
    assert set(theirs).isdisjoint(before)
    assert sorted(pids(connector, 3)) == sorted(before)


def test_closing_in_the_child_leaves_the_parents_connections_alone(
    connector: Psycopg2Connector,
) -> None:
    before = pids(connector, 2)
    assert in_child(lambda: connector.close()) is None
    assert sorted(pids(connector, 2)) == sorted(before)


def test_a_fork_while_a_thread_holds_the_lock_does_not_block_the_child(
    connector: Psycopg2Connector,
) -> None:
    with connector._lock, connector._source._freed:  # type: ignore[union-attr]

        def child() -> list[Any]:
            connector.open()
            rows = once(connector, "select 1")
            connector.close()
            return rows

        assert in_child(child) == [[1]]


def test_a_fork_inside_a_session_leaves_the_session_to_the_parent(
    connector: Psycopg2Connector,
) -> None:
    with connector.session(transaction=True) as session:
        pid = run(session, PID)
        assert in_child(lambda: session.__exit__(None, None, None)) is None  # type: ignore[attr-defined]
        assert run(session, PID) == pid


def test_a_pool_handed_in_stays_with_its_process(procrastinate_dsn: str, admin: Connection) -> None:
    pool = ThreadedConnectionPool(1, 2, procrastinate_dsn)
    connector = Psycopg2Connector()
    connector.open(pool)

    def child() -> list[Any]:
        try:
            once(connector, "select 1")
        except AppNotOpen:
            connector.close()
        connector.open(ThreadedConnectionPool(1, 2, procrastinate_dsn))
        return once(connector, "select 1")

    assert in_child(child) == [[1]]
    assert once(connector, "select 2") == [(2,)]
    connector.close()
    pool.closeall()


SCRIPT = """
import os, sys
from procrastinate.connector import Query
from procrastinate_psycopg2 import Psycopg2Connector

connector = Psycopg2Connector(dsn=sys.argv[1])
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
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
