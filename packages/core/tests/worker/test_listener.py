"""The listener: any payload that anybody sends, and a connection on which nothing is heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.connector import Notification
from procrastinate.model.claiming.scans import NAMES_KEPT, ScanPlan
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.helpers import listener
from procrastinate.worker.helpers.listener import job_id_in

OPTIONS = {"fetch_job_polling_interval": 60.0, "abort_job_polling_interval": 60.0}


@pytest.mark.parametrize(
    ("payload", "job_id"),
    [
        ("7", 7),
        ("0", 0),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("9" * 5_000, None),
        ("9" * 19, None),
        ("-7", None),
        ("+7", None),
        (" 7", None),
        ("7\n", None),
        ("1_000", None),
        ("0x10", None),
        ("7.0", None),
        ("1e3", None),
        ("\u0667", None),  # a digit, and not ASCII
        ("\u00b2", None),
        ("", None),
        ("default", None),
        ("x" * 7_999, None),
    ],
)
def test_a_payload_is_a_job_s_id_or_nothing(payload: str, job_id: int | None) -> None:
    assert job_id_in(payload) == job_id


@pytest.mark.parametrize("channel", [listener.ABORTS, listener.JOBS, listener.SCHEDULE])
async def test_a_worker_listens_on_after_any_payload(
    app: procrastinate.App, working: Any, query: Callable[..., Any], channel: str
) -> None:
    """Which anybody who may connect can send."""

    @app.task(name="noop")
    async def noop() -> None: ...

    async def runs_at_once() -> None:
        job_id = await noop.defer_async()
        async with asyncio.timeout(10):
            while (await app.job_manager.get_job_async(job_id)).status is not Status.SUCCEEDED:
                await asyncio.sleep(0.01)

    async with working(app, **OPTIONS):
        await runs_at_once()
        for payload in ("9" * 5_000, "x" * 7_900, "", "-1", "{}", "\u0667", "default", "7"):
            query("select pg_notify(%s, %s)", channel, payload)
        for n in range(200):
            query("select pg_notify(%s, %s)", channel, f"{n}" * 30)
        await runs_at_once()


def test_any_number_of_queues_that_are_heard_of_takes_bounded_room() -> None:
    plan = ScanPlan()
    for n in range(3 * NAMES_KEPT):
        before = plan.gap
        plan = plan.heard_of(f"queue {n}")
        assert len(plan.heard) <= NAMES_KEPT
        assert plan.gap == before or not plan.heard, "what is forgotten is looked for everywhere"
    assert plan.gap > 0


class Deaf(InMemoryConnector):
    """Accepts LISTEN and passes nothing on, as some poolers do."""

    listened = 0

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        self.listened += 1
        async with super().listen([]) as nothing:
            yield nothing


async def test_a_connection_on_which_nothing_is_heard_is_said_once_and_tried_again(
    until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(listener, "PROBE_MAY_TAKE", 0.05)
    connector = Deaf()
    app = procrastinate.App(connector=connector)

    @app.task(name="noop")
    async def noop() -> None: ...

    async with app.worker(fetch_job_polling_interval=0.1):
        await until(lambda: connector.listened >= 4)
        job_id = await noop.defer_async()
        await until(lambda: connector.jobs[job_id - 1].status is Status.SUCCEEDED)

    assert caplog.text.count("the connection is silent") == 1
