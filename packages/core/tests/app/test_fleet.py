"""The job manager's lists of workers and schedules, in memory and on a database."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.model.monitoring.fleet import ScheduleInfo
from procrastinate.storage import workers as flows
from procrastinate.testing import InMemoryConnector

NewApp = Callable[[], procrastinate.App]


@pytest.fixture(params=["memory", "database"])
def new_app(request: pytest.FixtureRequest) -> NewApp:
    """Return a function that makes apps without tasks, all on the same database."""
    if request.param == "memory":
        connector = InMemoryConnector()
        return lambda: procrastinate.App(connector=connector)
    dsn = request.getfixturevalue("dsn")
    return lambda: procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))


@pytest.fixture
async def app(new_app: NewApp) -> AsyncIterator[procrastinate.App]:
    async with new_app().open_async() as app:
        yield app


async def run(app: procrastinate.App, flow: Any) -> Any:
    return await app._gateway.run_async(flow)


async def test_a_worker_says_what_it_is(app: procrastinate.App) -> None:
    about = flows.About("host", 7, ("odd \\ \"name'", "é"), 4711, "4.5", ("mail", 'a,b{}"', "NULL"))
    worker_id = await run(app, flows.register_worker("till", about))
    other_id = await run(app, flows.register_worker("other"))
    worker, other = await app.job_manager.list_workers_async()
    assert (worker.id, other.id) == (worker_id, other_id)
    assert (worker.name, worker.host, worker.pid, worker.version, worker.concurrency) == (
        *("till", "host", 4711, "4.5", 7),
    )
    assert worker.queues == ("mail", 'a,b{}"', "NULL")
    assert worker.task_names == ("odd \\ \"name'", "é")
    assert (worker.busy, worker.trusted, worker.blocked_since) == (None, None, None)
    assert (other.host, other.queues, other.task_names) == (None, None, None)
    assert worker.started_at == worker.last_heartbeat <= datetime.now(UTC) + timedelta(minutes=1)
    assert worker.started_at.tzinfo is UTC
    assert 0 <= worker.seconds_since_heartbeat < 60


async def test_a_sign_of_life_says_how_a_worker_is(app: procrastinate.App) -> None:
    worker_id = await run(app, flows.register_worker("till"))
    bad = flows.Condition(busy=3, blocked_for=12.5, trusted=False)
    await run(app, flows.heartbeat(worker_id, "till", timeout_us=10**9, condition=bad))
    (worker,) = await app.job_manager.list_workers_async()
    assert (worker.busy, worker.trusted) == (3, False)
    assert worker.blocked_since == worker.last_heartbeat - timedelta(seconds=12.5)
    good = flows.Condition(busy=0, trusted=True)
    await run(app, flows.heartbeat(worker_id, "till", timeout_us=10**9, condition=good))
    (worker,) = await app.job_manager.list_workers_async()
    assert (worker.busy, worker.trusted, worker.blocked_since) == (0, True, None)


async def work_once(app: procrastinate.App) -> None:
    async with app.open_async():
        await app.run_worker_async(wait=False, install_signal_handlers=False)


async def test_schedules_show_without_their_code(app: procrastinate.App, new_app: NewApp) -> None:
    every_minute = new_app()

    @every_minute.periodic(cron="*/5 * * * *", periodic_id="a", timezone="Europe/Berlin")
    @every_minute.periodic(cron="@daily", periodic_id="b", queue="night")
    @every_minute.task(name="report", queue="reports")
    def report(timestamp: int) -> None: ...

    await work_once(every_minute)
    before = await app.job_manager.list_schedules_async()
    assert [(each.periodic_id, each.cron, each.timezone, each.queue) for each in before] == [
        ("a", "*/5 * * * *", "Europe/Berlin", "reports"),
        ("b", "@daily", "UTC", "night"),
    ]
    assert {each.task_name for each in before} == {"report"}
    for each in before:
        assert each.next_tick is not None
        assert timedelta(0) < each.next_tick - each.done_until <= timedelta(days=1)


async def test_a_schedule_that_was_changed_is_shown_as_it_is_now(
    app: procrastinate.App, new_app: NewApp
) -> None:
    for cron in ("0 4 * * *", "30 4 * * *"):
        changed = new_app()

        @changed.periodic(cron=cron)
        @changed.task(name="report")
        def report(timestamp: int) -> None: ...

        await work_once(changed)
        (schedule,) = await app.job_manager.list_schedules_async()
        assert schedule.cron == cron


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [(None, "UTC"), ("0 4 * * *", None), ("every day", "UTC"), ("0 4 * * *", "Nowhere/Land")],
)
def test_the_next_tick_of_a_schedule_that_cannot_be_read_is_unknown(
    cron: str | None, timezone: str | None
) -> None:
    now = datetime.now(UTC)
    schedule = ScheduleInfo("t", "", cron, timezone, "default", now, None, None, now)
    assert schedule.next_tick is None


def test_a_schedule_is_late_two_minutes_after_a_tick_that_nobody_has_settled() -> None:
    done = datetime(2026, 1, 1, 4, tzinfo=UTC)
    schedule = ScheduleInfo("t", "", "0 5 * * *", "UTC", "default", done, None, None, done)
    tick = datetime(2026, 1, 1, 5, tzinfo=UTC)

    assert schedule.next_tick == tick
    assert not schedule.is_late(tick + timedelta(minutes=2))
    assert schedule.is_late(tick + timedelta(minutes=2, seconds=1))


async def test_a_running_worker_says_how_busy_it_is(
    dsn: str, until: Callable[..., Any], working: Callable[..., Any]
) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn)
    app = procrastinate.App(connector=connector)
    go_on = threading.Event()

    @app.task
    def wait_in_thread() -> None:
        go_on.wait(60)

    async with (
        app.open_async(),
        working(app, concurrency=3, queues=["default"], update_heartbeat_interval=0.1),
    ):
        await asyncio.gather(wait_in_thread.defer_async(), wait_in_thread.defer_async())
        found: list[procrastinate.WorkerInfo] = []

        async def look() -> None:
            while not found or found[-1].busy != 2:
                found[:] = await app.job_manager.list_workers_async()
                await asyncio.sleep(0.02)

        try:
            await asyncio.wait_for(look(), 30)
        finally:
            go_on.set()
        (worker,) = found
        assert (worker.host, worker.pid) == (socket.gethostname(), os.getpid())
        assert (worker.concurrency, worker.queues, worker.trusted) == (3, ("default",), True)
        assert worker.task_names is not None
        assert wait_in_thread.name in worker.task_names


def test_plain_code_reads_the_same(sync_app: procrastinate.App) -> None:
    sync_app._gateway.run(flows.register_worker("till"))
    assert [each.name for each in sync_app.job_manager.list_workers()] == ["till"]
    assert sync_app.job_manager.list_schedules() == []
