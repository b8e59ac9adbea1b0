"""SAQ on PostgreSQL: `python saq_postgres.py setup|enqueue|drain|latency COUNT`.

Settings: ``concurrency=10`` and a pool of 4 to 20 connections, which are the defaults that
https://saq-py.readthedocs.io/en/latest/ names. The loop is uvloop.
There is no way to enqueue in bulk, so the drain's jobs are enqueued concurrently.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from saq import Queue, Worker

CONCURRENCY = 10
entered: asyncio.Event
expected = ran = 0
moment = 0.0


async def noop(ctx: Any, *, n: int) -> None:
    global ran, moment
    ran += 1
    if ran >= expected:
        moment = time.perf_counter()
        entered.set()


async def connected() -> Any:
    queue = Queue.from_url("postgresql://")
    await queue.connect()
    return queue


async def setup(count: int) -> dict[str, Any]:
    queue = await connected()
    await queue.disconnect()
    return {}


async def enqueue(count: int) -> dict[str, Any]:
    queue = await connected()
    await queue.enqueue("noop", n=0)
    began = time.perf_counter()
    for n in range(count):
        await queue.enqueue("noop", n=n)
    seconds = time.perf_counter() - began
    await queue.disconnect()
    return {"seconds": seconds}


async def drain(count: int) -> dict[str, Any]:
    global entered, expected
    entered, expected = asyncio.Event(), count
    queue = await connected()
    for first in range(0, count, 20):
        numbers = range(first, min(first + 20, count))
        await asyncio.gather(*(queue.enqueue("noop", n=n) for n in numbers))
    worker = Worker(queue, functions=[noop], concurrency=CONCURRENCY)
    began = time.perf_counter()
    working = asyncio.create_task(worker.start())
    await entered.wait()
    await stop(worker, working, queue)
    return {"seconds": moment - began}


async def latency(count: int) -> dict[str, Any]:
    global entered, expected, ran
    entered, expected = asyncio.Event(), 1
    queue = await connected()
    worker = Worker(queue, functions=[noop], concurrency=CONCURRENCY)
    working = asyncio.create_task(worker.start())
    await asyncio.sleep(1)
    milliseconds = []
    for n in range(count):
        entered, ran = asyncio.Event(), 0
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await queue.enqueue("noop", n=n)
        await entered.wait()
        milliseconds.append((moment - began) * 1e3)
    await stop(worker, working, queue)
    return {"milliseconds": milliseconds}


async def stop(worker: Any, working: asyncio.Task[None], queue: Any) -> None:
    worker.event.set()
    working.cancel()
    await asyncio.wait([working], timeout=10)


if __name__ == "__main__":
    actions = {"setup": setup, "enqueue": enqueue, "drain": drain, "latency": latency}
    print(json.dumps(uvloop.run(actions[sys.argv[1]](int(sys.argv[2])))), flush=True)
    sys.stdout.flush()
