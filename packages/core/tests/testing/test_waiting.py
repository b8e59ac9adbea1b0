"""Waiting in memory: it runs what is due, and time passes as the clock says."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import JobFailed
from procrastinate.observing import WorkerStarted
from procrastinate.testing import InMemoryConnector, in_memory

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Shop:
    def __init__(self) -> None:
        self.connector = InMemoryConnector()
        self.app = procrastinate.App(connector=self.connector)
        self.did: list[object] = []

        @self.app.task(name="say", result=True)
        def say(what: object) -> object:
            self.did.append(what)
            return what

        self.say = say

    @property
    def clock(self) -> Any:
        return self.connector.clock


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_waiting_runs_all_that_is_due(shop: Shop) -> None:
    shop.say.defer(what=1)
    job_id = shop.say.defer(what=2)
    shop.say.configure(queue="other").defer(what=3)
    assert shop.say.wait_for(job_id) == 2
    assert shop.did == [1, 2, 3]


def test_waiting_for_what_has_ended_runs_nothing(shop: Shop) -> None:
    job_id = shop.say.defer(what=1)
    shop.say.wait_for(job_id)
    shop.say.defer(what=2)
    assert shop.say.wait_for(job_id) == 1
    assert shop.did == [1]


def test_plain_tasks_run_in_the_thread_that_waits(shop: Shop) -> None:
    @shop.app.task(name="where", result=True)
    def where() -> int:
        return threading.get_ident()

    assert where.call() == threading.get_ident()


def test_what_other_jobs_raise_is_theirs(shop: Shop) -> None:
    @shop.app.task(name="fail", priority=1)
    def fail() -> None:
        raise ValueError

    failed = fail.defer()
    assert shop.say.call(what=1) == 1
    assert shop.app.job_manager.get_job_status(failed) == "failed"


@pytest.mark.parametrize("timeout", [None, 100_000])
def test_while_the_clock_stands_a_scheduled_job_cannot_end(
    shop: Shop, timeout: float | None
) -> None:
    shop.clock.freeze(NOON)
    job_id = shop.say.configure(schedule_in={"hours": 1}).defer(what=1)
    with pytest.raises(TimeoutError, match=rf"job {job_id} cannot end.*T13:00.*stands at .*T12:00"):
        shop.say.wait_for(job_id, timeout=timeout)
    shop.clock.move(hours=1)
    assert shop.say.wait_for(job_id, timeout=timeout) == 1


async def test_a_coroutine_is_told_so_too(shop: Shop) -> None:
    shop.clock.freeze(NOON)
    with pytest.raises(TimeoutError, match="the clock stands"):
        await shop.say.configure(schedule_in={"hours": 1}).call_async(what=1)


def test_a_job_that_is_due_after_the_timeout_is_not_waited_for(shop: Shop) -> None:
    job_id = shop.say.configure(schedule_in={"days": 1}).defer(what=1)
    with pytest.raises(TimeoutError, match=f"job {job_id} has not ended within 3600 s"):
        shop.say.wait_for(job_id, timeout=timedelta(hours=1))


def test_a_job_that_becomes_due_in_time_is_run_then(shop: Shop) -> None:
    job_id = shop.say.configure(schedule_in={"milliseconds": 30}).defer(what=1)
    assert shop.say.wait_for(job_id, timeout=60) == 1


def test_retries_do_not_end_a_wait(shop: Shop) -> None:
    left = [ValueError("one"), ValueError("two")]

    @shop.app.task(name="flaky", retry=2, result=True)
    def flaky() -> str:
        if left:
            raise left.pop()
        return "done"

    assert flaky.call() == "done"


def test_what_runs_elsewhere_is_waited_for(shop: Shop) -> None:
    began, go_on = threading.Event(), threading.Event()

    @shop.app.task(name="slow", result=True)
    def slow() -> str:
        began.set()
        assert go_on.wait(60)
        return "done"

    job_id = slow.defer()
    other = threading.Thread(target=shop.app.wait_for, args=[job_id])
    other.start()
    assert began.wait(60)
    with pytest.raises(TimeoutError):
        slow.wait_for(job_id, timeout=0.01)
    go_on.set()
    assert slow.wait_for(job_id, timeout=60) == "done"
    other.join(60)


def test_a_task_may_wait_for_what_it_has_deferred(shop: Shop) -> None:
    @shop.app.task(name="outer", result=True)
    def outer() -> object:
        return shop.say.call(what="inner", allow_in_worker=True)

    @shop.app.task(name="outer_async", result=True)
    async def outer_async() -> object:
        return await shop.say.call_async(what="inner", allow_in_worker=True)

    assert [outer.call(), outer_async.call()] == ["inner", "inner"]


async def test_a_task_may_wait_so_on_the_loop_of_the_test(shop: Shop) -> None:
    @shop.app.task(name="outer", result=True)
    async def outer() -> object:
        return await shop.say.call_async(what="inner", allow_in_worker=True)

    assert await outer.call_async() == "inner"


class Workers(procrastinate.Observer):
    """Counts workers."""

    count = 0

    def on_worker_started(self, event: WorkerStarted) -> None:
        self.count += 1


async def test_coroutines_that_begin_to_wait_together_have_one_worker(shop: Shop) -> None:
    workers = Workers()
    app = shop.app.with_connector(shop.connector, observers=[workers])
    ids = [await shop.say.defer_async(what=n) for n in range(50)]

    assert await asyncio.gather(*map(app.wait_for_async, ids)) == list(range(50))
    assert workers.count == 1

    await app.wait_for_async(await shop.say.defer_async(what="alone"))
    assert workers.count == 2


async def test_jobs_that_are_waited_for_together_run_together(shop: Shop) -> None:
    all_here = asyncio.Barrier(3)

    @shop.app.task(name="meet", result=True)
    async def meet() -> int:
        return await all_here.wait()

    calls = (meet.call_async() for _ in range(3))
    assert sorted(await asyncio.gather(*calls)) == [0, 1, 2]


async def test_a_wait_that_is_cancelled_leaves_the_others_their_worker(shop: Shop) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @shop.app.task(name="stay", result=True)
    async def stay() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    job_id = await stay.defer_async()
    first, second = (asyncio.create_task(stay.wait_for_async(job_id)) for _ in range(2))
    await begun.wait()
    first.cancel()
    await asyncio.wait([first])
    go_on.set()
    assert await second == "done"
    assert first.cancelled()


def test_an_app_on_the_synchronous_half_waits_too(shop: Shop) -> None:
    sync_app = shop.app.with_connector(shop.connector.sync_connector())
    assert sync_app.configure_task("say").call(what=1) == 1
    assert sync_app.wait_for(shop.say.defer(what=2)) == 2
    assert shop.did == [1, 2]


def test_an_app_that_was_put_into_memory_waits_there() -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(host="nowhere"))

    @app.task(name="say", result=True)
    def say(what: int) -> int:
        if what < 0:
            raise ValueError
        return what

    with in_memory(app):
        configured = say.configure(priority=1)
        assert configured.call(what=1) == 1
        with pytest.raises(JobFailed):
            say.call(what=-1)
    with in_memory(app) as again:
        assert configured.call(what=2) == 2  # in the memory that it was made for
        assert again.jobs == []


def test_an_app_that_nobody_else_holds_waits_too() -> None:
    connector = InMemoryConnector()
    deferrer = procrastinate.App(connector=connector).configure_task("unknown")
    with pytest.raises(JobFailed, match="TaskNotFound"):
        deferrer.call()
