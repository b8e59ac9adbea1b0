"""The application that the workers run: ``procrastinate --app chaos.app.app worker``.

It is told by the environment:

- CHAOS_DSN is the database as this worker reaches it; CHAOS_LISTEN is a way for LISTEN alone;
- CHAOS_CONNECTOR is the connector's name;
- CHAOS_LEDGER is the ledger;
- CHAOS_SLOW_IMPORT is how many seconds this module takes;
- CHAOS_PLANT is a bug to plant.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import suppress
from typing import Any

import procrastinate
from chaos import nasty, plants
from chaos.jobs import KEEPING
from chaos.ledger import Ledger
from chaos.records import TICK

ledger = Ledger(os.environ["CHAOS_LEDGER"])
#: The name of this process: a pid alone may be used again.
PROCESS = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Planned(Exception):
    """A failure that the job's arguments ask for."""


def take_long(seconds: float) -> None:
    """Take a while to import, and swallow what is raised meanwhile, as careless modules do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


take_long(float(os.environ.get("CHAOS_SLOW_IMPORT") or 0))
ledger.process(PROCESS, os.getpid(), os.getppid())

app = procrastinate.App(
    connector=plants.connector(
        os.environ["CHAOS_CONNECTOR"], os.environ["CHAOS_DSN"], os.environ.get("CHAOS_LISTEN")
    )
)
RETRY = procrastinate.RetryStrategy(max_attempts=12, wait=0.1, linear_wait=0.1)


class Run:
    """One run of a job, on record."""

    def __init__(self, context: procrastinate.JobContext) -> None:
        self.token = uuid.uuid4().hex
        self.job_id: Any = context.job.id
        self.attempt = context.job.attempts

    def begin(self) -> None:
        ledger.began(self.token, self.job_id, self.attempt, PROCESS)

    def end(self, outcome: str) -> None:
        ledger.ended(self.token, outcome)

    def outcome(self, failing: int) -> str:
        return "failed" if self.attempt <= failing else "ok"


def in_a_thread(context: procrastinate.JobContext, n: int, seconds: float, failing: int) -> str:
    """Run in a thread, and return the token of the run."""
    run = Run(context)
    run.begin()
    time.sleep(seconds)
    outcome = run.outcome(failing)
    run.end(outcome)
    if outcome == "failed":
        raise Planned
    return run.token


async def on_the_loop(
    context: procrastinate.JobContext, n: int, seconds: float, failing: int
) -> str:
    """Run on the event loop, and return the token of the run."""
    return await record_run(context, seconds, failing)


RUNNERS: tuple[Any, ...] = (in_a_thread, on_the_loop)
for run in RUNNERS:
    app.task(name=run.__name__, pass_context=True, retry=RETRY)(run)
    app.task(name=KEEPING[run.__name__], pass_context=True, retry=RETRY, result=True)(run)


@app.periodic(cron=f"*/{TICK} * * * * *", seconds="first")
@app.task(name="tick", pass_context=True, queue="ticks")
async def tick(context: procrastinate.JobContext, timestamp: int) -> None:
    """Run at each tick."""
    await record_run(context, 0, 0)


async def record_run(context: procrastinate.JobContext, seconds: float, failing: int) -> str:
    """Record a run that sleeps for a while, and return its token."""
    run = Run(context)
    await whole(run.begin)
    outcome = "interrupted"
    try:
        await asyncio.sleep(seconds)
        outcome = run.outcome(failing)
    finally:
        with suppress(asyncio.CancelledError):  # a run on record as good must end well
            await whole(run.end, outcome)
    if outcome == "failed":
        raise Planned
    return run.token


async def whole(function: Any, *values: Any) -> None:
    """Run a function in a thread to its end, also when the task is cancelled meanwhile."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *values))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


@app.task(name="nasty", pass_context=True, retry=RETRY)
def do_nasty(context: procrastinate.JobContext, n: int, deed: str, crashing: int) -> None:
    """Do something to this process, in a thread."""
    run = Run(context)
    run.begin()
    misbehave(run, n, deed, crashing)
    run.end("ok")


@app.task(name="nasty_on_the_loop", pass_context=True, retry=RETRY)
async def do_nasty_on_the_loop(
    context: procrastinate.JobContext, n: int, deed: str, crashing: int
) -> None:
    """Do something to this process, on the event loop."""
    run = Run(context)
    run.begin()
    misbehave(run, n, deed, crashing)
    run.end("ok")


def misbehave(run: Run, n: int, deed: str, crashing: int) -> None:
    """Do the deed in the first attempts; a deed that raises is a planned failure."""
    if run.attempt > crashing:
        return
    does, _ = nasty.DEEDS[deed]
    ledger.nasty(run.token, n, deed, PROCESS)
    try:
        does()
    except BaseException:
        run.end("failed")
        raise
