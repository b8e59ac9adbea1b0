"""What a worker counts minute by minute, and when it writes that, without a database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Request
from procrastinate.errors import ConnectionFailed, ConnectionLost, InsufficientPrivilege
from procrastinate.model.job import Job, Status
from procrastinate.observing import events
from procrastinate.storage.workers import Recovered
from procrastinate.worker.helpers import minutes
from procrastinate.worker.helpers.minutes import Minutes
from procrastinate.worker.telling import Telling

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST = int(NOON.timestamp()) // 60
SUMS = 4  # rows for one kind: the task in the queue, the queue, the task, all


class Calls:
    """A worker's calls to the database: they are noted, and may fail, before or at their commit."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.meanwhile: Callable[[], None] = lambda: None  # while each is under way
        self.fails: Exception | None = None
        self.fails_to_commit: Exception | None = None

    async def run_async(self, flow: Flow[Any], **options: Any) -> Any:
        answer: Rows = []
        begun = False
        try:
            while True:
                request = flow.send(cast(Any, answer if begun else None))
                begun = True
                if self.fails is not None:
                    raise self.fails
                self.requests.append(request)
                self.meanwhile()
                answer = []
        except StopIteration as stop:
            if self.fails_to_commit is not None:
                raise self.fails_to_commit from None
            return stop.value

    def written(self) -> list[tuple[float, dict[str, int]]]:
        """Return what was added since the last time: ages in seconds, and successes by queue.

        The sums beside the pairs of queues and tasks are left out.
        """
        found = []
        for request in self.requests:
            if request.name == "add_to_minute":
                p = cast(dict[str, Any], request.params)
                rows = zip(p["queue_names"], p["task_names"], p["succeeded"], strict=True)
                counts = {queue: count for queue, task, count in rows if queue and task}
                found.append((p["age_us"] / 1e6, counts))
        self.requests.clear()
        return found

    def tidied(self) -> int:
        return sum(each.name == "take_old_minutes" for each in self.requests)


class Scene:
    """A worker at noon, by the server's clock."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.now = 1_000.0
        self.minutes = Minutes(cast(Any, self.calls), keep=3600, clock=lambda: self.now)
        self.beat()

    def beat(self, *, its_turn: bool = False) -> None:
        now = NOON + timedelta(seconds=self.now - 1_000.0)
        self.minutes.beaten(now, its_turn=its_turn)

    def end(self, *queues: str, status: Status = Status.SUCCEEDED) -> None:
        attempts = [attempt(queue, status) for queue in queues]
        self.minutes.on_ended(events.Ended("w", 1, attempts))

    def recover(self, *statuses: Status) -> None:
        telling = Telling(worker_name="w", worker_id=1, counting=self.minutes)
        telling.recovered([Recovered(1, each, "a", "t") for each in statuses])

    async def write(self) -> None:
        """Write what is due now."""
        await self.minutes.write(before=FIRST + int(self.now - 1_000) // 60)


def attempt(queue: str, status: Status = Status.SUCCEEDED, error: Any = None) -> Any:
    job = Job(1, Status.DOING, queue, "t", {})
    return SimpleNamespace(job=job, status=status, duration=0.5, error=error)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_what_ended_in_a_minute_is_written_after_it_in_one_statement(scene: Scene) -> None:
    scene.end("a", "a", "b")
    scene.now += 30
    scene.end("a")
    await scene.write()
    assert scene.calls.written() == []
    scene.now += 32
    await scene.write()
    assert scene.calls.written() == [(32.0, {"a": 3, "b": 1})]
    await scene.write()
    assert scene.calls.written() == []


async def test_a_worker_that_stops_writes_also_what_ended_in_this_minute(scene: Scene) -> None:
    scene.end("a")
    scene.now += 61
    scene.end("a", "a")
    await scene.minutes.leave()
    assert scene.calls.written() == [(61.0, {"a": 1}), (0.0, {"a": 2})]


async def test_what_ended_counts_in_its_minute_however_late_it_is_counted(scene: Scene) -> None:
    scene.end("a")
    scene.now += 61
    telling = Telling(counting=scene.minutes)
    telling.meanwhile()
    scene.end("a", "a")
    await asyncio.sleep(0)
    scene.end("a")
    await scene.write()
    assert scene.calls.written() == [(61.0, {"a": 1})]
    await scene.minutes.leave()
    assert scene.calls.written() == [(0.0, {"a": 3})]


async def test_what_ends_while_its_minute_is_written_is_written_later(scene: Scene) -> None:
    scene.end("a")
    scene.calls.meanwhile = lambda: scene.end("b")
    await scene.minutes.leave()
    scene.calls.meanwhile = lambda: None
    scene.calls.written()
    await scene.minutes.leave()
    assert scene.calls.written() == [(0.0, {"b": 1})]


@pytest.mark.parametrize("at_commit", [False, True])
async def test_a_worker_that_stops_tries_again_at_once_what_was_not_written(
    scene: Scene, at_commit: bool
) -> None:
    scene.end("a")
    run = scene.calls.run_async

    async def failing_once(flow: Flow[Any], **options: Any) -> Any:
        scene.calls.run_async = run  # type: ignore[method-assign]
        if at_commit:
            await run(flow, **options)
        raise ConnectionLost("cut")

    scene.calls.run_async = failing_once  # type: ignore[method-assign]
    await scene.minutes.leave()
    assert scene.calls.written() == [(0.0, {"a": 1})]


async def test_while_the_database_is_away_minutes_are_kept_apart(scene: Scene) -> None:
    scene.calls.fails = ConnectionFailed("away")
    for _ in range(3):
        scene.end("a")
        scene.now += 60
        await scene.write()
    scene.calls.fails = None
    await scene.write()
    assert scene.calls.written() == [(180.0, {"a": 1}), (120.0, {"a": 1}), (60.0, {"a": 1})]


async def test_in_a_long_outage_no_count_is_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minutes, "MOST_MINUTES", 2)
    scene.calls.fails = ConnectionFailed("away")
    for _ in range(5):
        scene.end("a")
        scene.now += 60
        await scene.write()
    scene.calls.fails = None
    await scene.write()
    assert scene.calls.written() == [(120.0, {"a": 4}), (60.0, {"a": 1})]


async def test_what_may_have_been_committed_is_not_added_again(scene: Scene) -> None:
    scene.end("a")
    scene.now += 60
    scene.calls.fails_to_commit = ConnectionFailed("no answer to the commit")
    await scene.write()
    assert len(scene.calls.written()) == 1
    scene.calls.fails_to_commit = None
    scene.end("b")
    scene.now += 60
    await scene.write()
    assert scene.calls.written() == [(60.0, {"b": 1})]


async def test_a_role_that_may_not_write_them_is_told_once_and_counts_no_more(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.calls.fails = InsufficientPrivilege("permission denied for table procrastinate_minutes")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            scene.end("a")
            scene.recover(Status.FAILED)
            scene.now += 60
            await scene.write()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "permission denied" in caplog.text


async def test_retries_are_counted_and_what_is_handed_back_is_not(scene: Scene) -> None:
    attempts = [attempt("a", Status.TODO, {"type": "E"}), attempt("a", Status.TODO)]
    scene.minutes.on_requeued(events.Requeued("w", 1, attempts))
    await scene.minutes.leave()
    (request,) = scene.calls.requests
    assert request.params["retried"] == [1] * SUMS
    assert request.params["succeeded"] == [0] * SUMS


async def test_jobs_of_dead_workers_count_if_they_have_ended(scene: Scene) -> None:
    scene.recover(Status.FAILED, Status.TODO, Status.ABORTED)
    await scene.minutes.leave()
    (request,) = scene.calls.requests
    assert (request.params["failed"], request.params["aborted"]) == ([1] * SUMS, [1] * SUMS)
    assert request.params["retried"] == [0] * SUMS


async def test_the_worker_whose_turn_it_is_tidies_up_but_not_each_time(scene: Scene) -> None:
    await scene.write()
    assert scene.calls.tidied() == 0
    for _ in range(10):
        scene.beat(its_turn=True)
        await scene.write()
        scene.now += 60
    assert scene.calls.tidied() == 1
    scene.now += minutes.TIDY_EVERY
    await scene.write()
    assert scene.calls.tidied() == 2
