"""A network that swallows everything: what a worker does on connections that fall silent.

The times are shortened, in the same proportions as in life: a beat each second, 4 seconds without
one until a worker is taken for dead, 1.5 seconds for a call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from silence import SilentProxy

import procrastinate
from procrastinate import Status
from procrastinate.drive import Limit
from procrastinate.worker import registration
from procrastinate.worker.database import calls, line
from procrastinate.worker.helpers import listener

OPTIONS = {
    "update_heartbeat_interval": 1.0,
    "stalled_worker_timeout": 4.0,
    "fetch_job_polling_interval": 0.2,
    "abort_job_polling_interval": 0.5,
}
CALL = Limit(server=1.0, client=1.5)
LOST, BACK = "claims no more jobs", "claims jobs again"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calls, line, registration):
        monkeypatch.setattr(module, "CALL", CALL)


@pytest.fixture
def proxy(dsn: str) -> Iterator[SilentProxy]:
    with SilentProxy(dsn) as proxy:
        yield proxy


@asynccontextmanager
async def working_behind(
    proxy: SilentProxy, app: procrastinate.App, **options: Any
) -> AsyncIterator[None]:
    """A worker of the app whose connections lead through the proxy."""
    connector = procrastinate.AiopgConnector(dsn=proxy.dsn)
    behind = app.with_connector(connector)
    async with behind.open_async(), behind.worker(**OPTIONS | options):
        yield


async def is_done(app: procrastinate.App, job_id: int) -> bool:
    job = await app.job_manager.get_job_async(job_id)
    return job.status is Status.SUCCEEDED


async def done_after(app: procrastinate.App, job_id: int) -> float:
    """Wait until a job has succeeded, and return how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while not await is_done(app, job_id):
            await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
def noop(app: procrastinate.App) -> Any:
    @app.task(name="noop")
    async def noop() -> None: ...

    return noop


async def test_a_worker_gets_over_the_silence_of_all_that_it_had_open(
    app: procrastinate.App, noop: Any, proxy: SilentProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Trust is never lost, because the beat has a connection again before that."""
    caplog.set_level(logging.INFO)
    async with working_behind(proxy, app, stalled_worker_timeout=10.0):
        await done_after(app, await noop.defer_async())
        proxy.hush()
        await done_after(app, await noop.defer_async())
        await asyncio.sleep(2 * OPTIONS["update_heartbeat_interval"])
        await done_after(app, await noop.defer_async())

    assert LOST not in caplog.text


async def test_ticks_go_on_after_the_silence_of_all_that_was_open(
    app: procrastinate.App, proxy: SilentProxy, query: Callable[..., Any]
) -> None:
    @app.periodic(cron="* * * * * *")
    @app.task(name="secondly", queue="nobody's")
    def secondly(timestamp: int) -> None: ...

    def ticks() -> int:
        ((count,),) = query("select count(*) from procrastinate_jobs")
        return int(count)

    async def ticks_within(seconds: float, more: int) -> None:
        async with asyncio.timeout(seconds):
            before = ticks()
            while ticks() < before + more:
                await asyncio.sleep(0.05)

    async with working_behind(proxy, app, queues=["mine"]):
        await ticks_within(10, 1)
        proxy.hush()
        await ticks_within(20, 2)


async def test_nothing_is_claimed_in_a_silence_that_lasts_and_soon_after_it(
    app: procrastinate.App, noop: Any, proxy: SilentProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with working_behind(proxy, app):
        await done_after(app, await noop.defer_async())
        proxy.hush(new=True)
        async with asyncio.timeout(20):
            while LOST not in caplog.text:
                await asyncio.sleep(0.05)
        job_id = await noop.defer_async()
        await asyncio.sleep(3)
        job = await app.job_manager.get_job_async(job_id)
        assert (job.status, job.attempts) == (Status.TODO, 0)
        proxy.speak()
        await done_after(app, job_id)

    lines = [text for text in caplog.messages if LOST in text or BACK in text]
    assert [LOST in text for text in lines] == [True, False], lines


async def test_a_silent_listener_is_noticed(
    app: procrastinate.App, noop: Any, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PROBE_EVERY", 0.3)
    monkeypatch.setattr(listener, "PROBE_MAY_TAKE", 0.3)
    async with working_behind(
        proxy, app, fetch_job_polling_interval=60.0, abort_job_polling_interval=60.0
    ):
        await done_after(app, await noop.defer_async())
        proxy.hush()
        assert await done_after(app, await noop.defer_async()) < 15.0
        await asyncio.sleep(0.5)  # it listens again, and is woken
        assert await done_after(app, await noop.defer_async()) < 15.0


async def test_a_listener_is_doubted_when_another_connection_is_silent(
    app: procrastinate.App, noop: Any, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a minute later: until then each job would wait for the next poll."""
    monkeypatch.setattr(listener, "PROBE_MAY_TAKE", 0.5)
    async with working_behind(proxy, app, fetch_job_polling_interval=4.0):
        await done_after(app, await noop.defer_async())
        proxy.hush()
        await done_after(app, await noop.defer_async())  # by the next poll
        await asyncio.sleep(2.5)  # for the probe, and LISTEN
        took = [await done_after(app, await noop.defer_async()) for _ in range(3)]
    assert min(took) < 2.0, "it is found by polling alone"


async def test_a_worker_stops_while_nothing_answers(
    app: procrastinate.App, noop: Any, proxy: SilentProxy
) -> None:
    """With no job running; the time is that of the last calls, each with its limit."""
    async with working_behind(proxy, app):
        await done_after(app, await noop.defer_async())
        proxy.hush(new=True)
        await asyncio.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 20.0


# --- what running jobs are told ------------------------------------------------------------------


async def test_a_running_job_is_told_that_its_lease_is_doubtful_as_long_as_it_is(
    app: procrastinate.App, proxy: SilentProxy, until: Callable[..., Any]
) -> None:
    told: list[procrastinate.AbortReason | None] = []

    @app.task(name="asking", pass_context=True)
    def asking(context: procrastinate.JobContext) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            reason = context.abort_reason()
            assert context.should_abort() is (reason is not None)
            if not told or told[-1] is not reason:
                told.append(reason)
            if len(told) == 3:
                return
            time.sleep(0.01)

    async with working_behind(proxy, app):
        job_id = await asking.defer_async()
        await until(lambda: told)
        proxy.hush(new=True)
        await until(lambda: len(told) == 2, 20)
        proxy.speak()
        await done_after(app, job_id)

    assert told == [None, procrastinate.AbortReason.LEASE_DOUBTFUL, None]


async def test_what_raises_while_its_lease_is_doubtful_goes_back_to_the_queue(
    app: procrastinate.App, proxy: SilentProxy, until: Callable[..., Any]
) -> None:
    """And what returns is written, because the job is still this worker's."""
    runs: list[str] = []
    told: list[str] = []

    @app.task(name="doubting", pass_context=True)
    def doubting(context: procrastinate.JobContext, how: str) -> None:
        first = how not in runs
        runs.append(how)
        while first and not context.should_abort():
            time.sleep(0.01)
        told.append(how)
        if first and how == "raises":
            raise ZeroDivisionError

    async with working_behind(proxy, app, concurrency=2):
        raises = await doubting.defer_async(how="raises")
        returns = await doubting.defer_async(how="returns")
        await until(lambda: len(runs) == 2)
        proxy.hush(new=True)
        await until(lambda: len(told) == 2, 20)
        await asyncio.sleep(0.5)  # what became of both is decided before trust is back
        proxy.speak()
        await done_after(app, raises)
        await done_after(app, returns)
        jobs = [await app.job_manager.get_job_async(each) for each in (raises, returns)]

    assert [(job.attempts, job.errors) for job in jobs] == [(2, []), (1, [])]
    assert sorted(runs) == ["raises", "raises", "returns"]
