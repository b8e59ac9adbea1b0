"""Two real workers that claim ahead: what a ledger of claims, hand-backs and starts says.

`model/test_two_workers.py` shows the same for many more queues, on a clock that is moved.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import procrastinate
from procrastinate.model.claiming import holding
from procrastinate.model.claiming.ahead import Ahead
from procrastinate.model.job import Job
from procrastinate.storage.claim import Claim
from procrastinate.worker.backlog import backlog
from procrastinate.worker.claimed import Asked

USUAL, SELDOM = 0.005, 0.3  # seconds that a job takes
JOBS = 160
LEAST = 0.010  # seconds for which a job may wait claimed beside an idle slot

#: Notes each claim and each hand-back, with the moment.
LEDGER = """
    create table ledger (job_id bigint, status text, at float8);
    create function note() returns trigger language plpgsql as $$
        begin
            insert into ledger
            values (new.id, new.status, extract(epoch from clock_timestamp()));
            return null;
        end
    $$;
    create trigger note after update of status on procrastinate_jobs
        for each row when (new.status in ('todo', 'doing')) execute function note();
"""

Query = Callable[..., list[tuple[Any, ...]]]
Span = tuple[float, float]


class Ledger:
    """When each worker ran a job, and how long claims and hand-backs took."""

    def __init__(self) -> None:
        self.ran: defaultdict[str, list[Span]] = defaultdict(list)
        self.began: defaultdict[int, list[float]] = defaultdict(list)
        self.calls: list[float] = []
        self.late = 0.0  # the longest time by which the loop, and so all that is timed, was late

    def idle(self, worker: str) -> list[Span]:
        """The times between two of its jobs, and after its last one until the end of all."""
        end = max(ended for spans in self.ran.values() for _, ended in spans)
        spans = [*self.ran[worker], (end, end)]
        return [(before[1], after[0]) for before, after in itertools.pairwise(spans)]


@pytest.fixture
def ledger(query: Query, app: procrastinate.App, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    query(LEDGER)
    ledger = Ledger()
    run_async = app._gateway.run_async

    async def timed(flow: Any, **options: Any) -> Any:
        began = time.monotonic()
        found = await run_async(flow, **options)
        if flow.__name__ in ("claim", "settle"):
            ledger.calls.append(time.monotonic() - began)
        return found

    monkeypatch.setattr(app._gateway, "run_async", timed)
    return ledger


async def run_jobs_of_two_workers(app: procrastinate.App, ledger: Ledger, until: Any) -> None:
    """Run jobs of which one in ten takes long, deferred somewhat slower than they could be run."""
    dice = random.Random(9)
    lengths = [SELDOM if dice.randrange(10) == 0 else USUAL for _ in range(JOBS)]

    @app.task(pass_context=True)
    async def work(context: procrastinate.JobContext, n: int) -> None:
        began = time.time()
        ledger.began[context.job.id].append(began)
        await asyncio.sleep(lengths[n])
        ledger.ran[context.worker_name].append((began, time.time()))

    watching = asyncio.create_task(watch_the_loop(ledger))
    workers = [app.worker(concurrency=1, name=name) for name in ("a", "b")]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    for n in range(0, JOBS, 4):
        jobs = range(n, n + 4)
        await work.batch_defer_async(*({"n": n} for n in jobs))
        await asyncio.sleep(1.2 * sum(lengths[n] for n in jobs) / 2)  # as work comes in
    await until(lambda: sum(map(len, ledger.ran.values())) >= JOBS)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    watching.cancel()


async def watch_the_loop(ledger: Ledger) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.005)
        ledger.late = max(ledger.late, time.monotonic() - began - 0.005)


def waits_beside_an_idle_slot(ledger: Ledger, notes: list[tuple[int, str, float]]) -> list[float]:
    """For each claim: how long, at a stretch, the job waited while the other worker was idle."""
    of_job: defaultdict[int, list[tuple[str, float]]] = defaultdict(list)
    for job_id, status, at in notes:
        of_job[job_id].append((status, at))
    return [
        overlap(ledger, job_id, at, noted[place + 1 :])
        for job_id, noted in of_job.items()
        for place, (status, at) in enumerate(noted)
        if status == "doing"
    ]


def overlap(ledger: Ledger, job_id: int, claimed: float, later: list[tuple[str, float]]) -> float:
    ends = [at for status, at in later if status == "todo"]
    started = [at for at in ledger.began[job_id] if at >= claimed and (not ends or at < ends[0])]
    ended = (started or ends)[0]
    runner = next((name for name, spans in ledger.ran.items() if started and any(
        began == started[0] for began, _ in spans)), None)  # fmt: skip
    return max(
        (
            min(ended, until) - max(claimed, since)
            for worker in ledger.ran
            if worker != runner
            for since, until in ledger.idle(worker)
        ),
        default=0.0,
    )


@pytest.mark.one_partition("of many, it may wait for a second: docs/guarantees.md says so")
async def test_no_job_waits_claimed_for_long_while_the_other_workers_slot_is_idle(
    app: procrastinate.App, ledger: Ledger, query: Query, until: Callable[..., Any]
) -> None:
    await run_jobs_of_two_workers(app, ledger, until)

    notes = query("select job_id, status, at from ledger order by at")
    waits = sorted(waits_beside_an_idle_slot(ledger, notes))
    allowed = max(LEAST, 2 * max(ledger.calls)) + 2 * ledger.late
    handed_back = sum(status == "todo" for _, status, _ in notes)
    assert {len(began) for began in ledger.began.values()} == {1}
    assert sum(wait > allowed for wait in waits) <= JOBS // 50, waits[-10:]  # of a busy machine
    assert waits[-1] < max(SELDOM / 2, allowed)
    assert handed_back <= JOBS  # on a quiet machine, fewer than one for each long job


async def test_the_ledger_sees_jobs_that_wait_if_none_is_handed_back(
    app: procrastinate.App,
    ledger: Ledger,
    query: Query,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "LEAST_PATIENCE", 60.0)
    monkeypatch.setattr(holding, "PATIENCE", 60.0)

    await run_jobs_of_two_workers(app, ledger, until)

    notes = query("select job_id, status, at from ledger order by at")
    assert max(waits_beside_an_idle_slot(ledger, notes)) > SELDOM / 2


@pytest.mark.one_partition("order holds within a partition")
async def test_a_backlog_of_lower_priority_is_not_taken_for_an_empty_queue(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that comes short at one priority leaves the jobs of the lower ones behind."""
    claimed: set[int] = set()
    known_when_short: list[int] = []
    take = backlog.Backlog.take

    def noting(self: backlog.Backlog, claim: Claim, short: bool, sent_at: float) -> None:
        claimed.update(job.id for job in claim.jobs)
        if short:
            known_when_short.append(len(claimed))
        take(self, claim, short, sent_at)

    monkeypatch.setattr(backlog.Backlog, "take", noting)
    monkeypatch.setattr(backlog, "GOING_BACK_MAY_TAKE", 60.0)  # on a busy machine it takes long
    began: list[tuple[int, int]] = []

    @app.task(pass_context=True)
    async def short(context: procrastinate.JobContext) -> None:
        began.append((-context.job.priority, context.job.id))
        # After its end, so that many more seem to fit into the time of a claim than do.
        asyncio.get_running_loop().call_soon(time.sleep, 0.0005)

    for number in range(10):
        await short.configure(priority=[0, -5][number % 2]).batch_defer_async(*[{}] * 100)
    await app.run_worker_async(wait=False, concurrency=1)

    assert began == sorted(began)
    assert len(began) == 1_000
    assert set(known_when_short) == {1_000}


class Unwritten(set[int]):
    """A writer that writes nothing."""

    def add(self, entry: Any) -> None:
        super().add(entry.job.id)


@pytest.mark.parametrize(("claims_take", "waits"), [(0.0, 0.1), (0.04, 0.1), (0.3, 0.6), (7, 1)])
async def test_nothing_is_claimed_while_jobs_go_back_to_a_slow_database(
    claims_take: float, waits: float
) -> None:
    """What is claimed meanwhile comes after them, and would run before them."""
    slots = SimpleNamespace(by_id={}, offers=SimpleNamespace(take_back=lambda: None))
    ahead = Ahead(random.Random(1))
    ahead.claim_takes = claims_take
    held = backlog.Backlog(
        cast(Any, slots),
        cast(Any, Unwritten()),
        concurrency=1,
        ahead=ahead,
        trust=cast(Any, None),
        on_change=lambda: None,
        on_look=lambda: None,
    )
    job = Job(1, procrastinate.Status.DOING, "default", "task", {})
    held._waiting.append((job, Asked(0.0, 0.0)))
    before = time.monotonic()
    held.give_back()

    assert held.room() == 0
    assert before + waits <= held.room_from <= time.monotonic() + waits
