"""In which order a worker claims what is ready, over all its queues."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

import procrastinate
from procrastinate.model.claiming import holding
from procrastinate.model.job import Job
from procrastinate.storage.claim import Claim
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker import job_log
from procrastinate.worker.backlog import backlog
from procrastinate.worker.claiming.fetcher import Fetcher

Until = Callable[..., Awaitable[None]]
Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (priority, id) of the jobs that workers have claimed, in the order of their first claims.

    A job that is claimed ahead goes back if no slot is free for it in time.
    """
    seen: list[tuple[int, int]] = []
    claim, hand_over = Fetcher.claim, Fetcher.hand_over

    def note(jobs: Sequence[Job]) -> None:
        places = [(job.priority, job.id) for job in jobs]
        seen.extend(place for place in places if place not in seen)

    async def claim_noting(self: Fetcher, *args: Any, **options: Any) -> Claim:
        found = await claim(self, *args, **options)
        note(found.jobs)
        return found

    async def hand_over_noting(self: Fetcher, *args: Any, **options: Any) -> HandedOver:
        done = await hand_over(self, *args, **options)
        note(done.claim.jobs)
        return done

    monkeypatch.setattr(Fetcher, "claim", claim_noting)
    monkeypatch.setattr(Fetcher, "hand_over", hand_over_noting)
    return seen


def in_order(claimed: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(claimed, key=lambda place: (-place[0], place[1]))


def spread(draw: random.Random, queues: int, jobs: int) -> Iterator[tuple[str, int]]:
    """The queues and priorities of jobs: some queues have many, most of all the first one."""
    for _ in range(jobs):
        yield f"q{int(queues * draw.random() ** 2)}", draw.choice([0, 0, 1, 2])


@pytest.mark.parametrize("listed", [True, False], ids=["named queues", "all queues"])
@pytest.mark.parametrize("concurrency", [1, 20])
@pytest.mark.parametrize("queues", [2, 5, 100])
async def test_what_was_ready_when_it_began_is_claimed_in_order_over_all_queues(
    app: procrastinate.App,
    query: Query,
    claimed: list[tuple[int, int]],
    queues: int,
    concurrency: int,
    listed: bool,
) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    draw = random.Random(queues)
    for queue, priority in spread(draw, queues, 300):
        query(
            "insert into procrastinate_jobs (task_name, queue_name, priority)"
            " values ('work', %s, %s)",
            queue,
            priority,
        )
    names = [f"q{n}" for n in range(queues)] if listed else None
    await app.run_worker_async(queues=names, concurrency=concurrency, wait=False)

    assert len(claimed) == 300
    assert claimed == in_order(claimed)


@pytest.mark.parametrize("queues", [1, 3])
async def test_a_line_runs_in_order_among_jobs_without_locks(
    app: procrastinate.App, query: Query, claimed: list[tuple[int, int]], queues: int
) -> None:
    """Also through queues; a job without a lock waits for no other."""

    @app.task(name="work")
    async def work() -> None: ...

    for n in range(60):
        query(
            "insert into procrastinate_jobs (task_name, queue_name, lock) values ('work', %s, %s)",
            f"q{n % queues}",
            f"lock {n % 2}" if n % 3 == 0 else None,
        )
    await app.run_worker_async(concurrency=5, wait=False)

    lines = dict(query("select id, lock from procrastinate_jobs"))
    for lock in (None, "lock 0", "lock 1"):
        line = [place for place in claimed if lines[place[1]] == lock]
        assert line == in_order(line)
        assert len(line) == list(lines.values()).count(lock)


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "one-shot"])
async def test_jobs_that_were_handed_back_still_start_before_those_behind_them(
    app: procrastinate.App, query: Query, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Here no job may wait for a slot: all that are claimed ahead are handed back at once."""
    began: list[tuple[int, int]] = []
    handed_back: list[int] = []
    monkeypatch.setattr(holding, "LEAST_PATIENCE", 0.0)
    monkeypatch.setattr(holding, "CLAIMS_PATIENCE", 0.0)
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    monkeypatch.setattr(backlog, "GOING_BACK_MAY_TAKE", 60.0)  # on a busy machine it takes long
    monkeypatch.setattr(job_log, "waited_too_long", handed_back.append)

    @app.task(name="work", pass_context=True)
    async def work(context: procrastinate.JobContext) -> None:
        began.append((context.job.priority, context.job.id))
        await asyncio.sleep(0.0005)

    for n in range(10):
        for _ in range(30):
            query(
                "insert into procrastinate_jobs (task_name, queue_name, priority)"
                " values ('work', 'q', %s)",
                -5 * (n % 2),
            )
    running = asyncio.create_task(app.run_worker_async(concurrency=1, wait=waits))
    async with asyncio.timeout(60):
        while len(began) < 300:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sum(handed_back) > 0
    assert began == in_order(began)
