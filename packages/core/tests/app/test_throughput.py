"""What ended in each minute, from a worker's count to `throughput`; in memory and on a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import procrastinate
from procrastinate.model.job import Job, Status
from procrastinate.model.monitoring.minutes import MOST_KINDS, Kind, Tallies, Tally
from procrastinate.storage import minutes as flows
from procrastinate.testing import InMemoryConnector

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=366)  # the next one begins in 2027
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "database"])
async def app(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[procrastinate.App]:
    """An open app. (By name, ``dsn`` is what says that tests run on many partitions too.)"""
    connector: Any = InMemoryConnector()
    if request.param == "database":
        connector = procrastinate.AiopgConnector(dsn=dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app


async def run(app: procrastinate.App, flow: Any) -> Any:
    return await app._gateway.run_async(flow, transaction=True)


async def add(
    app: procrastinate.App, age: timedelta = timedelta(), **by_queue: dict[str, int]
) -> None:
    """Add what a worker has counted: by queue, how many got which status. Each took a second."""
    tallies: dict[Kind, Tally] = {}
    for queue, counts in by_queue.items():
        tally = tallies.setdefault((queue, "t"), Tally())
        for status, count in counts.items():
            tally.counts[Status(status)] += count
            tally.measure(Job(1, Status.DOING, queue, "t", {}), 1.0, count)
    await run(app, flows.add(tallies, age=age.total_seconds()))


async def listed(app: procrastinate.App, **given: Any) -> list[procrastinate.Throughput]:
    return await app.job_manager.throughput_async(**{"since": LONG_AGO, **given})


async def test_workers_add_to_the_same_minute(app: procrastinate.App) -> None:
    await add(app, a={"succeeded": 2, "failed": 1}, b={"todo": 4})
    await add(app, a={"succeeded": 3, "aborted": 1}, c={"cancelled": 5})
    (total,) = await listed(app, step=YEAR)
    assert (total.succeeded, total.failed, total.cancelled, total.aborted, total.retried) == (
        *(5, 1, 5, 1, 4),
    )
    assert total.ended == 12
    assert (total.queue, total.task, total.seconds) == (None, None, 366 * 86_400)
    assert (total.run.count, total.run.sum, total.run.buckets[11]) == (16, 16.0, 16)
    assert (total.waited.count, total.waited.mean) == (0, None)


async def test_queues_and_tasks_can_be_told_apart_or_chosen(app: procrastinate.App) -> None:
    await add(app, a={"succeeded": 2}, b={"succeeded": 3})
    by_queue = await listed(app, step=YEAR, by="queue")
    assert [(each.queue, each.task, each.succeeded) for each in by_queue] == [
        *(("a", None, 2), ("b", None, 3)),
    ]
    by_both = await listed(app, step=YEAR, by=["queue", "task"], queue="b")
    assert [(each.queue, each.task, each.succeeded) for each in by_both] == [("b", "t", 3)]
    assert await listed(app, task="other") == []
    assert len(await listed(app, task="t", step=YEAR)) == 1


async def test_what_was_not_counted_apart_is_in_the_sum_and_told_apart_without_names(
    app: procrastinate.App,
) -> None:
    tallies = Tallies()
    for number in range(MOST_KINDS + 3):
        tally = tallies.tally(0, (f"q{number % 10}", f"t{number}"))
        tally.counts[Status.SUCCEEDED] += 1
        tally.measure(Job(1, Status.DOING, "q", "t", {}), 1.0)
    await run(app, flows.add(tallies.by_minute[0], age=0))
    for by, named in (("queue", 10), ("task", MOST_KINDS), (("queue", "task"), MOST_KINDS)):
        found = await listed(app, step=YEAR, by=by)
        rest, others = found[0], found[1:]
        assert "" in (rest.queue, rest.task)
        assert (rest.succeeded, rest.run.count, rest.run.sum) == (3, 3, 3.0)
        assert len(others) == named
        assert sum(each.succeeded for each in others) == MOST_KINDS
    (total,) = await listed(app, step=YEAR)
    assert (total.succeeded, total.run.sum) == (MOST_KINDS + 3, MOST_KINDS + 3.0)


KINDS = [(f"q{number % 3}", f"t{number % 4}") for number in range(12)]


@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.sampled_from(KINDS), st.integers(1, 9)), max_size=30
    )
)
def test_each_way_to_ask_gives_the_same_sums(counted: list[tuple[int, Kind, int]]) -> None:
    with procrastinate.App(connector=InMemoryConnector()).open() as app:
        for minutes, kind, count in counted:
            tally = Tally()
            tally.counts[Status.FAILED] += count
            tally.measure(Job(1, Status.DOING, "q", "t", {}), 0.5, count)
            app._gateway.run(flows.add({kind: tally}, age=minutes * 60.0), transaction=True)
        app._gateway.run(flows.tidy(keep=30 * 86_400), transaction=True)

        def failed(**given: Any) -> int:
            found = app.job_manager.throughput(since=LONG_AGO, **given)
            assert all(each.run.count == each.failed for each in found)
            return sum(each.failed for each in found)

        total = sum(count for _, _, count in counted)
        bys: list[Any] = [(), "queue", "task", ("queue", "task")]
        assert [failed(by=by) for by in bys] == [total] * 4
        for queue, task in KINDS:
            of = [count for _, kind, count in counted if kind[0] == queue]
            both = [count for _, kind, count in counted if kind == (queue, task)]
            assert [failed(by=by, queue=queue) for by in bys] == [sum(of)] * 4
            assert [failed(by=by, queue=queue, task=task) for by in bys] == [sum(both)] * 4


async def test_steps_are_aligned_and_times_are_limits(app: procrastinate.App) -> None:
    for minutes in (3, 4, 5, 9):
        await add(app, minutes * MINUTE, a={"succeeded": 1})
    found = await listed(app)
    assert [each.begins_at.second for each in found] == [0] * len(found)
    assert [each.seconds for each in found] == [60] * len(found)
    assert sum(each.succeeded for each in found) == 4
    first, *_, last = [each.begins_at for each in found]
    assert last - first in (5 * MINUTE, 6 * MINUTE, 7 * MINUTE)
    within = await listed(app, since=first, until=last)
    assert sum(each.succeeded for each in within) == 3
    assert {each.begins_at.minute % 5 for each in await listed(app, step=5 * MINUTE)} == {0}


async def test_after_a_day_minutes_become_hours_and_at_last_they_go(
    app: procrastinate.App,
) -> None:
    now = datetime.now(UTC)
    in_one_hour = (DAY + timedelta(hours=2)) + timedelta(minutes=now.minute)
    for minutes in (5, 15, 15, 25):
        await add(app, in_one_hour - minutes * MINUTE, a={"succeeded": 1}, b={"failed": 2})
    await add(app, 2 * in_one_hour, a={"succeeded": 7})
    await add(app, a={"succeeded": 100})
    before = sum(each.ended for each in await listed(app))
    assert await run(app, flows.tidy(keep=7 * 86_400)) is False
    assert await run(app, flows.tidy(keep=7 * 86_400)) is False  # nothing is left to do
    found = await listed(app, by="queue", until=now - DAY)
    assert {each.seconds for each in found} == {3600}
    assert {(each.begins_at.minute, each.begins_at.second) for each in found} == {(0, 0)}
    assert sum(each.ended for each in await listed(app)) == before == 119
    latest = found[-1]
    assert (latest.queue, latest.failed, latest.run.count, latest.run.sum) == ("b", 8, 8, 8.0)
    await run(app, flows.tidy(keep=1.5 * 86_400))
    assert sum(each.ended for each in await listed(app)) == 112


async def test_minutes_of_an_hour_that_was_rolled_up_are_added_to_it(
    app: procrastinate.App,
) -> None:
    for _ in range(2):
        await add(app, 2 * DAY, a={"succeeded": 1})
        await run(app, flows.tidy(keep=7 * 86_400))
    assert sum(each.succeeded for each in await listed(app, step=YEAR)) == 2


async def test_a_worker_counts_what_it_has_written(app: procrastinate.App) -> None:
    async def fail(times: int, context: procrastinate.JobContext) -> None:
        if context.job.attempts <= times:
            raise ValueError(times)

    for name, retries in (("good", 0), ("bad", 1)):
        app.task(name=name, queue=name, retry=retries, pass_context=True)(
            lambda context, times: fail(times, context)
        )
    await app.configure_task("good").defer_async(times=0)
    await app.configure_task("good").defer_async(times=9)
    await app.configure_task("bad").defer_async(times=1)
    await app.run_worker_async(wait=False, concurrency=3, log_jobs="none")
    by_queue = {each.queue: each for each in await listed(app, by="queue", step=YEAR)}
    good, bad = by_queue["good"], by_queue["bad"]
    assert (good.succeeded, good.failed, good.retried) == (1, 1, 0)
    assert (bad.succeeded, bad.failed, bad.retried) == (1, 0, 1)
    assert (good.run.count, good.waited.count) == (2, 2)
    assert (bad.run.count, bad.waited.count) == (2, 1)


async def test_a_worker_that_is_told_to_counts_nothing(app: procrastinate.App) -> None:
    @app.task
    async def nothing() -> None: ...

    await nothing.defer_async()
    await app.run_worker_async(wait=False, keep_throughput=0)
    assert await listed(app) == []


async def test_plain_calls_give_the_same(app: procrastinate.App) -> None:
    await add(app, a={"succeeded": 1})
    found = await asyncio.to_thread(app.job_manager.throughput, since=LONG_AGO)
    assert found == await listed(app)


@pytest.mark.parametrize(
    "given",
    [
        {"since": datetime(2026, 1, 1)},
        {"since": None},
        {"until": "now"},
        {"step": timedelta(seconds=90)},
        {"step": timedelta()},
        {"step": -MINUTE},
        {"step": 60},
        {"step": timedelta(days=400)},
        {"by": "lock"},
        {"by": ["queue", 7]},
        {"by": 7},
        {"queue": ""},
        {"task": 3},
    ],
)
async def test_a_wrong_value_is_named(given: dict[str, Any]) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    async with app.open_async():
        with pytest.raises(procrastinate.errors.ConfigurationError, match=next(iter(given))):
            await listed(app, **given)
