"""Nothing that a job does keeps its slot, loses its ending, or ends the worker.

Each case runs one nasty job, then an innocent one in the same and only slot, then stops the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import nasty
import pytest

import procrastinate
from procrastinate.model.job import Job, Status
from procrastinate.testing import InMemoryConnector

KINDS = ("async def", "thread")
LIMIT = 10.0  # seconds for anything here

Trap = Callable[..., Any]


class Bench:
    """An app in memory with an innocent task, and a worker with one slot."""

    def __init__(self) -> None:
        self.app = procrastinate.App(connector=InMemoryConnector())
        self.innocent = self.app.task(name="innocent")(_innocent)
        self.options: dict[str, Any] = {}
        self.before: list[Job] = []

    def nasty(self, kind: str, function: Trap, **options: Any) -> Any:
        """A task of this kind that calls a function."""
        if kind == "thread":
            return self.app.task(name="nasty", **options)(lambda **given: function(**given))

        async def on_loop(**given: Any) -> Any:
            return function(**given)

        return self.app.task(name="nasty", **options)(on_loop)

    async def run(self, task: Any, **arguments: Any) -> Job:
        """Run the nasty job and an innocent one, stop the worker; return the nasty job's end."""
        async with self.app.open_async(), self.worker():
            job = await self.ended(await task.defer_async(**arguments))
            innocent = await self.ended(await self.innocent.defer_async())
        assert innocent.status is Status.SUCCEEDED
        return job

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        running = asyncio.create_task(
            self.app.run_worker_async(
                **{"install_signal_handlers": False, "concurrency": 1, **self.options}
            )
        )
        try:
            yield
            assert not running.done()
        finally:
            running.cancel()
            async with asyncio.timeout(LIMIT):
                await asyncio.wait([running])
        assert running.cancelled() or running.exception() is None

    async def ended(self, job_id: int) -> Job:
        deadline = time.monotonic() + LIMIT
        while True:
            job = await self.app.job_manager.get_job_async(job_id)
            if job.status.is_final:
                return job
            assert time.monotonic() < deadline, f"job {job_id} is {job.status} for ever"
            await asyncio.sleep(0.001)


def _innocent() -> None: ...


@pytest.fixture
def bench() -> Bench:
    return Bench()


def raising(make: Callable[[], BaseException]) -> Trap:
    def function(**_: Any) -> None:
        raise make()

    return function


# What a task raises


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", nasty.EXCEPTIONS.values(), ids=nasty.EXCEPTIONS)
async def test_whatever_a_task_raises_ends_its_job(
    bench: Bench, kind: str, make: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    job = await bench.run(bench.nasty(kind, raising(make)))

    assert job.status is Status.FAILED
    (error,) = job.errors
    assert error["attempt"] == 1
    assert error["type"]
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.message.startswith(f"nasty[{job.id}]() failed: ")
    shown = logging.Formatter().format(record)
    assert len(record.message) < 2_500
    assert len(shown) < 15_000
    assert "\x1b" not in shown
    assert all(line.startswith("  ") for line in shown.splitlines()[1:])
