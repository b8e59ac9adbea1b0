"""The server that everything is measured on, and fresh databases there.

The embedded server runs with PostgreSQL's own defaults: ``fsync`` and ``synchronous_commit`` are
on, as in production (the tests' server has them off). Each round of a workload gets new databases,
so that no round pays for the dead rows of the one before.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions

import procrastinate
import procrastinate_embedded

SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "wal_level",
    "autovacuum",
)


class Server:
    """A PostgreSQL server whose user may create databases."""

    def __init__(self, dsn: str, *, embedded: bool) -> None:
        self.dsn = dsn
        self.embedded = embedded

    def settings(self) -> dict[str, str]:
        """Return the settings that speed depends on most."""
        with connected(self.dsn) as cursor:
            return {name: str(_one(cursor, f"show {name}")) for name in SETTINGS}

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The DSN of a new database, which is dropped at the end."""
        name = f"procrastinate_bench_{secrets.token_hex(6)}"
        with connected(self.dsn) as cursor:
            cursor.execute(f"create database {name}")
        try:
            yield extensions.make_dsn(self.dsn, dbname=name)
        finally:
            with connected(self.dsn) as cursor:
                cursor.execute(f"drop database if exists {name} with (force)")

    @contextmanager
    def partitioned_database(self) -> Iterator[PartitionedDatabase]:
        """A new database with procrastinate's tables, with its jobs in 64 partitions."""
        from procrastinate.storage.partitioning import into_partitions  # older versions lack it

        with self.database() as database:
            connector = procrastinate.Psycopg2Connector(dsn=database.dsn)
            with procrastinate.App(connector=connector).open() as app:
                app._gateway.run(into_partitions(), transaction=True)
            yield PartitionedDatabase(database.dsn, database.cursor)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A new database with procrastinate's tables."""
        with self.empty_database() as dsn:
            with procrastinate.App(
                connector=procrastinate.Psycopg2Connector(dsn=dsn)
            ).open() as app:
                app.schema_manager.apply_schema()
            with connected(dsn) as cursor:
                yield Database(dsn, cursor)


class Database:
    """A database with procrastinate's tables, and a connection to look at them."""

    def __init__(self, dsn: str, cursor: Any) -> None:
        self.dsn = dsn
        self.cursor = cursor
        #: How many statements, and so commits, went through the methods below.
        self.sent = 0

    def fill(
        self,
        count: int,
        *,
        task: str = "noop",
        queue: str = "default",
        columns: str = "",
        values: str = "",
    ) -> range:
        """Insert waiting jobs by plain SQL, and notify no worker. Return their ids.

        ``columns`` and ``values`` are more of SQL's, each beginning with a comma; ``n`` counts
        there.
        """
        row = self.row(
            f"with inserted as ("
            f"  insert into procrastinate_jobs (task_name, queue_name, args{columns})"
            f"  select %s, %s, jsonb_build_object('n', n){values} from generate_series(1, %s) as n"
            f"  returning id"
            f") select min(id), max(id) from inserted",
            task,
            queue,
            count,
        )
        return range(row[0], row[1] + 1)

    def analyze(self) -> None:
        self.run("analyze procrastinate_jobs")

    def wake(self, queue: str = "default") -> None:
        """Tell the workers of a queue that there are jobs."""
        self.run("select pg_notify('procrastinate_jobs', %s)", queue)

    def ask(self, statement: str, *params: object) -> Any:
        """Return the one value that a statement gives."""
        return self.row(statement, *params)[0]

    def row(self, statement: str, *params: object) -> tuple[Any, ...]:
        """Return the one row that a statement gives."""
        (row,) = self.rows(statement, *params)
        return row

    def rows(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        self.run(statement, *params)
        return list(self.cursor.fetchall())

    def run(self, statement: str, *params: object) -> None:
        self.sent += 1
        self.cursor.execute(statement, params or None)

    def run_named(self, statement: str, **params: object) -> None:
        self.sent += 1
        self.cursor.execute(statement, params)


class PartitionedDatabase(Database):
    """The same with 64 partitions."""

    def fill(
        self,
        count: int,
        *,
        task: str = "noop",
        queue: str = "default",
        columns: str = "",
        values: str = "",
    ) -> range:
        """Insert waiting jobs, 1,000 in a partition as `batch_defer` does; see `Database.fill`."""
        from procrastinate.model.partitions import VALUES

        row = self.row(
            f"with batch as materialized ("
            f"  select number, floor(random() * {len(VALUES)})::integer as place"
            f"  from generate_series(0, %s / 1000) as number"
            f"), inserted as ("
            f"  insert into procrastinate_jobs"
            f"    (id, partition, task_name, queue_name, args{columns})"
            f"  select nextval('procrastinate_jobs_number_seq') * {len(VALUES)} + batch.place,"
            f"    (array{list(VALUES)})[batch.place + 1], %s, %s,"
            f"    jsonb_build_object('n', n){values}"
            f"  from generate_series(1, %s) as n join batch on batch.number = n / 1000"
            f"  returning id"
            f") select min(id), max(id) from inserted",
            count,
            task,
            queue,
            count,
        )
        return range(row[0], row[1] + 1)

    def wake(self, queue: str = "default") -> None:
        """Tell the workers of a queue in which partitions there are jobs."""
        self.run(
            "select pg_notify('procrastinate_jobs', %s || '@' || ready.partition) from ("
            "  select distinct partition from procrastinate_jobs where status = 'todo'"
            ") as ready",
            queue,
        )


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """A cursor in autocommit mode on a connection of its own."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def server(dsn: str | None) -> Iterator[Server]:
    """The server that a DSN names, or an embedded one with default durability."""
    if dsn is not None:
        with connected(dsn):  # fails early
            pass
        yield Server(dsn, embedded=False)
        return
    with procrastinate_embedded.server(durable=True) as running:
        yield Server(running.dsn, embedded=True)


def _one(cursor: Any, statement: str, *params: object) -> Any:
    cursor.execute(statement, params or None)
    return cursor.fetchone()[0]
