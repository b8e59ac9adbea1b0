"""Fixtures: an app on an asyncpg connector, with its tables in an empty database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

import procrastinate
from procrastinate_asyncpg import AsyncpgConnector


@pytest_asyncio.fixture
async def connector(procrastinate_dsn: str) -> AsyncIterator[AsyncpgConnector]:
    connector = AsyncpgConnector(dsn=procrastinate_dsn, max_size=2)
    await connector.open_async()
    yield connector
    await connector.close_async()


@pytest_asyncio.fixture
async def app(procrastinate_dsn: str) -> AsyncIterator[procrastinate.App]:
    app = procrastinate.App(connector=AsyncpgConnector(dsn=procrastinate_dsn))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield app


@pytest_asyncio.fixture
async def pool(procrastinate_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(procrastinate_dsn, min_size=1, max_size=4) as pool:
        yield pool
