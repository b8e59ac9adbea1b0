"""The application's own tables: the files that were deferred, and what was read from them.

They are beside procrastinate's, in the demo's schema. All access goes through a connector, so
that the demo needs no driver but the connector's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from procrastinate.connector import AsyncConnector, Query, Row, Rows, SyncConnector, Value
from procrastinate_embedded.demo.files import Content

_CREATE = """
create table {schema}.files (
    path text primary key,
    job_id bigint not null unique
);
create table {schema}.results (
    path text primary key,
    size bigint not null,
    lines bigint not null,
    digest text not null,
    times_stored integer not null default 1
)
"""

_DROP = "drop schema if exists {schema} cascade"

_ADD_FILES = """
insert into {schema}.files (path, job_id)
select path, job_id from unnest(%(paths)s::text[], %(job_ids)s::bigint[]) as new(path, job_id)
"""

# A job may run twice, where its worker died after this and before the job's end was written: what
# it does has to come to the same.
_STORE = """
insert into {schema}.results as result (path, size, lines, digest)
values (%(path)s::text, %(size)s::bigint, %(lines)s::bigint, %(digest)s::text)
on conflict (path) do update
set size = excluded.size, lines = excluded.lines, digest = excluded.digest,
    times_stored = result.times_stored + 1
"""


class Tables:
    """Runs the application's own statements; ``{schema}`` in them stands for the demo's schema."""

    def __init__(self, connector: SyncConnector, schema: str) -> None:
        if re.fullmatch(r"[a-z_0-9]+", schema) is None:
            raise ValueError(f"{schema!r} would have to be quoted")
        self._connector = connector
        self.schema = schema

    def query(self, sql: str, **params: Value) -> Rows:
        """Run one statement of any kind and return its rows."""
        text = sql.replace("{schema}", self.schema)
        with self._connector.session() as executor:
            return executor.execute(Query("demo", text, params))

    def one(self, sql: str, **params: Value) -> Row:
        """Run a statement that returns one row, and return it."""
        (row,) = self.query(sql, **params)
        return row

    def create(self) -> None:
        """Create the tables; the schema is there."""
        self.query(_CREATE)

    def drop_schema(self) -> None:
        """Drop the whole schema, procrastinate's tables included."""
        self.query(_DROP)

    def add_files(self, paths: Sequence[str], job_ids: Sequence[int]) -> None:
        """Note which job reads which file."""
        self.query(_ADD_FILES, paths=paths, job_ids=job_ids)

    def store(self, path: str, content: Content) -> None:
        """Store what was read from a file. A second time replaces the first."""
        self.query(_STORE, path=path, size=content.size, lines=content.lines, digest=content.digest)


@contextmanager
def tables_of(connector: AsyncConnector, schema: str) -> Iterator[Tables]:
    """Yield the tables, over a pool of their own to the connector's database."""
    synchronous = connector.sync_connector()
    synchronous.open()
    try:
        yield Tables(synchronous, schema)
    finally:
        synchronous.close()
