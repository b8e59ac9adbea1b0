"""The app of the workers that the faults strike: ``python fault_app.py DSN TRUTH OPTIONS``.

The worker uses DSN. TRUTH leads to the same database past any proxy: there each run is noted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from typing import Any

import psycopg2

import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=sys.argv[1]))


def tell(sql: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(sys.argv[2])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


@app.task(name="noop")
async def noop() -> None: ...


@app.task(name="noted", pass_context=True)
def noted(context: procrastinate.JobContext, seconds: float = 0.0) -> None:
    """Note the begin of this run, and end after some seconds."""
    tell("insert into runs (job_id, pid) values (%s, %s)", context.job.id, os.getpid())
    time.sleep(seconds)


@app.task(name="deadly")
def deadly() -> None:
    time.sleep(0.1)
    os._exit(9)


@app.task(name="fails_late", pass_context=True)
def fails_late(context: procrastinate.JobContext) -> None:
    noted(context, 0.5)
    raise ValueError("too late")


class BreaksOnce(logging.Handler):
    """Raises at the first record that a thread of the worker's own logs."""

    broken = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.broken and threading.current_thread() is not threading.main_thread():
            self.broken = True
            raise OSError("the log's disk is full")


class Mirror:
    """Shows another one, which shows this one."""

    other: Mirror

    def __repr__(self) -> str:
        return f"Mirror({self.other!r})"


class Sly(BaseException):
    """What no `except Exception` catches."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise Sly


class BreaksAtItsName(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if "nasty.breaks_the_log" in str(record.args):
            raise Sly
        return True


class BrokenStrategy(procrastinate.BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Any) -> Any:
        raise Sly


@app.task(name="nasty.shows_mirrors")
async def shows_mirrors() -> None:
    one, two = Mirror(), Mirror()
    one.other, two.other = two, one
    raise ValueError(one)


@app.task(name="nasty.is_its_own_argument")
async def is_its_own_argument() -> None:
    error = ValueError()
    error.args = (error,)
    raise error


@app.task(name="nasty.cannot_be_printed")
async def cannot_be_printed() -> None:
    raise Unprintable


@app.task(name="nasty.breaks_the_log")
async def breaks_the_log() -> None:
    for handler in logging.getLogger().handlers:
        handler.addFilter(BreaksAtItsName())
    raise ValueError


@app.task(name="nasty.has_a_broken_strategy", retry=BrokenStrategy())
async def has_a_broken_strategy() -> None:
    raise ValueError


@app.task(name="strike_helper")
async def strike_helper(number: int) -> None:
    """Raise MemoryError in one of the tasks that the worker has on its loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    helpers = sorted(filter(_waiter, others), key=lambda task: task.get_coro().__qualname__)
    helper = helpers[number % len(helpers)]
    tell("insert into struck values (%s, %s)", number, helper.get_coro().__qualname__)
    _waiter(helper).set_exception(MemoryError("struck"))


def _waiter(task: asyncio.Task[Any]) -> Any:
    """The future that a task waits for; None if it waits for another task, or is about to run."""
    waiter = getattr(task, "_fut_waiter", None)
    if not isinstance(waiter, asyncio.Future) or isinstance(waiter, asyncio.Task):
        return None
    return None if waiter.done() else waiter


def add_ticks() -> None:
    @app.periodic(cron="* * * * * *")
    @app.task(name="tick", queue="ticks")
    async def tick(timestamp: int) -> None: ...


if __name__ == "__main__":
    options = json.loads(sys.argv[3])
    logging.basicConfig(level="INFO")
    if options.pop("log_breaks_once", False):
        logging.getLogger("procrastinate").addHandler(BreaksOnce())
    if options.pop("ticks", False):
        add_ticks()
    app.run_worker(**options)
