"""A worker's start goes on over a connection that breaks, and no further than it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import drive, errors
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import worker as worker_module
from procrastinate.worker.registration import TRIES_TO_REGISTER


def failing(app: procrastinate.App, failures: list[Exception]) -> Callable[[], int]:
    """Let the first calls of an app's worker fail; the function says how many there were."""
    run, calls = app._gateway.run_async, 0

    async def run_async(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if failures:
            raise failures.pop(0)
        return await run(*args, **options)

    app._gateway.run_async = run_async  # type: ignore[method-assign]
    return lambda: calls


@pytest.mark.parametrize("kind", [errors.ConnectionLost, errors.QueryCanceled])
async def test_a_worker_registers_over_passing_failures(
    kind: type[errors.ConnectorException], caplog: pytest.LogCaptureFixture
) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    ran = []

    @app.task
    def note() -> None:
        ran.append(1)

    await note.defer_async()
    failing(app, [kind("cut") for _ in range(TRIES_TO_REGISTER - 1)])
    await app.run_worker_async(wait=False, install_signal_handlers=False, name="w")
    assert ran == [1]
    said = [record.getMessage() for record in caplog.records if "register" in record.getMessage()]
    assert said == ["worker w tries again to register: cut"] * (TRIES_TO_REGISTER - 1)
    assert await app.job_manager.list_workers_async() == []


async def test_a_worker_that_cannot_register_says_why() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    calls = failing(app, [errors.ConnectionLost("cut") for _ in range(100)])
    with pytest.raises(errors.ConnectionLost, match="cut"):
        await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert calls() == TRIES_TO_REGISTER


@pytest.mark.parametrize(
    "exc",
    [errors.SchemaOutdated("old"), errors.ConnectionFailed("away"), errors.PoolTimeout("all")],
)
async def test_other_failures_end_a_start_at_once(exc: errors.ConnectorException) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    calls = failing(app, [exc] * 3)
    with pytest.raises(type(exc)):
        await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert calls() == 1


# --- Nothing is left of a start that does not succeed ---------------------------------------------

#: Statements, one after the other, after which there is a row.
STEPS = [["register_worker"], ["register_worker", "get_settings"]]


def after(monkeypatch: pytest.MonkeyPatch, names: list[str], do: Callable[[], object]) -> None:
    """Call a function as soon as the last of these statements has come back."""
    left = list(names)
    original = drive.run_steps_async

    async def run(steps: Any, run_step: Callable[[Any], Any]) -> Any:
        async def one(request: Any) -> Any:
            answer = await run_step(request)
            if left[:1] == [getattr(request, "name", None)]:
                left.pop(0)
                if not left:
                    do()
                    await asyncio.sleep(0)
            return answer

        return await original(steps, one)

    monkeypatch.setattr(drive, "run_steps_async", run)


@pytest.mark.parametrize("steps", STEPS, ids=["first", "second"])
async def test_a_worker_stopped_now_while_it_registers_leaves_no_row(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    worker = any_app.worker(install_signal_handlers=False)
    after(monkeypatch, steps, worker.stop_now)
    await asyncio.wait_for(worker.run(), 20)
    assert await any_app.job_manager.list_workers_async() == []


@pytest.mark.parametrize("steps", STEPS, ids=["first", "second"])
async def test_a_worker_whose_task_is_cancelled_while_it_registers_leaves_no_row(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    after(monkeypatch, steps, cancel)
    with pytest.raises(errors.WorkerFailed):
        await asyncio.wait_for(any_app.worker(install_signal_handlers=False).run(), 20)
    assert await any_app.job_manager.list_workers_async() == []


@pytest.mark.parametrize("steps", STEPS, ids=["first", "second"])
async def test_a_worker_that_registers_again_after_a_lost_answer_has_one_row(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    def lose() -> None:
        raise errors.ConnectionLost("cut")

    after(monkeypatch, steps, lose)
    async with any_app.worker():
        rows = await any_app.job_manager.list_workers_async()
    assert len(rows) == 1


async def test_a_worker_that_cannot_begin_leaves_no_row(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shift(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(worker_module.Worker, "_shift_type", shift)
    with pytest.raises(MemoryError):
        await asyncio.wait_for(any_app.worker(install_signal_handlers=False).run(), 20)
    assert await any_app.job_manager.list_workers_async() == []


async def test_a_worker_that_cannot_say_that_it_starts_leaves_no_row(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("procrastinate.worker.telling.Telling.worker_started", raising)
    with pytest.raises(errors.WorkerFailed):
        await asyncio.wait_for(any_app.worker(install_signal_handlers=False).run(), 20)
    assert await any_app.job_manager.list_workers_async() == []
