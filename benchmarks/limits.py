"""The limit: what one psycopg2 connection does with plain SQL on a minimal table.

Rules

1. Nothing of procrastinate is imported here, neither code nor tables.
2. The table has what a queue cannot do without: an id, a status, the arguments, and one partial
   index to find what waits. No priorities, queues, locks, fences, schedules or notifications.
3. A job lives as one of ours does: it is inserted, claimed (``SKIP LOCKED``, so that two could
   work side by side), given to the client with its arguments, finished, and kept.
4. Every change is committed durably, in a transaction of its own; a batch is one transaction.
5. The client does as little as it can: one loop, no threads, no event loop, no JSON but what
   psycopg2 decodes by itself. Nothing is timed but that loop, on an open connection.
6. The table is filled in the same way as ours, and is as new as ours: see ``databases.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

BATCH = 100

_TABLE = """
    create table jobs (
        id bigserial primary key,
        status text not null default 'todo',
        args jsonb not null,
        started_at timestamptz,
        finished_at timestamptz
    ) with (fillfactor = 70);
    create index on jobs (id) where status = 'todo';
"""
_FILL = "insert into jobs (args) select jsonb_build_object('n', n) from generate_series(1, %s) as n"
_INSERT = "insert into jobs (args) values (%s) returning id"
_INSERT_MANY = "insert into jobs (args) select unnest(%s::jsonb[]) returning id"
_CLAIM = """
    update jobs set status = 'doing', started_at = now()
    where id = any(array(
        select id from jobs where status = 'todo' order by id limit %s for update skip locked
    ))
    returning id, args
"""
_FINISH = "update jobs set status = 'done', finished_at = now() where id = any(%s)"
_FINISH_AND_CLAIM = f"with finished as ({_FINISH}) {_CLAIM}"


@contextmanager
def table(dsn: str) -> Iterator[Any]:
    """A connection in autocommit mode to a database that gets the minimal table."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(_TABLE)
            yield cursor
    finally:
        connection.close()


def fill(cursor: Any, count: int) -> None:
    """Put waiting jobs into the table. Not timed."""
    cursor.execute(_FILL, [count])
    cursor.execute("analyze jobs")


# --- drain ----------------------------------------------------------------------------------------


def drain_by_one_statement(cursor: Any, batch: int = BATCH) -> float:
    """Return jobs/s: each statement finishes the last batch and claims the next one."""
    done: list[int] = []
    count, began = 0, time.perf_counter()
    while True:
        cursor.execute(_FINISH_AND_CLAIM, [done, batch])
        done = [row[0] for row in cursor.fetchall()]
        count += len(done)
        if not done:
            return count / (time.perf_counter() - began)


def drain_by_two_statements(cursor: Any, batch: int = BATCH) -> float:
    """Return jobs/s: one statement claims a batch, and another one finishes it."""
    count, began = 0, time.perf_counter()
    while True:
        cursor.execute(_CLAIM, [batch])
        done = [row[0] for row in cursor.fetchall()]
        if not done:
            return count / (time.perf_counter() - began)
        cursor.execute(_FINISH, [done])
        count += len(done)


# --- insert ---------------------------------------------------------------------------------------


def insert_one_by_one(cursor: Any, count: int) -> float:
    """Return inserts/s, each of which is committed by itself."""
    began = time.perf_counter()
    for number in range(count):
        cursor.execute(_INSERT, [f'{{"n": {number}}}'])
        cursor.fetchone()
    return count / (time.perf_counter() - began)


def insert_in_bulk(cursor: Any, count: int, batch: int) -> float:
    """Return inserts/s by unnest, a batch in each statement."""
    began = time.perf_counter()
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        cursor.execute(_INSERT_MANY, [[f'{{"n": {number}}}' for number in numbers]])
        cursor.fetchall()
    return count / (time.perf_counter() - began)


# --- latency --------------------------------------------------------------------------------------


def insert_and_claim(cursor: Any) -> float:
    """Return the seconds that one insert and one claim take, each with its commit."""
    return _seconds(lambda: cursor.execute(_INSERT, ['{"n": 0}'])) + _seconds(
        lambda: cursor.execute(_CLAIM, [1])
    )


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def for_asyncpg(dsn: str) -> dict[str, Any]:
    """Return where a DSN of libpq's leads, by the names that asyncpg has for it."""
    parts = parse_dsn(dsn)
    if "port" in parts:
        parts["port"] = int(parts["port"])
    return {"database" if name == "dbname" else name: value for name, value in parts.items()}
