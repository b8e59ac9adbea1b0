"""A process that defers: ``python -m chaos.deferring '{"connector": ..., "dsn": ..., ...}'``.

It reads on its standard input how many jobs it may have asked for by now, a number a line, and ends
when it has asked for all, or when its input does. A call that raises is never repeated: whether its
jobs are stored is for the books to find out.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import procrastinate
from chaos import jobs, plants
from chaos.ledger import Ledger
from chaos.records import Spec
from procrastinate.connector import AsyncConnector
from procrastinate.errors import AlreadyEnqueued, JobUnsuccessful, ProcrastinateException

PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds after a call that failed, and after many
PLAIN_WAITS = 64  # at the same time; more have to wait for their turn


class Allowance:
    """How many jobs this process may have asked for by now."""

    def __init__(self) -> None:
        self._number = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            with self._changed:
                self._number = int(line)
                self._changed.notify()
        os._exit(0)  # the harness is gone

    def wait_for(self, number: int) -> None:
        """Return once that many jobs are allowed."""
        with self._changed:
            self._changed.wait_for(lambda: self._number >= number)


class Waiting:
    """Waits for the results of jobs, plainly in threads and as coroutines, and keeps the ledger.

    It gives no timeout: a wait that does not end is for the harness to find.
    """

    def __init__(self, app: procrastinate.App, ledger: Ledger, connector: str) -> None:
        self._app, self._ledger, self._connector = app, ledger, connector
        self._threads = ThreadPoolExecutor(PLAIN_WAITS)
        self._waits: list[asyncio.Future[None]] = []

    def begin(self, n: int, job_id: int, *, plain: bool) -> None:
        """Begin to wait for a job, and return at once."""
        self._ledger.waits(n, f"{'plain' if plain else 'asynchronous'}, {self._connector}")
        if plain:
            loop = asyncio.get_running_loop()
            wait = loop.run_in_executor(self._threads, self._wait, n, job_id)
        else:
            wait = asyncio.ensure_future(self._wait_async(n, job_id))
        self._waits.append(wait)

    def _wait(self, n: int, job_id: int) -> None:
        with self._on_record(n) as told:
            told.append(self._app.wait_for(job_id))

    async def _wait_async(self, n: int, job_id: int) -> None:
        with self._on_record(n) as told:
            told.append(await self._app.wait_for_async(job_id))

    @contextmanager
    def _on_record(self, n: int) -> Iterator[list[Any]]:
        """Write what the block appends or raises into the ledger."""
        found: list[Any] = []
        try:
            yield found
        except JobUnsuccessful as exc:
            self._ledger.told(n, exc.job.status, None)
        except Exception as exc:
            print(f"waiting for {n}: {type(exc).__name__}: {exc}", flush=True)  # noqa: T201
            self._ledger.told(n, type(exc).__name__, str(exc))
        else:
            self._ledger.told(n, "succeeded", found[0])

    async def until_all_ended(self) -> None:
        """Return once no wait is left."""
        await asyncio.gather(*self._waits)


class Deferrer:
    """Defers calls one after the other, and keeps the ledger."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._ledger = Ledger(options["ledger"])
        connector = plants.deferrer_s_connector(
            options["connector"], options["dsn"], options["plant"]
        )
        self._app = procrastinate.App(connector=connector)
        self._pause = PAUSE
        self._is_async = isinstance(connector, AsyncConnector)
        self._waiting = Waiting(self._app, self._ledger, options["connector"])

    async def run(self, calls: Any, allowance: Allowance) -> None:
        """Defer everything, as it is allowed."""
        count = 0
        for specs in calls:
            count += len(specs)
            await asyncio.to_thread(allowance.wait_for, count)
            call = uuid.uuid4().hex
            self._ledger.asked(call, specs)
            await self._defer(specs)
        await self._waiting.until_all_ended()
        if self._is_async:
            await self._app.close_async()
        self._app.close()

    async def _defer(self, specs: Sequence[Spec]) -> None:
        try:
            ids = await self._call(specs)
        except AlreadyEnqueued:
            self._ledger.answered(specs, "refused", [None] * len(specs))
        except ProcrastinateException as exc:
            print(f"{type(exc).__name__}: {exc}", flush=True)  # noqa: T201
            self._ledger.answered(specs, "unknown", [None] * len(specs))
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._ledger.answered(specs, "acknowledged", ids)
            self._pause = PAUSE
            for spec, job_id in zip(specs, ids, strict=True):
                if spec.waited:
                    self._waiting.begin(spec.n, job_id, plain=not self._is_async or spec.n % 2 == 0)

    async def _call(self, specs: Sequence[Spec]) -> list[int]:
        first = specs[0]
        options: dict[str, Any] = {
            "queue": first.queue,
            "priority": first.priority,
            "lock": first.lock,
            "queueing_lock": first.queueing_lock,
        }
        if first.delay is not None:
            options["schedule_in"] = {"seconds": first.delay}
        task = self._app.configure_task(first.task, **options)
        arguments = [jobs.arguments(spec) for spec in specs]
        if self._is_async:
            await self._app.open_async()
            if len(specs) == 1:
                return [await task.defer_async(**arguments[0])]
            return await task.batch_defer_async(*arguments)
        self._app.open()
        if len(specs) == 1:
            return [task.defer(**arguments[0])]
        return task.batch_defer(*arguments)


def main() -> None:
    """Defer what the first argument describes."""
    options = json.loads(sys.argv[1])
    numbers = range(options["first"], options["first"] + options["count"])
    calls = jobs.draw(numbers, options["seed"], options["long_share"])
    asyncio.run(Deferrer(options).run(calls, Allowance()))


if __name__ == "__main__":
    main()
