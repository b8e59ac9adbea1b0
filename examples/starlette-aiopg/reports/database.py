"""The application's own table. ``python -m reports.database`` creates it."""

from __future__ import annotations

import asyncio

import aiopg

# Where PGHOST, PGDATABASE and libpq's other variables lead.
DSN = ""

TABLE = """
create table if not exists reports (
    id bigint primary key generated always as identity,
    title text not null,
    pages int not null,
    written int not null default 0,
    job_id bigint
)
"""


async def create_table() -> None:
    async with aiopg.connect(DSN) as connection, connection.cursor() as cursor:
        await cursor.execute(TABLE)


if __name__ == "__main__":
    asyncio.run(create_table())
