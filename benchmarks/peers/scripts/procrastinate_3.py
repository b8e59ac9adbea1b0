"""The released Procrastinate 3: `python procrastinate_3.py setup|enqueue|drain|latency COUNT`.

Settings: ``concurrency=100``, as advised for jobs that are input and output in
https://procrastinate.readthedocs.io/en/stable/howto/advanced/concurrency.html (its default is 1);
jobs are put in front of the drain by ``batch_defer_async``. One by one, they are deferred with the
synchronous connector, https://procrastinate.readthedocs.io/en/stable/howto/basics/connector.html
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import procrastinate

app = procrastinate.App(connector=procrastinate.PsycopgConnector())
sync_app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
entered: asyncio.Event
expected = ran = 0
moment = 0.0


@app.task(name="noop")
async def noop(n: int) -> None:
    global ran, moment
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
        deferrer = sync_app.configure_task("noop")
        deferrer.defer(n=0)
        began = time.perf_counter()
        for n in range(count):
            deferrer.defer(n=n)
        return {"seconds": time.perf_counter() - began}


async def drain(count: int) -> dict[str, Any]:
    global entered, expected
    entered, expected = asyncio.Event(), count
    async with app.open_async():
        for first in range(0, count, 1_000):
            jobs = ({"n": n} for n in range(first, min(first + 1_000, count)))
            await noop.batch_defer_async(*jobs)
        began = time.perf_counter()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=100, install_signal_handlers=False)
        )
        await entered.wait()
        worker.cancel()
        await asyncio.wait([worker])
    return {"seconds": moment - began}


async def latency(count: int) -> dict[str, Any]:
    global entered, expected, ran
    milliseconds = []
    async with app.open_async():
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=100, install_signal_handlers=False)
        )
        await asyncio.sleep(1)
        for n in range(count):
            entered, expected, ran = asyncio.Event(), 1, 0
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            await noop.defer_async(n=n)
            await entered.wait()
            milliseconds.append((moment - began) * 1e3)
        worker.cancel()
        await asyncio.wait([worker])
    return {"milliseconds": milliseconds}


if __name__ == "__main__":
    action, size = sys.argv[1], int(sys.argv[2])
    if action == "setup":
        print(json.dumps(setup()))
    elif action == "enqueue":
        print(json.dumps(enqueue(size)))
    else:
        print(json.dumps(asyncio.run({"drain": drain, "latency": latency}[action](size))))
