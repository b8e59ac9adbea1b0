"""An event loop that is blocked: the log says so once, and what blocks it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.companions import heartbeat
from procrastinate.worker.companions.heartbeat import Heartbeat


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Heartbeat]:
    """The looks at the loop, which are frequent and impatient."""
    looks: list[Heartbeat] = []
    watch = Heartbeat._watch_loop

    def watched(self: Heartbeat) -> None:
        watch(self)
        looks.append(self)

    monkeypatch.setattr(heartbeat, "LOOK_AT_LOOP_EVERY", 0.01)
    monkeypatch.setattr(heartbeat, "LOOP_BLOCKED_AFTER", 0.3)
    monkeypatch.setattr(Heartbeat, "_watch_loop", watched)
    return looks


def blocked_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if "has been blocked" in each.getMessage()]


def block_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


async def test_one_line_names_the_job_that_blocks_and_its_code(
    looks: list[Heartbeat], caplog: pytest.LogCaptureFixture
) -> None:
    app = procrastinate.App(connector=InMemoryConnector())

    def of_this_job() -> list[logging.LogRecord]:
        return [each for each in blocked_lines(caplog) if vars(each).get("job_id") == job_id]

    @app.task(name="greedy", queue="q")
    async def greedy() -> None:
        while not looks or looks[-1]._blocked:  # by something else, on a busy machine
            await asyncio.sleep(0.01)
        block_until(lambda: bool(of_this_job()))
        seen = len(looks)
        block_until(lambda: len(looks) >= seen + 50)

    async with app.open_async():
        job_id = await greedy.defer_async()
        await app.run_worker_async(wait=False, name="w")
        status = await app.job_manager.get_job_status_async(job_id)

    (record,) = of_this_job()
    assert record.levelname == "WARNING"
    assert f"by greedy[{job_id}](), at " in record.getMessage()
    assert "test_blocking.py" in record.getMessage()
    fields: dict[str, Any] = vars(record)
    assert (fields["action"], fields["task_name"], fields["queue"], fields["worker_name"]) == (
        *("loop_blocked", "greedy", "q", "w"),
    )
    assert status is procrastinate.Status.SUCCEEDED
