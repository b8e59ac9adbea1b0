"""The app of the workers that the tests kill: ``python crash_app.py DSN OPTIONS``."""

from __future__ import annotations

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


@app.task(name="suicide")
def suicide() -> None:
    os._exit(9)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    app.run_worker(**json.loads(sys.argv[2]))
