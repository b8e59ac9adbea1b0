"""How a worker stops: first signal, second signal, graceful timeout, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.worker.process import last_resort
from procrastinate.worker.shift import ending


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_running_jobs_end_and_hands_back_the_rest(
    sync_app: procrastinate.App, start: Any, number: signal.Signals
) -> None:
    sync_app.configure_task("nap").batch_defer(*[{"seconds": 3}] * 3)
    worker = start(concurrency=2)
    said(worker, "napping")
    said(worker, "napping")  # a row says DOING from its claim on, before the job begins
    worker.send_signal(number)

    assert worker.wait(20) == 0
    jobs = sync_app.job_manager.list_jobs()
    assert [(job.status, job.attempts) for job in jobs] == [
        (Status.SUCCEEDED, 1),
        (Status.SUCCEEDED, 1),
        (Status.TODO, 0),
    ]


def test_past_the_graceful_timeout_jobs_are_handed_back(
    sync_app: procrastinate.App, start: Any
) -> None:
    job_id = sync_app.configure_task("stubborn").defer()
    worker = start(shutdown_graceful_timeout=0.2)
    said(worker, "began")
    worker.terminate()

    assert worker.wait(20) == 0
    job = sync_app.job_manager.get_job(job_id)
    assert (job.status, job.attempts, job.worker) == (Status.TODO, 1, None)


def test_a_coroutine_that_swallows_every_cancellation_does_not_keep_the_process_alive(
    sync_app: procrastinate.App, start: Any
) -> None:
    job_id = sync_app.configure_task("deaf").defer()
    worker = start(shutdown_graceful_timeout=0)
    said(worker, "began")
    worker.terminate()

    _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 0
    assert "which did not end" in errors
    assert "was destroyed" not in errors
    job = sync_app.job_manager.get_job(job_id)
    assert (job.status, job.attempts) == (Status.TODO, 1)


async def test_a_worker_that_stops_while_the_database_is_away_names_the_jobs_that_run_again(
    app: procrastinate.App,
    working: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_async, ran = app._gateway.run_async, []

    async def away(flow: Any, **options: Any) -> Any:
        if flow.__name__ == "settle":
            raise procrastinate.errors.ConnectionLost("away")
        return await run_async(flow, **options)

    @app.task(name="mail")
    async def mail(n: int) -> None:
        ran.append(n)

    monkeypatch.setattr(app._gateway, "run_async", away)
    monkeypatch.setattr(ending, "LAST_WRITES_MAY_TAKE", 0.2)
    ids = await mail.batch_defer_async(*({"n": n} for n in range(7)))
    async with working(app, concurrency=7):
        await until(lambda: len(ran) == 7)

    (line,) = (each for each in caplog.records if "could not write" in each.message)
    first = ", ".join(f"mail[{job_id}](n={n})" for n, job_id in enumerate(ids[:5]))
    assert line.message == (
        f"could not write 7 endings: other workers will run these jobs again: {first} and 2 more"
    )
    assert line.job_ids == ids  # type: ignore[attr-defined]
    assert "waiting for the database with 7 endings" in caplog.text


def test_the_second_signal_ends_a_worker_whose_job_never_ends(
    sync_app: procrastinate.App, start: Any
) -> None:
    job_id = sync_app.configure_task("stubborn").defer()
    worker = start()
    said(worker, "began")
    worker.terminate()
    wait_for(lambda: sync_app.job_manager.get_job_status(job_id) is Status.DOING)
    while not select.select([worker.stderr], [], [], 0.3)[0]:  # until it says "stopping now"
        worker.terminate()

    assert worker.wait(20) == 0
    assert sync_app.job_manager.get_job_status(job_id) is Status.TODO


def test_the_second_signal_ends_a_worker_whose_event_loop_is_blocked(
    sync_app: procrastinate.App, start: Any
) -> None:
    job_id = sync_app.configure_task("blocks").defer()
    worker = start()
    said(worker, "began")
    deadline = time.monotonic() + 20
    while worker.poll() is None and time.monotonic() < deadline:
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(0.5)

    assert worker.poll() == last_resort.EXIT_CODE
    assert "blocks its event loop" in worker.stderr.read()
    assert sync_app.job_manager.get_job_status(job_id) is Status.DOING  # others recover it


def test_a_machine_that_stands_still_is_not_a_loop_that_is_blocked() -> None:
    class Late(threading.Event):
        """Its first wait takes all the time, and ends before the loop goes on too."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return len(waits) > 1

    waits: list[float | None] = []
    assert last_resort._comes(Late(), last_resort.LOOP_MAY_TAKE)
    assert all(each is not None and each < last_resort.LOOP_MAY_TAKE / 5 for each in waits)


def test_a_task_that_obeys_the_shutdown_is_handed_back(
    sync_app: procrastinate.App, start: Any
) -> None:
    job_id = sync_app.configure_task("patient").defer()
    worker = start(shutdown_graceful_timeout=0)
    said(worker, "began")
    worker.terminate()

    assert worker.wait(20) == 0
    job = sync_app.job_manager.get_job(job_id)
    assert (job.status, job.attempts) == (Status.TODO, 1)


async def test_a_coroutine_past_the_graceful_timeout_is_cancelled(
    app: procrastinate.App,
) -> None:
    began = asyncio.Event()
    cleaned: list[bool] = []

    @app.task
    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    job_id = await endless.defer_async()
    worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0.1))
    await asyncio.wait_for(began.wait(), 10)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker

    job = await app.job_manager.get_job_async(job_id)
    assert cleaned == [True]
    assert (job.status, job.attempts) == (Status.TODO, 1)


async def test_a_coroutine_that_ends_well_although_cancelled_has_succeeded(
    app: procrastinate.App,
) -> None:
    began = asyncio.Event()

    @app.task
    async def thorough() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)

    job_id = await thorough.defer_async()
    worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0))
    await asyncio.wait_for(began.wait(), 10)
    worker.cancel()
    await asyncio.wait([worker])

    assert await app.job_manager.get_job_status_async(job_id) is Status.SUCCEEDED


async def test_a_draining_worker_gives_signs_of_life_and_obeys_aborts(
    app: procrastinate.App, query: Callable[..., Any]
) -> None:
    began = asyncio.Event()

    @app.task
    async def endless() -> None:
        began.set()
        await asyncio.sleep(3600)

    job_id = await endless.defer_async()
    worker = asyncio.create_task(app.run_worker_async(update_heartbeat_interval=0.1))
    await asyncio.wait_for(began.wait(), 10)
    worker.cancel()
    beats = set()
    async with asyncio.timeout(10):
        while len(beats) < 3:
            beats.update(query("select last_heartbeat from procrastinate_workers"))
            await asyncio.sleep(0.02)
    assert await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
    await asyncio.wait([worker], timeout=10)

    assert worker.done()
    assert await app.job_manager.get_job_status_async(job_id) is Status.ABORTED


async def test_a_stopped_worker_leaves_no_trace_and_the_signal_handlers_as_they_were(
    app: procrastinate.App, query: Callable[..., Any]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await app.run_worker_async(wait=False)

    assert query("select count(*) from procrastinate_workers") == [(0,)]
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_task_that_opens_and_closes_the_app_leaves_it_to_the_worker(
    app: procrastinate.App,
) -> None:
    @app.task(name="child")
    async def child() -> None: ...

    @app.task(name="opens")
    async def opens_the_app() -> None:
        async with app.open_async():
            await child.defer_async()

    await opens_the_app.defer_async()
    await app.run_worker_async(wait=False)

    jobs = await app.job_manager.list_jobs_async()
    assert [job.status for job in jobs] == [Status.SUCCEEDED] * 2
