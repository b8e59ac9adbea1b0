"""The web application with a worker in its process: ``uvicorn reports.together:web``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from reports import web as alone
from reports.tasks import app as queue


@asynccontextmanager
async def lifespan(web: Starlette) -> AsyncIterator[None]:
    """Run a worker for as long as the server runs, and end the server if the worker dies."""
    async with (
        alone.lifespan(web),
        queue.worker(
            queues=["reports"],
            concurrency=5,
            shutdown_graceful_timeout=10,
            additional_context={"pool": web.state.pool},
            on_failure="terminate",
        ),
    ):
        yield


web = Starlette(lifespan=lifespan, routes=alone.routes)
