"""PgQueuer on asyncpg: `python pgqueuer_asyncpg.py setup|enqueue|drain|latency COUNT`.

Settings, from https://pgqueuer.readthedocs.io/en/latest/guides/performance-tuning/ : a larger
``batch_size`` for short jobs (100; up to 1,000 brings nothing more), and a single connection for
the queue manager. Durability stays ``durable``, the default. The loop is uvloop, as in the
project's own benchmark, https://github.com/janbjorge/pgqueuer/blob/main/tools/benchmark.py
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

BATCH = 100
entered: asyncio.Event
expected = ran = 0
moment = 0.0


async def worker_on_a_connection() -> tuple[PgQueuer, asyncio.Task[None]]:
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect()))

    @pgq.entrypoint("noop")
    async def noop(job: Any) -> None:
        global ran, moment
        ran += 1
        if ran >= expected:
            moment = time.perf_counter()
            entered.set()

    return pgq, asyncio.create_task(pgq.run(batch_size=BATCH))


async def stop(pgq: PgQueuer, worker: asyncio.Task[None]) -> None:
    pgq.shutdown.set()
    await asyncio.wait([worker], timeout=10)


async def setup(count: int) -> dict[str, Any]:
    await Queries(AsyncpgDriver(await asyncpg.connect())).install()
    return {}


async def enqueue(count: int) -> dict[str, Any]:
    queries = Queries(AsyncpgDriver(await asyncpg.connect()))
    await queries.enqueue("noop", b'{"n": 0}')
    began = time.perf_counter()
    for n in range(count):
        await queries.enqueue("noop", b'{"n": %d}' % n)
    return {"seconds": time.perf_counter() - began}


async def drain(count: int) -> dict[str, Any]:
    global entered, expected
    entered, expected = asyncio.Event(), count
    queries = Queries(AsyncpgDriver(await asyncpg.connect()))
    for first in range(0, count, 1_000):
        payloads: list[bytes | None] = [
            b'{"n": %d}' % n for n in range(first, min(first + 1_000, count))
        ]
        await queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))
    began = time.perf_counter()
    pgq, worker = await worker_on_a_connection()
    await entered.wait()
    await stop(pgq, worker)
    return {"seconds": moment - began}


async def latency(count: int) -> dict[str, Any]:
    global entered, expected, ran
    entered, expected = asyncio.Event(), 1
    queries = Queries(AsyncpgDriver(await asyncpg.connect()))
    pgq, worker = await worker_on_a_connection()
    await asyncio.sleep(1)
    milliseconds = []
    for n in range(count):
        entered, ran = asyncio.Event(), 0
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await queries.enqueue("noop", b'{"n": %d}' % n)
        await entered.wait()
        milliseconds.append((moment - began) * 1e3)
    await stop(pgq, worker)
    return {"milliseconds": milliseconds}


if __name__ == "__main__":
    actions = {"setup": setup, "enqueue": enqueue, "drain": drain, "latency": latency}
    print(json.dumps(uvloop.run(actions[sys.argv[1]](int(sys.argv[2])))))
