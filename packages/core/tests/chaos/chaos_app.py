"""The workers of the chaos: ``python chaos_app.py DSN RECORD_DSN OPTIONS``.

Every run of a job is recorded in the table ``chaos_runs``, in transactions of the task's own and
on a connection that goes straight to the server, whatever happens to the worker's connections.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

import psycopg2

import procrastinate

_BEGAN = """
    insert into chaos_runs (token, job_id, attempt, worker, began)
    values (%s, %s, %s, %s, clock_timestamp())
    on conflict do nothing
"""
_ENDED = """
    update chaos_runs set ended = clock_timestamp(), outcome = %s
    where token = %s and ended is null
"""

_local = threading.local()


def record(sql: str, *values: Any) -> None:
    """Execute a statement until the server has acknowledged it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if getattr(_local, "connection", None) is None:
                _local.connection = psycopg2.connect(sys.argv[2])
                _local.connection.autocommit = True
            with _local.connection.cursor() as cursor:
                cursor.execute(sql, values)
            return
        except psycopg2.Error:
            _local.connection = None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Run:
    """One run of a job, on record."""

    def __init__(self, context: procrastinate.JobContext) -> None:
        self.context = context
        self.token = uuid.uuid4().hex
        self.began = (self.token, context.job.id, context.job.attempts, os.getpid())

    def outcome(self, failing: int) -> str:
        return "failed" if self.context.job.attempts <= failing else "ok"


class Planned(Exception):
    """A failure that the job's arguments ask for."""


app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=sys.argv[1], timeout=5))
RETRY = procrastinate.RetryStrategy(max_attempts=12, wait=0.05, linear_wait=0.02)


@app.task(name="in_a_thread", pass_context=True, retry=RETRY)
def in_a_thread(context: procrastinate.JobContext, seconds: float, failing: int) -> None:
    run = Run(context)
    record(_BEGAN, *run.began)
    time.sleep(seconds)
    outcome = run.outcome(failing)
    record(_ENDED, outcome, run.token)
    if outcome == "failed":
        raise Planned


@app.task(name="on_the_loop", pass_context=True, retry=RETRY)
async def on_the_loop(context: procrastinate.JobContext, seconds: float, failing: int) -> None:
    run = Run(context)
    await whole(record, _BEGAN, *run.began)
    outcome = "interrupted"
    try:
        await asyncio.sleep(seconds)
        outcome = run.outcome(failing)
    finally:
        with suppress(asyncio.CancelledError):  # what is on record as well done is to end well
            await whole(record, _ENDED, outcome, run.token)
    if outcome == "failed":
        raise Planned


async def whole(function: Any, *values: Any) -> None:
    """Run a function in a thread to its end, also when the task is cancelled meanwhile."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *values))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    app.run_worker(**json.loads(sys.argv[3]))
