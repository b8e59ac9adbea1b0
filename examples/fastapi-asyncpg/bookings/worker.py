"""A worker with a pool for its tasks: ``python -m bookings.worker``."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from bookings.database import DSN
from bookings.tasks import app as queue


async def main() -> None:
    """Run jobs until SIGINT or SIGTERM; those that run may take ten seconds to end."""
    async with asyncpg.create_pool(DSN) as pool, queue.open_async():
        await queue.run_worker_async(
            queues=["mail"],
            concurrency=10,
            shutdown_graceful_timeout=10,
            additional_context={"pool": pool},
        )


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    asyncio.run(main())
