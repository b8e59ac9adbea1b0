"""The application's own table. ``python -m bookings.database`` creates it."""

from __future__ import annotations

import asyncio

import asyncpg

# Where PGHOST, PGDATABASE and libpq's other variables lead.
DSN = "postgresql://"

TABLE = """
create table if not exists bookings (
    id bigint primary key generated always as identity,
    event text not null,
    email text not null,
    ticket_sent_at timestamptz,
    reminder_job bigint
)
"""


async def create_table() -> None:
    connection = await asyncpg.connect(DSN)
    try:
        await connection.execute(TABLE)
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(create_table())
