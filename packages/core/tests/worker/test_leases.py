"""Jobs that are a worker's, may be, or are no more: what it does about each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import AbortReason, Status
from procrastinate.worker.claiming.fetcher import Fetcher
from procrastinate.worker.companions.heartbeat import Heartbeat
from procrastinate.worker.companions.vitals import Vitals

QUICK = {"update_heartbeat_interval": 0.2, "stalled_worker_timeout": 1.0}
#: For tests in which it must never be taken for dead: a busy machine may be that late with a beat.
STEADY = {"update_heartbeat_interval": 0.2, "stalled_worker_timeout": 4.0}
RUNNING = "select id from procrastinate_jobs where status = 'doing'"
Query = Callable[..., list[tuple[Any, ...]]]


async def end_of(app: procrastinate.App, job_id: int) -> procrastinate.Job:
    async with asyncio.timeout(15):
        while True:
            job = await app.job_manager.get_job_async(job_id)
            if job.status.is_final:
                return job
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("sign", ["its row is gone", "a write finds no lease"])
async def test_only_jobs_that_are_lost_are_cancelled(
    app: procrastinate.App, working: Any, query: Query, until: Callable[..., Any], sign: str
) -> None:
    """Another worker has taken one of two; something shows this worker that jobs may be lost."""
    ended: list[tuple[str, AbortReason | None]] = []
    go_on, end_short = asyncio.Event(), asyncio.Event()

    @app.task(name="long", pass_context=True)
    async def long(context: procrastinate.JobContext, which: str) -> None:
        try:
            await go_on.wait()
        finally:
            ended.append((which, context.abort_reason()))

    @app.task(name="short")
    async def short() -> None:
        await end_short.wait()

    async with working(app, concurrency=3, **QUICK):
        kept, lost = [await long.defer_async(which=which) for which in ("kept", "lost")]
        third = await short.defer_async()
        await until(lambda: len(query(RUNNING)) == 3)
        taken = [lost] if sign == "its row is gone" else [lost, third]
        query("insert into procrastinate_workers (id, name) values (99, 'other')")
        query(
            "update procrastinate_jobs set worker_id = 99, lease = lease + 1, crashes = crashes + 1"
            " where id = any(%s)",
            taken,
        )
        if sign == "its row is gone":
            query("delete from procrastinate_workers where id <> 99")
        end_short.set()
        await until(lambda: ended)
        assert ended == [("lost", AbortReason.LEASE_LOST)]
        go_on.set()
        job = await end_of(app, kept)

    assert job.status is Status.SUCCEEDED
    assert ended[1:] == [("kept", None)]
    assert query("select status::text, worker_id from procrastinate_jobs where id = %s", lost) == [
        ("doing", 99)
    ]


async def test_a_claim_counts_only_if_trust_held_since_it_was_sent(
    any_app: procrastinate.App, working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stood still while it was answered: others may have run the jobs since."""
    runs: list[int] = []
    claim, beat = Fetcher.claim, Heartbeat._give_sign_of_life
    standing_still = False
    claimed: list[int] = []

    def no_beat(self: Heartbeat, line: Any) -> None:
        if not standing_still:
            beat(self, line)

    async def slow_claim(self: Fetcher, limit: int, known: Any) -> Any:
        nonlocal standing_still
        found = await claim(self, limit, known)
        claimed.extend(job.id for job in found.jobs)
        if len(claimed) == 1 and found.jobs:
            standing_still = True
            await asyncio.sleep(4.2)  # longer than the window
            standing_still = False
            await asyncio.sleep(0.5)  # trust is back before the answer is read
        return found

    @any_app.task(name="work")
    async def work() -> None:
        runs.append(1)

    monkeypatch.setattr(Heartbeat, "_give_sign_of_life", no_beat)
    monkeypatch.setattr(Fetcher, "claim", slow_claim)
    job_id = await work.defer_async()
    async with working(any_app, fetch_job_polling_interval=0.1, **STEADY):
        job = await end_of(any_app, job_id)

    assert (job.status, job.attempts, runs) == (Status.SUCCEEDED, 1, [1])
    assert claimed == [job_id, job_id]


async def test_a_slow_claim_is_kept_while_trust_holds(
    any_app: procrastinate.App, working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slow server would mean that nothing is ever run."""
    claim = Fetcher.claim
    claimed: list[int] = []

    async def slow_claim(self: Fetcher, limit: int, known: Any) -> Any:
        found = await claim(self, limit, known)
        claimed.extend(job.id for job in found.jobs)
        if found.jobs:
            await asyncio.sleep(5.0)
        return found

    @any_app.task(name="work")
    async def work() -> None: ...

    monkeypatch.setattr(Fetcher, "claim", slow_claim)
    job_id = await work.defer_async()
    async with working(any_app, fetch_job_polling_interval=0.1, **STEADY):
        job = await end_of(any_app, job_id)

    assert (job.status, claimed) == (Status.SUCCEEDED, [job_id])


async def test_a_heartbeat_does_not_wait_for_a_lock_on_the_jobs(
    app: procrastinate.App, working: Any, query: Query, until: Callable[..., Any]
) -> None:
    """What a CREATE INDEX takes, for longer than until a worker is taken for dead."""
    oldest = 0.0

    def age() -> float:
        ((seconds,),) = query(
            "select extract(epoch from clock_timestamp() - min(last_heartbeat))::float"
            " from procrastinate_workers"
        )
        return float(seconds)

    async with working(app, abort_job_polling_interval=0.1, **STEADY):
        await until(lambda: query("select 1 from procrastinate_workers"))
        query("begin")
        query("lock table procrastinate_jobs in access exclusive mode")
        locked_until = time.monotonic() + STEADY["stalled_worker_timeout"] + 0.5
        while time.monotonic() < locked_until:
            oldest = max(oldest, age())
            await asyncio.sleep(0.02)
        query("commit")

    assert oldest < STEADY["stalled_worker_timeout"]


@pytest.mark.parametrize(("silent_for", "status"), [(1.5, Status.DOING), (2.5, Status.SUCCEEDED)])
async def test_a_worker_that_does_not_wait_recovers_first_what_was_silent_for_twice_the_timeout(
    app: procrastinate.App, query: Query, silent_for: float, status: Status
) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    job_id = await work.defer_async()
    query(
        "insert into procrastinate_workers (id, name, last_heartbeat)"
        " values (99, 'dead', now() - %s * interval '30 seconds')",
        silent_for,
    )
    query(
        "update procrastinate_jobs set status = 'doing', worker_id = 99, started_at = now(),"
        " attempts = 1, lease = 1"
    )

    await app.run_worker_async(wait=False, install_signal_handlers=False)

    assert (await app.job_manager.get_job_async(job_id)).status is status


async def test_after_an_outage_no_worker_judges_others_at_once(
    app: procrastinate.App,
    working: Any,
    query: Query,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All signs of life are old then: here, those of a worker that is not back yet."""
    away = False
    beat = Heartbeat._give_sign_of_life

    def beat_unless_away(self: Heartbeat, line: Any) -> None:
        if away:
            raise procrastinate.errors.ConnectionLost("the server is down")
        beat(self, line)

    @app.task(name="elsewhere", queue="elsewhere")
    async def elsewhere() -> None: ...

    monkeypatch.setattr(Heartbeat, "_give_sign_of_life", beat_unless_away)
    confirmed: list[float] = []
    monkeypatch.setattr(
        Vitals, "confirmed", _noting(Vitals.confirmed, lambda: confirmed.append(time.monotonic()))
    )
    job_id = await elsewhere.defer_async()
    async with working(app, queues=["here"], **QUICK):
        await asyncio.sleep(1.5)  # it may judge others now
        away = True
        await asyncio.sleep(1.5)
        query(
            "insert into procrastinate_workers (id, name, last_heartbeat)"
            " values (99, 'late', now() - interval '1.5 seconds')"
        )
        query("update procrastinate_jobs set status = 'doing', worker_id = 99, started_at = now()")
        del confirmed[:]
        away = False
        await until(lambda: confirmed)
        back = confirmed[0]
        await until(lambda: query("select 1 from procrastinate_jobs where worker_id is null"))

    assert time.monotonic() - back >= QUICK["stalled_worker_timeout"] - 0.05
    assert (await app.job_manager.get_job_async(job_id)).status is Status.TODO


def _noting(method: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        note()
        return method(*args)

    return noted


async def test_a_large_pool_gives_a_workers_companions_one_connection_each(
    dsn: str, query: Query, until: Callable[..., Any]
) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn, application_name="large", minsize=10)
    app = procrastinate.App(connector=connector)

    @app.periodic(cron="0 0 1 1 *")
    @app.task(name="yearly")
    def yearly(timestamp: int) -> None: ...

    def connections() -> int:
        ((count,),) = query(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and application_name = 'large'"
        )
        return int(count)

    expected = 10 + 3  # the pool, the listener, the heartbeat and the ticker
    async with app.open_async(), app.worker(**QUICK):
        await until(lambda: connections() >= expected)
        most = connections()
        for _ in range(30):
            await asyncio.sleep(0.01)
            most = max(most, connections())

    assert most == expected
