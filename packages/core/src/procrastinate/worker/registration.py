"""Entering a worker into the database, where others see that it lives and what it can do."""

from __future__ import annotations

import asyncio
import os
import socket
from importlib import metadata
from typing import NamedTuple

from procrastinate.errors import ConnectionLost, QueryCanceled
from procrastinate.gateway import Gateway
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.schema import check_schema
from procrastinate.storage.workers import About
from procrastinate.worker.clock import since_boot
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.line import CALL
from procrastinate.worker.log import logger

TRIES_TO_REGISTER = 3


class Registered(NamedTuple):
    """A worker's id, and when it asked for that, by `procrastinate.worker.clock`."""

    worker_id: int
    at: float


async def register(gateway: Gateway, name: str, about: About) -> Registered:
    """Enter a worker.

    A connection that breaks meanwhile, or a statement that is cancelled, says nothing about
    whether it can work: then this tries again.
    """
    backoff = Backoff()
    for _ in range(TRIES_TO_REGISTER - 1):
        try:
            return await _enter(gateway, name, about)
        except (ConnectionLost, QueryCanceled) as exc:
            logger.warning("worker %s tries again to register: %s", name, exc)
            await asyncio.sleep(backoff.next_wait())
    return await _enter(gateway, name, about)


async def _enter(gateway: Gateway, name: str, about: About) -> Registered:
    await gateway.run_async(check_schema(), limit=CALL)
    at = since_boot()
    worker_id = await gateway.run_async(flows.register_worker(name, about), limit=CALL)
    # After it: the database is distributed only while no worker is registered.
    await gateway.partitions_async(limit=CALL, anew=True)
    return Registered(worker_id, at)


def about_worker(options: WorkerOptions, registry: TaskRegistry) -> About:
    """Return what a worker of this process says of itself."""
    return About(
        host=socket.gethostname(),
        concurrency=options.concurrency,
        task_names=tuple(registry.known_names()),
        pid=os.getpid(),
        version=_version(),
        queues=options.queues,
    )


def _version() -> str | None:
    """Return the version of this package, or None in a program that was packed without it."""
    try:
        return metadata.version("procrastinate")
    except metadata.PackageNotFoundError:
        return None
