"""procrastinate, as README.md shows it: `python ours.py setup|enqueue|drain|latency COUNT`,
or ``work COUNT SLOTS MILLISECONDS``.

Settings: ``concurrency=100``, as async tasks that mostly wait would have it (``work``: as many as
there are slots). All else is default.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector())
sync_app = app.with_connector(procrastinate.Psycopg2Connector())
entered: asyncio.Event
expected = ran = 0
first = moment = 0.0


@app.task(name="noop")
async def noop(n: int) -> None:
    global ran, moment
    ran += 1
    if ran >= expected:
        moment = time.perf_counter()
        entered.set()


@app.task(name="sleep")
async def sleep(n: int, seconds: float) -> None:
    global ran, moment, first
    first = first or time.perf_counter()
    await asyncio.sleep(seconds)
    ran += 1
    if ran >= expected:
        moment = time.perf_counter()
        entered.set()


def setup() -> dict[str, Any]:
    with sync_app.open():
        sync_app.schema_manager.apply_schema()
    return {}


def enqueue(count: int) -> dict[str, Any]:
    with sync_app.open():
        task = sync_app.tasks["noop"]
        task.defer(n=0)
        began = time.perf_counter()
        for n in range(count):
            task.defer(n=n)
        return {"seconds": time.perf_counter() - began}


async def drain(count: int) -> dict[str, Any]:
    global entered, expected
    entered, expected = asyncio.Event(), count
    async with app.open_async():
        for first in range(0, count, 1_000):
            jobs = ({"n": n} for n in range(first, min(first + 1_000, count)))
            await app.tasks["noop"].batch_defer_async(*jobs)
        began = time.perf_counter()
        worker = asyncio.create_task(app.run_worker_async(concurrency=100))
        await entered.wait()
        worker.cancel()
        await asyncio.wait([worker])
    return {"seconds": moment - began}


async def work(count: int, slots: int, milliseconds: int) -> dict[str, Any]:
    global entered, expected
    entered, expected = asyncio.Event(), count
    async with app.open_async():
        for start in range(0, count, 1_000):
            numbers = range(start, min(start + 1_000, count))
            jobs = ({"n": n, "seconds": milliseconds / 1e3} for n in numbers)
            await app.tasks["sleep"].batch_defer_async(*jobs)
        worker = asyncio.create_task(app.run_worker_async(concurrency=slots))
        await entered.wait()
        worker.cancel()
        await asyncio.wait([worker])
    return {"seconds": moment - first}


async def latency(count: int) -> dict[str, Any]:
    global entered, expected, ran
    milliseconds = []
    async with app.open_async():
        worker = asyncio.create_task(app.run_worker_async(concurrency=100))
        await asyncio.sleep(1)
        for n in range(count):
            entered, expected, ran = asyncio.Event(), 1, 0
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            await app.tasks["noop"].defer_async(n=n)
            await entered.wait()
            milliseconds.append((moment - began) * 1e3)
        worker.cancel()
        await asyncio.wait([worker])
    return {"milliseconds": milliseconds}


if __name__ == "__main__":
    action, (size, *more) = sys.argv[1], [int(number) for number in sys.argv[2:]]
    if action == "setup":
        print(json.dumps(setup()))
    elif action == "enqueue":
        print(json.dumps(enqueue(size)))
    else:
        actions = {"drain": drain, "latency": latency, "work": work}
        print(json.dumps(asyncio.run(actions[action](size, *more))))
