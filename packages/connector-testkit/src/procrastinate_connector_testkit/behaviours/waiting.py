"""Waiting: a program is told that a job has ended, whatever happens to its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import procrastinate
from procrastinate import errors
from procrastinate.model.endings.outcome import Finished
from procrastinate.model.job import Job, Status
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.losses import terminate_all
from procrastinate_connector_testkit.driving import PATIENCE, called
from procrastinate_connector_testkit.queue import Queue
from procrastinate_connector_testkit.subject import Subject

WAITING = "waiting for jobs"
KEPT = Finished(Status.SUCCEEDED, result='{"é": [1, null]}')


class Program:
    """A program that waits for jobs, by the half of its connector that is checked."""

    def __init__(self, app: procrastinate.App, way: str) -> None:
        self._manager = app.job_manager
        self._is_async = way == "async"

    async def wait(self, job_id: int, *, timeout: float = PATIENCE) -> Job:
        """Return the job once it has ended."""
        if self._is_async:
            return await self._manager.wait_until_ended_async(job_id, timeout=timeout)
        return self._manager.wait_until_ended(job_id, timeout=timeout)


@asynccontextmanager
async def program(db: Subject) -> AsyncIterator[Program]:
    """A program with an app and a connector of its own."""
    app = procrastinate.App(connector=db.adapter.connector(db.dsn))
    is_async = db.way == "async"
    await called(app.open_async if is_async else app.open)
    try:
        yield Program(app, db.way)
    finally:
        await called(app.close_async if is_async else app.close)


async def assert_no_wait_is_left(queue: Queue) -> None:
    """Assert that the rows of waits are removed, soon."""
    sql = queue.statements.render("select count(*) = 0 from {schema}.procrastinate_waits")

    async def none_is_left() -> bool:
        return bool((await queue.db.outside(sql))[0][0])

    await queue.db.eventually("no row of a wait is left", none_is_left)


class Waiting:
    """Programs that wait, by `JobManager.wait_until_ended` and its asynchronous half."""

    @behaviour(WAITING)
    async def test_waiting_looks_at_once(self, db: Subject, queue: Queue) -> None:
        """What has ended is returned without a wait; what has not is not waited for in vain."""
        ended, waiting = await queue.defer(), await queue.defer()
        worker = await queue.worker()
        await queue.finish(worker, await queue.claim_one(worker), ending=KEPT)
        async with program(db) as outside:
            job = await outside.wait(ended, timeout=0)
            assert (job.id, job.status, job.result) == (ended, "succeeded", {"é": [1, None]})
            with pytest.raises(TimeoutError):
                await outside.wait(waiting, timeout=0)
            with pytest.raises(errors.JobNotFound):
                await outside.wait(2**62, timeout=0)
        await assert_no_wait_is_left(queue)

    @behaviour(WAITING)
    async def test_waiting_ends_with_the_last_attempt(self, db: Subject, queue: Queue) -> None:
        """Several wait, for several jobs. A retry in between is no end."""
        jobs = [await queue.defer(), await queue.defer()]
        worker = await queue.worker()

        async def run_them() -> None:
            first, second = (await queue.claim(worker)).jobs
            await queue.retry(worker, first)
            again = await queue.claim_one(worker)
            await queue.finish(worker, again, ending=KEPT)
            await queue.finish(worker, second, ending=Finished(Status.FAILED))

        found: list[Any]
        async with program(db) as outside:
            found = await db.together(
                outside.wait(jobs[0]), outside.wait(jobs[0]), outside.wait(jobs[1]), run_them()
            )
        one, two, three, _ = found
        assert one == two
        assert (one.status, one.attempts, one.result) == ("succeeded", 2, {"é": [1, None]})
        assert (three.id, three.status, three.has_result) == (jobs[1], "failed", False)
        await assert_no_wait_is_left(queue)

    @behaviour(WAITING)
    async def test_waiting_ends_if_the_job_is_removed(self, db: Subject, queue: Queue) -> None:
        """It tells that nothing is known of the job any more, or not yet."""
        job_id = await queue.defer()

        async def wait() -> None:
            with pytest.raises((errors.ResultLost, errors.JobNotFound)):
                await outside.wait(job_id)

        async with program(db) as outside:
            await db.together(wait(), queue.cancel(job_id, delete=True))

    @behaviour(6, 7, WAITING)
    async def test_waiting_outlives_its_connections(self, db: Subject, queue: Queue) -> None:
        """All connections are ended by the server while a caller waits."""
        before, job_id = await queue.defer(), await queue.defer()
        worker = await queue.worker()
        first, second = (await queue.claim(worker)).jobs

        async def end() -> None:
            await queue.finish(worker, first)
            await begun.wait()
            await terminate_all(db)
            await queue.finish(worker, second, ending=KEPT)

        async def wait() -> Job:
            await outside.wait(before)  # on connections that it has from now on
            begun.set()
            return await outside.wait(job_id)

        begun = db.signal()
        found: list[Any]
        async with program(db) as outside:
            found = await db.together(wait(), end())
        job = found[0]
        assert (job.id, job.status, job.result) == (job_id, "succeeded", {"é": [1, None]})
