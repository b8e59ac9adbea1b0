"""The app of the workers that the tests kill: ``python crash_app.py DSN OPTIONS``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time

import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=sys.argv[1]))


@app.task(name="noop")
async def noop(n: int) -> None: ...


@app.task(name="nap")
def nap(seconds: float) -> None:
    os.write(1, b"napping\n")  # as one: threads share the pipe
    time.sleep(seconds)


@app.task(name="stubborn")
def stubborn() -> None:
    print("began", flush=True)
    while True:
        time.sleep(1)


@app.task(name="patient", pass_context=True)
def patient(context: procrastinate.JobContext) -> None:
    print("began", flush=True)
    while not context.should_abort():
        time.sleep(0.01)
    raise procrastinate.JobAborted


@app.task(name="hour", pass_context=True, retry=True)
def hour(context: procrastinate.JobContext) -> None:
    print("began", flush=True)
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline:
        if context.should_abort():
            raise procrastinate.JobAborted
        time.sleep(0.02)


@app.task(name="hour_async", retry=True)
async def hour_async() -> None:
    print("began", flush=True)
    await asyncio.sleep(3600)


@app.task(name="deaf")
async def deaf() -> None:
    print("began", flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.task(name="blocks")
async def blocks() -> None:
    print("began", flush=True)
    time.sleep(3600)  # noqa: ASYNC251


@app.task(name="nap_async")
async def nap_async(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task(name="slow_suicide")
def slow_suicide(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(9)


@app.task(name="suicide")
def suicide() -> None:
    os._exit(9)


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    logging.basicConfig(level=options.pop("log_level", "WARNING"))
    app.run_worker(**options)
