"""What an application of an old release does: ``python program.py DSN ACT``.

It runs in an environment with that release, from 0.33 to 3.x. The acts: ``fill`` makes the tables
and jobs of every kind, ``die`` runs a job that ends the process, ``abort`` asks for the abortion of
that job, ``work`` runs whatever waits and prints the ids, ``defer`` adds a job.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
from importlib.metadata import version

import procrastinate

DSN, ACT = sys.argv[1:3]
IS_FIRST = version("procrastinate").startswith("0.")
if IS_FIRST:
    connector = procrastinate.AiopgConnector(dsn=DSN)
else:
    connector = procrastinate.PsycopgConnector(conninfo=DSN)
app = procrastinate.App(connector=connector)
HAS_PRIORITIES = int(version("procrastinate").partition(".")[0]) >= 2
QUIET = {} if IS_FIRST else {"install_signal_handlers": False}
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
ran = []


@app.task(name="send", queue="mail", pass_context=True)
def send(context, **kwargs):
    ran.append(context.job.id)


@app.task(name="t" * 128, queue="q" * 40, pass_context=True)
def long_name(context, **kwargs):
    ran.append(context.job.id)


@app.task(name="fail", queue="history", retry=1)
def fail():
    raise ValueError("as it should")


@app.task(name="succeed", queue="history")
def succeed():
    pass


@app.task(name="die", queue="die")
def die():
    os._exit(0)


async def work(*queues):
    await app.run_worker_async(queues=list(queues) or None, wait=False, **QUIET)


async def fill():
    await app.schema_manager.apply_schema_async()
    await succeed.defer_async()
    await fail.defer_async()
    await work("history")
    await asyncio.sleep(1.1)  # the failed one is due after a second
    await work("history")
    await send.defer_async(n=1, nested={"a": [1, None, "\u00fc"]})
    await send.configure(lock="one").defer_async(n=2)
    await send.configure(lock="one").defer_async(n=3)
    await send.configure(queueing_lock="waits").defer_async(n=4)
    await send.configure(schedule_in={"days": 3}).defer_async(n=5)
    await send.configure(schedule_at=LONG_AGO).defer_async(n=6)
    await send.configure(lock="l" * 512, queueing_lock="q" * 512).defer_async(n=7)
    await send.configure(lock="l" * 513).defer_async(n=8)
    await long_name.defer_async(n=9)
    if HAS_PRIORITIES:
        await send.configure(priority=7).defer_async(n=10)
    await die.defer_async()


async def abort():
    (job,) = await app.job_manager.list_jobs_async(status="doing")
    await app.job_manager.cancel_job_by_id_async(job.id, abort=True)


async def main():
    async with app.open_async():
        if ACT == "fill":
            await fill()
        elif ACT == "die":
            await work("die")
        elif ACT == "abort":
            await abort()
        elif ACT == "defer":
            await send.defer_async(n=11)
        else:
            await work()
    print(json.dumps(sorted(ran)))


asyncio.run(main())
