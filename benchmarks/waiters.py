"""A process that waits for jobs: ``python -m benchmarks.waiters '{"dsn": ..., "ids": [1, 9]}'``.

It waits for each job with an id from the first number to before the second, all at the same time
and as coroutines. It writes lines of JSON to its standard output:

``{"waiting": n}``       once it has begun to wait for all
``{"resumed": n, ...}``  when all have ended: the monotonic moment, and for each wait the seconds
                         from the job's ``finished_at`` until it went on
``{"closed": true}``     when its app is closed
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import procrastinate
from benchmarks.worker import connector_for, say


async def wait_for_all(app: procrastinate.App, ids: range) -> list[float]:
    """Return the seconds from the end of each job until its wait went on."""

    async def wait_for_one(job_id: int) -> float:
        job = await app.job_manager.wait_until_ended_async(job_id)
        assert job.finished_at is not None
        return time.time() - job.finished_at.timestamp()

    waits = [asyncio.ensure_future(wait_for_one(job_id)) for job_id in ids]
    await asyncio.sleep(0)  # they have begun
    say(waiting=len(waits))
    return list(await asyncio.gather(*waits))


async def run(options: dict[str, Any]) -> None:
    """Wait for the jobs that the options name."""
    connector = connector_for(
        options.get("connector", "aiopg"), options["dsn"], traced=False, notes=[]
    )
    async with procrastinate.App(connector=connector).open_async() as app:
        delays = await wait_for_all(app, range(*options["ids"]))
        say(resumed=len(delays), monotonic=time.monotonic(), delays=delays)
    say(closed=True)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
