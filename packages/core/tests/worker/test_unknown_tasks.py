"""Jobs of tasks that a worker does not know, as in a rolling deployment."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.model.claiming import unknown_tasks


async def status_of(app: procrastinate.App, job_id: int) -> Status:
    return await app.job_manager.get_job_status_async(job_id)


class Endings(procrastinate.Observer):
    """Notes which jobs have ended, and how."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Status, Any]] = []

    def on_ended(self, event: Any) -> None:
        for each in event.attempts:
            self.seen.append((each.job.id, each.status, each.error["message"]))


def program(dsn: str, *names: str, observers: Any = ()) -> procrastinate.App:
    """An app that knows these tasks."""
    connector = procrastinate.AiopgConnector(dsn=dsn)
    app = procrastinate.App(connector=connector, observers=observers)
    for name in names:

        @app.task(name=name)
        async def run(n: int = 0) -> None: ...

    return app


async def test_an_old_worker_leaves_a_new_tasks_jobs_to_a_new_one(
    dsn: str, working: Any, until: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = program(dsn, "old"), program(dsn, "old", "new")
    async with old.open_async(), new.open_async():
        ids = [await new.configure_task("new").defer_async(n=n) for n in range(20)]
        async with working(old, concurrency=5):
            last = await old.configure_task("old").defer_async()
            await until(
                lambda: query(
                    "select count(*) from procrastinate_jobs where unknown_since is not null"
                )[0][0]
            )
            while await status_of(old, last) is not Status.SUCCEEDED:
                await asyncio.sleep(0.01)
            rows = query(
                "select status::text, attempts, scheduled_at from procrastinate_jobs where id < %s",
                last,
            )
            assert rows == [("todo", 0, None)] * 20
            leases = query("select sum(lease) from procrastinate_jobs where id < %s", last)
            async with working(new, concurrency=5):
                await until(
                    lambda: (
                        query("select count(*) from procrastinate_jobs where status = 'succeeded'")
                        == [(21,)]
                    )
                )

    assert leases[0][0] <= 20  # it was not claimed again and again
    attempts = query("select distinct attempts from procrastinate_jobs where id = any(%s)", ids)
    assert attempts == [(1,)]
    warnings = [each.message for each in caplog.records if "no task named" in each.message]
    assert len(warnings) == 1
    assert "'new'" in warnings[0]


@pytest.mark.parametrize("queues", [["default"], ["default", "other"]])
async def test_jobs_run_that_stand_behind_a_long_line_whose_head_is_unknown(
    dsn: str, working: Any, until: Any, query: Any, queues: list[str]
) -> None:
    """The line can neither start nor be parked: nothing holds its lock."""
    app = program(dsn, "known")
    async with app.open_async():
        await app.configure_task("unknown", lock="line").defer_async()
        known = app.configure_task("known", lock="line")
        await known.batch_defer_async(*({"n": n} for n in range(1_200)))
        behind = await app.configure_task("known").batch_defer_async(*[{"n": 0}] * 5)
        async with working(app, concurrency=5, queues=queues):
            ended = "select count(*) from procrastinate_jobs where status = 'succeeded'"
            await until(lambda: query(ended) == [(5,)])

    assert query(f"{ended} and id = any(%s)", list(behind)) == [(5,)]


async def test_a_job_that_no_live_worker_knows_fails_after_its_patience(
    dsn: str, working: Any, until: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endings = Endings()
    app = program(dsn, "known", observers=[endings])
    beats = {"update_heartbeat_interval": 0.1, "stalled_worker_timeout": 0.4}
    async with app.open_async():
        job_id = await app.configure_task("who.knows").defer_async()
        async with working(app, unknown_task_patience=3600, **beats):
            await until(lambda: query("select unknown_since from procrastinate_jobs")[0][0])
            await asyncio.sleep(0)
            assert await status_of(app, job_id) is Status.TODO
        async with working(app, unknown_task_patience=0.2, **beats):
            await until(lambda: query("select status from procrastinate_jobs") == [("failed",)])
            # A worker that is stopped just now may end before it tells.
            told = (
                "1 job of the task 'who.knows' failed: no live worker knows it, and the patience of"
                " 0.2 seconds is over"  # no matter for how much longer it has waited
            )
            await until(lambda: told in caplog.text)
        job = await app.job_manager.get_job_async(job_id)

    assert (job.attempts, job.errors[0]["type"]) == (0, "procrastinate.errors.TaskNotFound")
    assert endings.seen == [(job_id, Status.FAILED, job.errors[0]["message"])]


async def test_it_waits_as_long_as_a_live_worker_knows_it(
    dsn: str, working: Any, until: Any, query: Any
) -> None:
    one, other = program(dsn, "one"), program(dsn, "other")
    # The other one must not be taken for dead because a busy machine is late with its beat.
    beats = {"update_heartbeat_interval": 0.1, "stalled_worker_timeout": 4.0}
    async with (
        one.open_async(),
        other.open_async(),
        working(other, queues=["elsewhere"], **beats),
        working(one, unknown_task_patience=0.01, **beats),
    ):
        job_id = await one.configure_task("other").defer_async()
        await until(lambda: query("select unknown_since from procrastinate_jobs")[0][0])
        turns = "select min(last_heartbeat) - max(started_at) from procrastinate_workers"
        await until(lambda: query(turns)[0][0].total_seconds() > 1.0)
        assert await status_of(one, job_id) is Status.TODO


async def test_a_name_is_asked_for_again(
    dsn: str, working: Any, until: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_tasks, "ASK_AGAIN", 0.05)
    app = program(dsn, "known")
    async with app.open_async():
        await app.configure_task("unknown").defer_async()
        async with working(app, fetch_job_polling_interval=0.05):
            await until(lambda: query("select lease from procrastinate_jobs")[0][0] >= 3)


async def test_more_names_than_a_claim_carries_keep_no_worker_busy(
    dsn: str, working: Any, until: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_tasks, "MOST_NAMES", 3)
    app = program(dsn, "known")
    async with app.open_async():
        for number in range(10):
            await app.configure_task(f"unknown {number}").defer_async()
        async with working(app, concurrency=10):
            await until(
                lambda: query("select count(unknown_since) from procrastinate_jobs") == [(10,)]
            )
            job_id = await app.configure_task("known").defer_async()
            while await status_of(app, job_id) is not Status.SUCCEEDED:
                await asyncio.sleep(0.01)
        bounced = "select count(*) from procrastinate_jobs where bounces > 0"

    assert query(bounced) == [(7,)]


async def test_workers_say_who_they_are_and_what_they_know(
    dsn: str, working: Any, until: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = program(dsn, "b", "a")
    told = "select host <> '', concurrency, task_names from procrastinate_workers"
    async with (
        app.open_async(),
        working(app, concurrency=7, update_heartbeat_interval=0.1, stalled_worker_timeout=0.4),
    ):
        await until(lambda: len(query(told)) == 1)
        ((has_host, concurrency, names),) = query(told)
        assert (has_host, concurrency) == (True, 7)
        builtin = ("builtin:", "procrastinate.")
        assert [name for name in names if not name.startswith(builtin)] == ["a", "b"]
        query("delete from procrastinate_workers")
        await until(lambda: query(told) == [(has_host, concurrency, names)])
