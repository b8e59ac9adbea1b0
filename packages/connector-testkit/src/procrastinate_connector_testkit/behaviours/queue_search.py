"""Jobs found, counted, grouped and explained with bounded effort."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from procrastinate.model.endings.outcome import Finished
from procrastinate.model.job import NewJob, Status
from procrastinate.model.monitoring.search import Count, JobPage
from procrastinate.model.partitions import MANY
from procrastinate.model.states import State, holds_of, statuses_of
from procrastinate.storage import failures, glance, search, why
from procrastinate.storage.jobs import JobFilter
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.queue import HOUR_US, Queue, error

QUEUE = "the queue: searching"
SECOND = timedelta(seconds=1)


def which(*states: State, **filters: Any) -> JobFilter:
    if states:
        filters |= {"statuses": statuses_of(states), "holds": holds_of(states)}
    return JobFilter(**filters)


async def page(queue: Queue, wanted: JobFilter, cursor: str | None = None, **size: int) -> JobPage:
    flow = search.search_jobs(
        wanted,
        cursor,
        **{"limit": 2, "budget": 100} | size,
        partitions=queue.statements.partitions,
        loads=queue.loads,
    )
    return await queue.run(flow)


async def found(db: Queue, /, *states: State, **filters: Any) -> list[int]:
    """The ids on all pages of a search."""
    ids: list[int] = []
    cursor = None
    limit = 20 if db.statements.distributed else 2  # a page asks each of many partitions
    while True:
        here = await page(db, which(*states, **filters), cursor, limit=limit)
        ids += [job.id for job in here.jobs]
        cursor = here.cursor
        if cursor is None:
            return ids


async def fail(queue: Queue, message: str, **options: Any) -> int:
    job_id = await queue.defer("bad", **options)
    worker = await queue.worker()
    job = await queue.claim_one(worker)
    assert job.id == job_id
    await queue.finish(worker, job, ending=Finished(Status.FAILED, error=error(message)))
    return job_id


class Searching:
    """What people look for."""

    @behaviour(QUEUE)
    async def test_each_state_is_found_page_by_page(self, queue: Queue) -> None:
        failed = [await fail(queue, f"no host {n}") for n in range(3)]
        locked = await queue.defer_all(NewJob("t", lock="l"), NewJob("t", lock="l"))
        running = await queue.claim_one(await queue.worker())
        later = await queue.defer_all(
            *(NewJob("t", schedule_in_us=hours * HOUR_US) for hours in (3, 1, 2))
        )
        ready = await queue.defer_all(*(NewJob("t", queue="q", priority=n) for n in (0, 2, 1)))
        assert running.id == locked[0]
        third, first, second = later
        assert await found(queue, State.FAILED) == failed[::-1]
        assert await found(queue, State.RUNNING) == [running.id]
        assert await found(queue, State.SCHEDULED) == [first, second, third]
        assert await found(queue, State.READY, queue="q") == [ready[1], ready[2], ready[0]]
        waiting = await found(queue, State.READY, State.BEHIND_A_LOCK)
        assert sorted(waiting) == sorted([*ready, locked[1]])
        assert await found(queue) == sorted([*failed, *locked, *later, *ready], reverse=True)
        assert await found(queue, ids=[ready[0], failed[0]]) == [ready[0], failed[0]]

    @behaviour(QUEUE)
    async def test_a_search_stops_at_its_budget(self, queue: Queue) -> None:
        await queue.defer_all(*(NewJob("t") for _ in range(5)))
        here = await page(queue, which(task="other"), budget=3)
        assert (here.jobs, here.looked_at, here.is_complete) == ([], 3, False)
        last = await page(queue, which(task="other"), here.cursor, budget=3)
        assert (last.jobs, last.looked_at, last.cursor, last.is_complete) == ([], 2, None, True)
        count = search.count_jobs(which(), budget=3, partitions=queue.statements.partitions)
        assert await queue.run(count) == Count(3, is_complete=False)

    @behaviour(QUEUE)
    async def test_jobs_are_found_by_time_and_by_error(self, queue: Queue) -> None:
        failed = [await fail(queue, text) for text in ("100% of ÄÖ_x", "100 of äö-x", r"a\b")]
        ended = (await queue.job(failed[1])).finished_at
        assert ended is not None
        assert await found(queue, since=ended - SECOND * 3600, until=ended + SECOND * 3600)
        assert await found(queue, since=ended + SECOND * 3600) == []
        assert await found(queue, until=ended - SECOND * 3600) == []
        assert failed[1] in await found(queue, since=ended)
        assert failed[1] not in await found(queue, until=ended)
        assert await found(queue, error="100% of") == [failed[0]]
        assert await found(queue, error="ö_X") == [failed[0]]
        assert await found(queue, error="100*x") == [failed[1], failed[0]]
        assert await found(queue, error="a\\b") == [failed[2]]

    @behaviour(QUEUE)
    async def test_failures_are_grouped(self, queue: Queue) -> None:
        failed = [await fail(queue, f"host '{n}' is away\nno {n}") for n in "abc"]
        (group,) = await queue.run(
            failures.list_failures(
                which(State.FAILED), budget=100 * MANY, partitions=queue.statements.partitions
            )
        )
        assert (group.task_name, group.error_text, group.count, group.newest_job_id) == (
            "bad",
            "host * is away",
            Count(3),
            failed[-1],
        )
        assert group.first_at is not None
        assert group.last_at is not None
        assert group.first_at <= group.last_at

    @behaviour(QUEUE)
    async def test_queues_are_seen_at_a_glance(self, queue: Queue) -> None:
        await fail(queue, "away")
        ready = await queue.defer_all(NewJob("t", queue="q"), NewJob("t", queue="q", priority=-1))
        await queue.defer("t", queue="r", schedule_in_us=HOUR_US)
        infos = await queue.run(glance.glance_at_queues(queue.statements.partitions))
        seen = {
            each.name: [
                str(count)
                for count in (each.ready, each.scheduled, each.behind_a_lock, each.failed)
            ]
            for each in infos
        }
        assert seen == {
            "default": ["0", "0", "0", "1"],
            "q": ["2", "0", "0", "0"],
            "r": ["0", "1", "0", "0"],
        }
        assert infos[1].oldest_ready_since == (await queue.job(ready[0])).deferred_at

    @behaviour(QUEUE)
    async def test_it_is_said_why_a_job_waits(self, queue: Queue) -> None:
        first, second = await queue.defer_all(NewJob("t", lock="l"), NewJob("t", lock="l"))
        later = await queue.defer("t", schedule_in_us=HOUR_US)
        worker = await queue.worker()
        await queue.claim(worker)

        async def reasons(job_id: int) -> list[tuple[str, int | None]]:
            told = await queue.run(why.why_waiting(job_id, queue.statements.partitions))
            return [(each.kind, each.job_id) for each in told]

        assert await reasons(first) == [("running", None)]
        unknown = ("unknown-task", None)  # this worker has no tasks
        assert await reasons(second) == [("lock", first), unknown]
        assert await reasons(later) == [("schedule", None), unknown]
        await queue.cancel(first, later, abort=True)
        assert await reasons(first) == [("running", None), ("abort-requested", None)]
        assert await reasons(later) == [("ended", None)]
