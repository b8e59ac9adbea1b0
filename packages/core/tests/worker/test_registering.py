"""A worker's start goes on over a connection that breaks, and no further than it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import errors
from procrastinate.testing import InMemoryConnector
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
