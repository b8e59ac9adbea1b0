"""A worker's start goes on over a connection that breaks, and no further than it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import drive, errors
from procrastinate.storage.statements import PATIENCE_MS
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import registration
from procrastinate.worker import worker as worker_module
from procrastinate.worker.registration import TRIES_TO_REGISTER

Query = Callable[..., list[tuple[Any, ...]]]


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


# --- A row is taken back over a stop, and over a connection that breaks ---------------------------


def a_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start fail when the worker has a row already."""

    def fail() -> None:
        raise errors.SchemaOutdated("old")

    after(monkeypatch, STEPS[1], fail)


@pytest.mark.parametrize("how", ["stop_now", "cancel", "stop"])
async def test_a_row_is_taken_back_although_a_stop_comes(
    any_app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, once: Any, how: str
) -> None:
    worker = any_app.worker(install_signal_handlers=False)
    a_start_fails(monkeypatch)

    async def stopped_while_it_connects() -> None:
        if how == "cancel":
            running.cancel()
            await asyncio.sleep(0)
            running.cancel()
        else:
            worker.stop()
            await asyncio.sleep(0)
            if how == "stop_now":
                worker.stop_now()
        await asyncio.sleep(0.1)

    once(any_app, "unregister_worker", stopped_while_it_connects)
    running = asyncio.create_task(worker.run())
    await asyncio.wait([running], timeout=20)
    assert await any_app.job_manager.list_workers_async() == []
    if how == "cancel":
        assert running.cancelled()
    elif how == "stop":
        assert isinstance(running.exception(), errors.SchemaOutdated)
    else:
        assert running.exception() is None


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_row_that_cannot_be_taken_back_soon_is_told_of_when_the_worker_is_stopped_now(
    any_app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    once: Any,
    when: str,
) -> None:
    monkeypatch.setattr(registration, "TAKING_BACK_NOW_MAY_TAKE", 0.1)
    long = drive.Limit(server=59.0, client=60.0, connects=True)
    monkeypatch.setattr(registration, "TAKING_BACK", long)
    worker = any_app.worker(install_signal_handlers=False, name="w")
    if when == "before":
        after(monkeypatch, STEPS[0], worker.stop_now)
    else:
        a_start_fails(monkeypatch)

    async def never_connects() -> None:
        worker.stop_now()
        await asyncio.Event().wait()

    once(any_app, "unregister_worker", never_connects)
    async with asyncio.timeout(long.client / 2):
        await worker.run()
    (said,) = (text for text in caplog.messages if "its row" in text)
    does_not_start = (
        "worker w, which does not start, may have left its row in procrastinate_workers; other"
        " workers remove it: the database does not answer"
    )
    # If it had registered before the stop reached it, it ends as others do.
    ends = (
        "worker w could not remove its row from procrastinate_workers; other workers will, and"
        " recover what it holds: the database does not answer"
    )
    assert said in ({does_not_start, ends} if when == "before" else {does_not_start})


@pytest.mark.parametrize("kind", [errors.ConnectionLost, errors.QueryCanceled])
async def test_a_row_is_taken_back_over_a_connection_that_breaks(
    any_app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    once: Any,
    kind: type[errors.ConnectorException],
) -> None:
    a_start_fails(monkeypatch)

    async def broken() -> None:
        raise kind("cut")

    runs = once(any_app, "unregister_worker", broken)
    with pytest.raises(errors.SchemaOutdated):
        await any_app.worker(install_signal_handlers=False).run()
    assert runs() == 2
    assert await any_app.job_manager.list_workers_async() == []
    assert "may have left its row" not in caplog.text


async def test_a_row_that_the_database_refuses_to_remove_is_asked_for_once(
    any_app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    once: Any,
) -> None:
    a_start_fails(monkeypatch)

    async def refused() -> None:
        raise errors.InsufficientPrivilege("no right")

    runs = once(any_app, "unregister_worker", refused)
    with pytest.raises(errors.SchemaOutdated):
        await any_app.worker(install_signal_handlers=False).run()
    assert runs() == 1
    assert "may have left its row in procrastinate_workers" in caplog.text


async def test_a_worker_waits_to_register_while_a_migration_has_its_table(
    app: procrastinate.App, dsn: str, query: Query, until: Callable[..., Any]
) -> None:
    """Longer than an ending waits for a lock."""
    longer = f"interval '{PATIENCE_MS + 200} milliseconds'"
    waits = (
        "select count(*) from pg_stat_activity where query like '%%into %%procrastinate_workers%%'"
        f" and wait_event_type = 'Lock' and statement_timestamp() - query_start > {longer}"
    )
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("lock table procrastinate_workers in share mode")
        worker = asyncio.create_task(app.run_worker_async(wait=False, name="w"))
        try:
            await until(lambda: worker.done() or query(waits) == [(1,)])
        finally:
            connection.rollback()
        await worker
    assert await app.job_manager.list_workers_async() == []
