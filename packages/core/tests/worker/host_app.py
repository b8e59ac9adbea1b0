"""Programs with a worker in them: ``python host_app.py DSN HOST WORKER``.

WORKER is an ``on_failure``, ``task`` for `run_worker_async` in a task, or ``none``. The worker dies
on SIGUSR1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import procrastinate
from procrastinate.worker.shift.shift import Shift
from procrastinate.worker.worker import Worker

DSN, HOST, WORKER = sys.argv[1:]

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=DSN))


@app.task(name="hello")
def hello() -> None:
    print("hello", flush=True)


class MortalShift(Shift):
    """A shift that SIGUSR1 kills."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        killed = asyncio.Event()
        signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(killed.set))
        working = asyncio.create_task(super().run())
        killing = asyncio.create_task(killed.wait())
        await asyncio.wait([working, killing], return_when=asyncio.FIRST_COMPLETED)
        if killed.is_set():
            working.cancel()
            await asyncio.wait([working])
            raise MemoryError("planned")
        killing.cancel()
        working.result()


Worker._shift_type = MortalShift


@contextlib.asynccontextmanager
async def lifespan(_: Any = None) -> AsyncIterator[None]:
    """What the host keeps for its whole life."""
    async with app.open_async(), worker():
        print("ready", flush=True)
        yield
    print("left", flush=True)


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[None]:
    if WORKER == "none":
        yield
    elif WORKER == "task":
        task = asyncio.create_task(app.run_worker_async(name="guest"))
        yield
        task.cancel()
        await asyncio.wait([task])
    else:
        async with app.worker(name="guest", on_failure=WORKER):  # type: ignore[arg-type]
            yield


async def plain() -> None:
    """A program that leaves signals to Python."""
    async with lifespan():
        await asyncio.Event().wait()


async def handling() -> None:
    """A program that handles signals on its loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with lifespan():
        await stop.wait()


def uvicorn() -> None:
    import uvicorn
    from starlette.applications import Starlette

    uvicorn.run(Starlette(lifespan=lifespan), port=0, log_level="warning")


HOSTS: dict[str, Callable[[], None]] = {
    "plain": lambda: asyncio.run(plain()),
    "handling": lambda: asyncio.run(handling()),
    "uvicorn": uvicorn,
}

if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    HOSTS[HOST]()
