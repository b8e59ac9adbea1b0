"""The asynchronous connector of procrastinate over asyncpg: coroutines, workers, LISTEN."""

from __future__ import annotations

from procrastinate_asyncpg.connector import AsyncpgConnector

__all__ = ["AsyncpgConnector"]
