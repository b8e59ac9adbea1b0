from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from psycopg2.extensions import connection as RawConnection

from procrastinate.connector import Executor, Query
from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector

PID = "select pg_backend_pid()"
INSERT = "insert into notes (text) values (%(text)s::text)"


def run(executor: Executor, sql: str, **params: Any) -> list[Any]:
    return list(executor.execute(Query("test", sql, params)))


def once(connector: SQLAlchemyPsycopg2Connector, sql: str, **params: Any) -> list[Any]:
    with connector.session() as executor:
        return run(executor, sql, **params)


def texts(admin: RawConnection) -> list[str]:
    with admin.cursor() as cursor:
        cursor.execute("select text from notes order by id")
        return [row[0] for row in cursor.fetchall()]


def pids(connector: SQLAlchemyPsycopg2Connector, count: int) -> list[int]:
    """Return the servers' process ids of ``count`` connections used at the same time."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(connector.session()) for _ in range(count)]
        return [run(session, PID)[0][0] for session in sessions]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def terminate(admin: RawConnection, pids: list[int]) -> None:
    """End these connections from the server's side, and wait until they are gone."""
    with admin.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pid, 30000) from unnest(%s) pid", [pids])
