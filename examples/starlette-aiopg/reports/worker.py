"""A worker with a pool for its tasks: ``python -m reports.worker``."""

from __future__ import annotations

import asyncio
import logging

import aiopg

from reports.database import DSN
from reports.tasks import app as queue


async def main() -> None:
    """Run jobs until SIGINT or SIGTERM; those that run may take ten seconds to end."""
    async with aiopg.create_pool(DSN) as pool, queue.open_async():
        await queue.run_worker_async(
            queues=["reports"],
            concurrency=5,
            shutdown_graceful_timeout=10,
            additional_context={"pool": pool},
        )


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    asyncio.run(main())
