"""What a test asks of the in-memory connector, and how it listens and binds."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from procrastinate import drive
from procrastinate.connector import Connector, Notification, capabilities
from procrastinate.drive import Request
from procrastinate.errors import (
    ConfigurationError,
    ConnectionLost,
    ConnectorException,
    InvalidOption,
    InvalidTimestamp,
)
from procrastinate.model.job import NewJob
from procrastinate.storage import defer
from procrastinate.storage.statements import Statements
from procrastinate.testing import Clock, InMemoryConnector
from procrastinate.testing.connector import InMemoryConnection

if TYPE_CHECKING:
    from conftest import MemoryQueue

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


# --- listening -----------------------------------------------------------------------------------


async def heard(notifications: AsyncIterator[Notification], count: int = 1) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(notifications)).payload for _ in range(count)]


async def test_a_defer_in_another_thread_wakes_a_listener(queue: MemoryQueue) -> None:
    async with queue.connector.listen(["procrastinate_jobs"]) as notifications:
        thread = threading.Thread(target=lambda: queue.defer(queue="far"))
        thread.start()
        assert await heard(notifications) == ["far"]
        thread.join()


async def test_listeners_hear_at_commit_once_and_only_their_channels(queue: MemoryQueue) -> None:
    async with queue.connector.listen(["procrastinate_jobs"]) as notifications:
        with pytest.raises(ZeroDivisionError), queue.sync.session(transaction=True) as executor:
            drive.run(defer.defer_job(NewJob("task", queue="lost")), executor, queue.sql)
            raise ZeroDivisionError
        queue.defer_all(*(NewJob("task", queue=name) for name in ("b", "a", "b")))
        queue.claim(["a"])
        queue.cancel(2, abort=True)  # on the other channel
        queue.defer(queue="soon", schedule_in_us=59_000_000)
        queue.defer(queue="last")
        assert await heard(notifications, 3) == ["a", "b", "last"]


async def test_a_job_due_within_a_minute_is_announced_on_a_channel_of_its_own(
    queue: MemoryQueue,
) -> None:
    async with queue.connector.listen(["procrastinate_schedule"]) as notifications:
        queue.defer(queue="later", schedule_in_us=61_000_000)
        queue.defer(queue="soon", schedule_in_us=59_000_000)
        assert await heard(notifications) == ["soon"]


async def test_after_its_block_nobody_listens(queue: MemoryQueue) -> None:
    async with queue.connector.listen(["procrastinate_jobs"]) as notifications:
        pass
    queue.defer()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(notifications), 0.05)


async def test_closing_ends_listening_and_keeps_the_jobs(queue: MemoryQueue) -> None:
    queue.defer()
    async with queue.connector.listen(["procrastinate_jobs"]) as notifications:
        await queue.connector.close_async()
        with pytest.raises(ConnectionLost):
            await heard(notifications)
    assert queue.statuses() == {1: "todo"}


def test_a_listener_whose_loop_is_gone_harms_nobody(queue: MemoryQueue) -> None:
    async def leave() -> None:
        block = queue.connector.listen(["procrastinate_jobs"])
        await block.__aenter__()
        blocks.append(block)

    blocks: list[object] = []
    asyncio.run(leave())
    assert queue.defer() == 1


async def test_moving_the_clock_wakes_the_workers_of_jobs_that_are_due(queue: MemoryQueue) -> None:
    queue.defer(queue="later", schedule_in_us=3_600_000_000)
    async with queue.connector.listen(["procrastinate_jobs"]) as notifications:
        queue.connector.clock.move(timedelta(hours=1))
        assert await heard(notifications) == ["later"]


# --- the application's own transaction -----------------------------------------------------------


def binds(connector: Connector, connection: InMemoryConnection) -> tuple[Any, Any]:
    binder = connector.own_binder(connection)
    assert binder is not None
    return binder.bind, binder.bind_async


async def test_both_halves_bind_to_a_transaction_of_the_connector(queue: MemoryQueue) -> None:
    with queue.connector.transaction() as connection:
        bind, bind_async = binds(queue.sync, connection)[0], binds(queue.connector, connection)[1]
        drive.run(defer.defer_job(NewJob("one")), bind(connection), queue.sql)
        await drive.run_async(defer.defer_job(NewJob("two")), bind_async(connection), queue.sql)
        assert queue.connector.jobs == []
    assert [job.task_name for job in queue.connector.jobs] == ["one", "two"]


def test_a_rolled_back_transaction_takes_its_jobs_along(queue: MemoryQueue) -> None:
    with pytest.raises(ZeroDivisionError), queue.connector.transaction() as connection:
        bind, _ = binds(queue.sync, connection)
        drive.run(defer.defer_job(NewJob("one")), bind(connection), queue.sql)
        raise ZeroDivisionError
    assert queue.connector.jobs == []


def test_nothing_else_is_bound(queue: MemoryQueue) -> None:
    with queue.connector.transaction() as own:
        bind, bind_async = binds(queue.connector, own)
    with InMemoryConnector().transaction() as foreign, pytest.raises(InvalidOption):
        bind(foreign)
    with queue.connector.transaction() as ended:
        executor = bind(ended)
    with pytest.raises(InvalidOption):
        bind_async(ended)
    with pytest.raises(ConnectorException):
        executor.execute(queue.sql(Request("ping")))
    assert queue.sync.own_binder(object()) is None
    assert queue.sync.own_binder(mock.MagicMock(spec=InMemoryConnection)) is None


# --- what a test asks for ------------------------------------------------------------------------


def test_reset_forgets_jobs_and_workers_and_starts_ids_and_time_again(queue: MemoryQueue) -> None:
    queue.register()
    queue.defer(lock="l", queueing_lock="q")
    queue.claim()
    queue.connector.reset()
    assert queue.connector.jobs == []
    assert queue.connector.clock.now() < NOON
    assert (queue.register(), queue.defer(lock="l", queueing_lock="q")) == (1, 1)
    assert queue.claimed() == [1]


def test_a_transaction_that_was_open_at_a_reset_leaves_no_trace(queue: MemoryQueue) -> None:
    with queue.sync.session(transaction=True) as executor:
        drive.run(defer.defer_job(NewJob("task")), executor, queue.sql)
        queue.connector.reset()
    assert queue.connector.jobs == []


def test_arguments_are_decoded_by_the_connectors_own_json_loads() -> None:
    connector = InMemoryConnector(json_loads=lambda text: {"read": json.loads(text)})
    with connector.sync_connector().session() as executor:
        drive.run(defer.defer_job(NewJob("task", args='{"a": 1}')), executor, Statements())
    assert [job.task_kwargs for job in connector.jobs] == [{"read": {"a": 1}}]
    assert connector.sync_connector().json_loads is connector.json_loads


def test_a_url_without_anything_is_the_only_one() -> None:
    assert isinstance(InMemoryConnector.from_url("memory://"), InMemoryConnector)
    with pytest.raises(ConfigurationError, match="memory://"):
        InMemoryConnector.from_url("memory://host/name")


def test_its_type_says_what_it_can_do() -> None:
    assert capabilities(InMemoryConnector) == ("defer", "async", "worker", "listen")
    assert (InMemoryConnector.contract, InMemoryConnector.runs_sql) == (2, False)


# --- the clock -----------------------------------------------------------------------------------


def test_the_clock_shows_the_real_time_in_utc_until_it_is_changed() -> None:
    before = datetime.now(UTC)
    shown = Clock().now()
    assert before <= shown <= datetime.now(UTC)
    assert shown.tzinfo is UTC


def test_a_frozen_clock_stands_until_it_is_moved() -> None:
    clock = Clock()
    assert clock.freeze(NOON) == clock.now() == NOON
    assert clock.move(timedelta(minutes=1)) == clock.now() == NOON + timedelta(minutes=1)
    assert clock.move(-60.5) == NOON - timedelta(seconds=0.5)
    clock.unfreeze()
    assert clock.now() < NOON


def test_a_clock_moves_by_the_arguments_of_a_timedelta() -> None:
    clock = Clock()
    clock.freeze(NOON)
    assert clock.move(hours=1, minutes=-30) == NOON + timedelta(minutes=30)
    assert clock.move(1, days=1) == NOON + timedelta(days=1, minutes=30, seconds=1)
    assert clock.move({"days": -1}) == NOON + timedelta(minutes=30, seconds=1)


@pytest.mark.parametrize("by", ["1", None, True, float("nan"), {"fortnights": 1}, NOON])
def test_a_clock_does_not_move_by_what_is_no_duration(by: Any) -> None:
    clock = Clock()
    clock.freeze(NOON)
    with pytest.raises(InvalidOption, match=f"by .*{re.escape(repr(by))}"):
        clock.move(by)
    with pytest.raises(InvalidOption, match="fortnights"):
        clock.move(fortnights=1)
    assert clock.now() == NOON


@pytest.mark.parametrize("days", [-800_000, 3_000_000, 999_999_999])
def test_a_clock_does_not_leave_the_calendar(days: int) -> None:
    clock = Clock()
    clock.freeze(NOON)
    with pytest.raises(InvalidTimestamp, match="the clock"):
        clock.move(1e6, days=days)
    assert clock.now() == NOON


def test_a_clock_is_frozen_for_the_length_of_a_block_and_then_as_before() -> None:
    clock = Clock()
    clock.move(days=1000)
    with clock.frozen(NOON) as now:
        assert clock.now() == now == NOON
        clock.move(days=1)
        with pytest.raises(ZeroDivisionError), clock.frozen():
            assert clock.move(1) == NOON + timedelta(days=1, seconds=1)
            raise ZeroDivisionError
        assert clock.now() == NOON + timedelta(days=1)
    assert abs(clock.now() - datetime.now(UTC) - timedelta(days=1000)) < timedelta(seconds=10)


def test_a_moved_clock_goes_on_from_there() -> None:
    clock = Clock()
    clock.move(timedelta(days=1000))
    ahead = clock.now() - datetime.now(UTC)
    assert abs(ahead - timedelta(days=1000)) < timedelta(seconds=10)
    assert clock.freeze() <= clock.now()


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InvalidTimestamp, match="time zone"):
        Clock().freeze(datetime(2030, 1, 1))
