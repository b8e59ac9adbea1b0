"""Entering a worker into the database, where others see that it lives and what it can do.

Rules

1. A start that does not succeed leaves no row behind, whatever keeps it from succeeding: a stop, an
   answer that was lost, a later step that failed. Others would take the row for a worker that
   lives, until `stalled_worker_timeout` is over.
2. So the row is written in a transaction. If the worker goes away before it knows its id, the
   server undoes it. From then on the worker can remove the row, and does.
3. A stop does not keep it from that. It only leaves less time, and a row that may be left is told
   of in the log.
"""

from __future__ import annotations

import os
import socket
from importlib import metadata
from typing import NamedTuple

from procrastinate.cancellation import end_of
from procrastinate.drive import Flow, Limit
from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.schema import check_schema
from procrastinate.storage.workers import About
from procrastinate.worker.clock import since_boot
from procrastinate.worker.database.backoff import reason_of
from procrastinate.worker.database.line import CALL
from procrastinate.worker.database.tries import with_tries
from procrastinate.worker.log import logger
from procrastinate.worker.process.own_loop import own_task
from procrastinate.worker.stopping import StopRequests

TRIES_TO_REGISTER = 3
#: For taking a registration back, which a worker that has to stop waits for.
TAKING_BACK = Limit(server=4.0, client=5.0, connects=True)
#: Seconds to take a registration back once an end now was asked for. A statement that is under way
#: then ends first.
TAKING_BACK_NOW_MAY_TAKE = 1.0


class Registered(NamedTuple):
    """A worker's id, and when it asked for that, by `procrastinate.worker.clock`."""

    worker_id: int
    at: float


async def register(gateway: Gateway, name: str, about: About, stop: StopRequests) -> Registered:
    """Enter a worker, and try again over a connection that breaks meanwhile."""

    def say(exc: ConnectorException) -> None:
        logger.warning("worker %s tries again to register: %s", name, exc)

    return await with_tries(lambda: _enter(gateway, name, about, stop), TRIES_TO_REGISTER, say)


async def _enter(gateway: Gateway, name: str, about: About, stop: StopRequests) -> Registered:
    await gateway.run_async(check_schema(), limit=CALL)
    at = since_boot()
    ids: list[int] = []  # one, as soon as it is known
    try:
        flow = _noted(flows.register_worker(name, about), ids)
        await gateway.run_async(flow, transaction=True, limit=CALL)
        # After it: the database is distributed only while no worker is registered.
        await gateway.partitions_async(limit=CALL, anew=True)
    except BaseException:
        for worker_id in ids:
            await take_back(gateway, name, worker_id, stop)
        raise
    return Registered(ids[0], at)


def _noted(flow: Flow[int], ids: list[int]) -> Flow[None]:
    """Note what a flow returns before its transaction is committed."""
    ids.append((yield from flow))


async def take_back(gateway: Gateway, name: str, worker_id: int, stop: StopRequests) -> None:
    """Remove the row of a worker that does not start after all.

    A cancellation, such as that of a block's time limit, is raised when that is done (rule 3).
    """
    removing = own_task(_remove(gateway, name, worker_id, stop))
    cancellation = await end_of(removing)
    if cancellation is not None:
        raise cancellation from removing.exception()
    removing.result()


async def _remove(gateway: Gateway, name: str, worker_id: int, stop: StopRequests) -> None:
    try:
        async with stop.limit(
            TAKING_BACK.client, stopping=TAKING_BACK.client, now=TAKING_BACK_NOW_MAY_TAKE
        ):
            await with_tries(
                lambda: gateway.run_async(flows.unregister_worker(worker_id), limit=TAKING_BACK)
            )
    except (ConnectorException, TimeoutError) as exc:
        logger.warning(
            "worker %s, which does not start, may have left its row in procrastinate_workers; other"
            " workers remove it: %s",
            name,
            reason_of(exc),
        )


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
