"""The web application with a worker in its process: ``uvicorn bookings.together:web``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from bookings import web as alone
from bookings.tasks import app as queue


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    """Run a worker for as long as the server runs, and end the server if the worker dies."""
    async with (
        alone.lifespan(web),
        queue.worker(
            queues=["mail"],
            concurrency=5,
            shutdown_graceful_timeout=10,
            additional_context={"pool": web.state.pool},
            on_failure="terminate",
        ),
    ):
        yield


web = FastAPI(title="Bookings", lifespan=lifespan)
web.include_router(alone.router)
