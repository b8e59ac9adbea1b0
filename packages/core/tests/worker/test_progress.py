"""How far running jobs say that they are: from the task to those who look."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import procrastinate
from procrastinate import JobContext, Progress, Status
from procrastinate.drive import Flow, Request
from procrastinate.errors import ConnectionFailed, ConnectionLost, InvalidData
from procrastinate.model.job import Job
from procrastinate.model.partitions import MANY, ONE, VALUES, Partitions
from procrastinate.model.progress import Report
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.running.attempt import Attempt
from procrastinate.worker.running.progress import Reports

QUICK = {"update_heartbeat_interval": 0.1, "stalled_worker_timeout": 0.5}


# What the worker collects, without a database


class Counted:
    """A worker's calls to the database: they are noted, and may fail."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.fails: Exception | None = None
        self.asked = asyncio.Event()

    async def run_async(self, flow: Flow[Any], **options: Any) -> None:
        for request in flow:
            self.requests.append(request)
        self.asked.set()
        if self.fails is not None:
            raise self.fails

    def taken(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what was asked for since the last time."""
        taken = [(each.name, dict(each.params)) for each in self.requests]
        self.requests.clear()
        return taken


class Scene:
    """Attempts that run, and their reports."""

    def __init__(self, partitions: Partitions = ONE) -> None:
        self.calls = Counted()
        calls = cast(Any, self.calls)
        self.running: dict[int, Attempt] = {}
        self.reports = Reports(
            calls,
            7,
            Places(partitions),
            Outages(calls, partitions),
            running=lambda: self.running,
        )

    def begins(self, job_id: int, lease: int = 1) -> Attempt:
        job = Job(job_id, Status.DOING, "default", "task", {}, lease=lease)
        attempt = Attempt(job, cast(Any, None))
        attempt.context = cast(Any, SimpleNamespace(job=job))
        self.running[job_id] = attempt
        return attempt

    def ends(self, attempt: Attempt) -> None:
        attempt.over = True
        del self.running[attempt.job_id]

    def say(self, attempt: Attempt, millionths: int) -> None:
        assert attempt.context is not None
        self.reports.say(attempt.context, Report(millionths, None, None, 0.0))

    async def round(self) -> dict[str, dict[int, int]]:
        """Do a round; return by statement what it said of each job: its millionths, or lease."""
        await self.reports.round()
        return {
            name: dict(zip(params["ids"], params.get("millionths", params["leases"]), strict=True))
            for name, params in self.calls.taken()
        }


async def test_all_that_a_thousand_jobs_say_in_a_second_is_one_statement() -> None:
    scene = Scene()
    attempts = [scene.begins(n) for n in range(1, 1_001)]
    for millionths in range(100):
        for attempt in attempts:
            scene.say(attempt, millionths)

    assert await scene.round() == {"report_progress": dict.fromkeys(range(1, 1_001), 99)}
    assert await scene.round() == {}

    for attempt in attempts:
        scene.ends(attempt)
    assert await scene.round() == {"forget_progress": dict.fromkeys(range(1, 1_001), 1)}
    assert await scene.round() == {}


async def test_with_many_partitions_it_is_one_statement_in_each_that_is_concerned() -> None:
    scene = Scene(Partitions(MANY, boundary_id=0))
    for n in range(64, 64 + 3 * MANY):
        if n % MANY < 2:
            scene.say(scene.begins(n), n)
    await scene.reports.round()
    asked = [
        (name, params["partition"], sorted(params["ids"])) for name, params in scene.calls.taken()
    ]
    expected = [(VALUES[k], [64 + k, 128 + k, 192 + k]) for k in (0, 1)]
    assert asked == [("report_progress", *each) for each in sorted(expected)]


async def test_what_is_said_after_the_end_is_dropped() -> None:
    scene = Scene()
    attempt = scene.begins(1)
    scene.say(attempt, 5)
    scene.ends(attempt)
    assert await scene.round() == {}
    scene.say(attempt, 6)
    assert await scene.round() == {}


async def test_an_attempt_that_is_over_does_not_speak_for_the_next_one() -> None:
    scene = Scene()
    first = scene.begins(1)
    scene.say(first, 5)
    await scene.round()
    scene.ends(first)
    second = scene.begins(1, lease=2)
    scene.say(first, 6)
    assert await scene.round() == {"forget_progress": {1: 1}}
    scene.say(second, 7)
    assert await scene.round() == {"report_progress": {1: 7}}


async def test_an_attempt_that_goes_on_under_another_claim_speaks_for_that() -> None:
    scene = Scene()
    attempt = scene.begins(1)
    scene.say(attempt, 5)
    await scene.round()
    attempt.job = Job(1, Status.DOING, "default", "task", {}, lease=3)
    scene.say(attempt, 6)
    await scene.reports.round()
    ((_, params),) = scene.calls.taken()
    assert (params["leases"], params["millionths"]) == ([3], [6])
    scene.ends(attempt)
    assert await scene.round() == {"forget_progress": {1: 3}}


async def test_what_could_not_be_written_is_tried_again_unless_there_is_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    first, second, gone = scene.begins(1), scene.begins(2), scene.begins(3)
    scene.say(gone, 1)
    await scene.round()
    scene.ends(gone)
    scene.calls.fails = ConnectionFailed("away")
    scene.say(first, 5)
    scene.say(second, 5)
    both = {"report_progress": {1: 5, 2: 5}, "forget_progress": {3: 1}}
    assert await scene.round() == both
    scene.say(second, 6)
    scene.calls.fails = None
    assert await scene.round() == {
        "report_progress": {1: 5, 2: 6},
        "forget_progress": {3: 1},
    }
    assert await scene.round() == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_what_the_server_refuses_is_not_tried_again() -> None:
    scene = Scene()
    scene.calls.fails = InvalidData("no")
    scene.say(scene.begins(1), 5)
    await scene.round()
    scene.calls.fails = None
    assert await scene.round() == {}


async def test_whatever_a_write_raises_the_rounds_go_on() -> None:
    scene = Scene()
    scene.calls.fails = RuntimeError("unforeseen")
    attempt = scene.begins(1)
    scene.say(attempt, 5)
    assert await scene.reports.round() is False


async def test_all_is_forgotten_when_the_worker_leaves() -> None:
    scene = Scene()
    attempt = scene.begins(1)
    scene.say(attempt, 5)
    await scene.round()
    scene.say(attempt, 6)
    await scene.reports.leave()
    assert [name for name, _ in scene.calls.taken()] == ["forget_progress"]


async def test_a_worker_that_leaves_tries_once_more_to_forget_all() -> None:
    scene = Scene()
    attempt = scene.begins(1)
    scene.say(attempt, 5)
    await scene.round()
    scene.calls.fails = ConnectionLost("cut")
    leaving = asyncio.create_task(scene.reports.leave())
    scene.calls.asked.clear()
    async with asyncio.timeout(60):
        await scene.calls.asked.wait()
    scene.calls.fails = None
    await leaving
    assert [name for name, _ in scene.calls.taken()] == ["forget_progress"] * 2
    assert await scene.round() == {}


async def test_the_first_report_of_a_thread_wakes_the_loop() -> None:
    scene = Scene()
    attempt = scene.begins(1)
    running = asyncio.create_task(scene.reports.run())
    await asyncio.sleep(0)  # it sleeps now
    thread = threading.Thread(target=scene.say, args=[attempt, 5])
    thread.start()
    async with asyncio.timeout(60):
        await scene.calls.asked.wait()
    thread.join()
    running.cancel()
    ((name, params),) = scene.calls.taken()
    assert (name, params["millionths"]) == ("report_progress", [5])


# What people see


class Halfway:
    """A task that reports and then waits for the test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, context: JobContext) -> None:
        context.progress(0.4, "page 4", pages=[1, 2])
        assert self.go_on.wait(60)


async def seen(app: procrastinate.App, job_id: int) -> Progress:
    """Return the progress of a job once it can be seen."""
    async with asyncio.timeout(60):
        while True:
            job = await app.job_manager.get_job_async(job_id)
            if job.progress is not None:
                return job.progress
            await asyncio.sleep(0.02)


async def test_a_running_job_shows_its_progress_until_its_end(
    any_app: procrastinate.App,
) -> None:
    halfway = Halfway()
    task = any_app.task(name="halfway", pass_context=True)(halfway)
    job_id = await task.defer_async()
    worker = asyncio.create_task(any_app.run_worker_async(wait=False))

    progress = await seen(any_app, job_id)
    assert (progress.fraction, progress.message) == (0.4, "page 4")
    assert progress.data == {"pages": [1, 2]}
    (job,) = await any_app.job_manager.list_jobs_async()
    assert job.progress == progress
    assert job.started_at is not None
    assert progress.updated_at is not None
    assert progress.updated_at >= job.started_at
    assert (await any_app.job_manager.get_job_async(job_id)).progress == progress

    halfway.go_on.set()
    await worker
    job = await any_app.job_manager.get_job_async(job_id)
    assert (job.status, job.progress) == (Status.SUCCEEDED, None)


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_a_report_that_is_refused_fails_the_attempt(
    any_app: procrastinate.App, kind: str
) -> None:
    @any_app.task(name="function", pass_context=True)
    def function(context: JobContext) -> None:
        context.progress(2)

    @any_app.task(name="coroutine", pass_context=True)
    async def coroutine(context: JobContext) -> None:
        context.progress(2)

    job_id = await any_app.configure_task(kind).defer_async()
    await any_app.run_worker_async(wait=False)
    (error,) = (await any_app.job_manager.get_job_async(job_id)).errors
    assert error["type"] == "procrastinate.errors.InvalidOption"


async def test_no_row_is_left_of_jobs_that_ended_nor_of_a_worker_that_died(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    halfway = Halfway()
    task = app.task(name="halfway", pass_context=True)(halfway)
    job_id = await task.defer_async()
    query(
        "insert into procrastinate_progress (job_id, partition, lease, fraction)"
        " values (999999, 0, 1, 0.5)"
    )
    async with working(app, **QUICK):
        left = "select job_id, fraction::text from procrastinate_progress"
        await until(lambda: query(left) == [(job_id, "0.4")])
        halfway.go_on.set()
    assert query(left) == []


async def test_only_the_worker_that_holds_a_job_can_say_how_far_it_is(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    """One that was taken away is another worker's to speak for."""
    may_speak, may_end = threading.Event(), threading.Event()

    @app.task(name="two", pass_context=True)
    def two(context: JobContext, which: str) -> None:
        assert may_speak.wait(60)
        context.progress(0.5)
        assert may_end.wait(60)

    lost, kept = await two.batch_defer_async({"which": "lost"}, {"which": "kept"})
    async with working(app, concurrency=2):
        status = "select count(*) from procrastinate_jobs where status = 'doing'"
        await until(lambda: query(status) == [(2,)])
        query("update procrastinate_jobs set lease = 5 where id = %s", lost)
        may_speak.set()
        shown = "select job_id, lease from procrastinate_progress"
        await until(lambda: (kept, 1) in query(shown))
        assert query(shown) == [(kept, 1)]
        query("update procrastinate_jobs set lease = 1 where id = %s", lost)
        may_end.set()


async def test_a_job_is_read_where_its_progress_cannot_be(
    app: procrastinate.App, working: Callable[..., Any], query: Callable[..., Any]
) -> None:
    """On a standby, or without the right to; and the caller's transaction stays usable."""
    halfway = Halfway()
    task = app.task(name="halfway", pass_context=True)(halfway)
    job_id = await task.defer_async()
    async with working(app):
        await seen(app, job_id)
        query("alter table procrastinate_progress rename to hidden")
        try:
            job = await app.job_manager.get_job_async(job_id)
            jobs = await app.job_manager.list_jobs_async()
        finally:
            query("alter table hidden rename to procrastinate_progress")
            halfway.go_on.set()
    assert (job.status, job.progress) == (Status.DOING, None)
    assert [each.progress for each in jobs] == [None]


def test_a_report_of_a_context_without_a_worker_is_checked_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    job = Job(1, Status.DOING, "default", "task", {})
    context = JobContext(app, "worker", job, cast(Any, None), 0.0)
    context.progress(0.5)
    with pytest.raises(procrastinate.InvalidOption):
        context.progress(-1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
