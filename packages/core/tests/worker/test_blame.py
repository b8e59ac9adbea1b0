"""Jobs that have lost a worker: which may run beside which, and who is failed in the end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.model.job import Job
from procrastinate.model.liveness import blame

APP = Path(__file__).with_name("crash_app.py")


class Stage:
    """A task whose jobs run until they are told to end, and what ran beside what."""

    def __init__(self, app: procrastinate.App, query: Callable[..., Any]) -> None:
        self.app, self.query = app, query
        self.running: set[int] = set()
        self.together: list[frozenset[int]] = []
        self.held: dict[int, list[int]] = {}  # when a job began: the crashes of all that are held
        self.let_go: set[int] = set()
        self.all_may_end = False

        @app.task(name="scene", pass_context=True)
        async def scene(context: procrastinate.JobContext) -> None:
            self.running.add(context.job.id)
            self.together.append(frozenset(self.running))
            held = query("select crashes from procrastinate_jobs where status = 'doing'")
            self.held[context.job.id] = sorted(crashes or 0 for (crashes,) in held)
            try:
                while not (self.all_may_end or context.job.id in self.let_go):
                    await asyncio.sleep(0.005)
            finally:
                self.running.discard(context.job.id)

        self.scene = scene

    async def jobs(self, *crashes: int) -> list[int]:
        """Defer jobs that have this number of crashes on their record."""
        later = self.scene.configure(schedule_in={"hours": 1})
        ids = await later.batch_defer_async(*[{} for _ in crashes])
        self.query(
            "update procrastinate_jobs as job"
            " set crashes = made.crashes, hold = null, scheduled_at = null"
            " from unnest(%s, %s) as made(id, crashes) where job.id = made.id",
            ids,
            list(crashes),
        )
        self.query("select pg_notify('procrastinate_jobs', 'default')")
        return ids

    def column(self, name: str, job_id: int) -> Any:
        return self.query(f"select {name} from procrastinate_jobs where id = %s", job_id)[0][0]

    async def job(self, job_id: int) -> Job:
        return await self.app.job_manager.get_job_async(job_id)


@pytest.fixture
def stage(app: procrastinate.App, query: Callable[..., Any]) -> Stage:
    return Stage(app, query)


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blame, "SENT_BACK_FOR", timedelta(milliseconds=20))


async def test_a_process_holds_one_suspect_beside_any_number_of_others(
    stage: Stage, working: Any, until: Any, short_delays: None
) -> None:
    suspected = await stage.jobs(2, 3, 2)
    others = await stage.jobs(0, 1, 0, 1, 0, 1)
    async with working(stage.app, concurrency=20):
        await until(lambda: len(stage.running) == 7)
        stage.let_go.update(others)
        await until(lambda: len(stage.running) == 1)
        stage.all_may_end = True
        await until(lambda: len(set().union(*stage.together)) == 9)
        await until(lambda: not stage.running)

    assert all(len(group & set(suspected)) <= 1 for group in stage.together)
    assert {(await stage.job(each)).attempts for each in suspected + others} == {1}


async def test_a_job_before_its_last_crash_runs_alone(
    stage: Stage, working: Any, until: Any
) -> None:
    others = await stage.jobs(0, 1, 2)
    async with working(stage.app, concurrency=20):
        await until(lambda: stage.running == set(others))
        (last,) = await stage.jobs(blame.CRASH_LIMIT - 1)
        await until(lambda: stage.column("status", last) == "doing")
        late = await stage.jobs(0, 0)
        stage.let_go.update(others)
        await until(lambda: stage.running == {last})
        stage.let_go.add(last)
        await until(lambda: stage.running == set(late))
        stage.all_may_end = True

    assert [group for group in stage.together if last in group] == [{last}]


async def test_in_an_empty_process_it_starts_at_once_and_others_keep_their_place(
    stage: Stage, working: Any, until: Any
) -> None:
    first = await stage.jobs(0, 0)
    (last,) = await stage.jobs(blame.CRASH_LIMIT - 1)
    async with working(stage.app, concurrency=3):
        await until(lambda: stage.running)
        assert stage.running == {last}
        assert [(await stage.job(each)).scheduled_at for each in first] == [None, None]
        stage.all_may_end = True
        await until(lambda: len(stage.together) == 3)

    assert [(await stage.job(each)).attempts for each in first] == [1, 1]


async def test_a_job_before_its_last_crash_starts_when_the_database_knows_that_it_is_alone(
    stage: Stage, working: Any, until: Any, short_delays: None
) -> None:
    """If it died before the others' hand-backs were written, the crash would count for them."""
    last, *others = await stage.jobs(4, 4, 3, 2, 1, 0)
    stage.all_may_end = True
    async with working(stage.app, concurrency=6):
        await until(lambda: len(stage.held) == 6)

    assert stage.held[last] == [4]
    assert stage.held[others[0]] == [4]
    assert {(await stage.job(each)).attempts for each in [last, *others]} == {1}


async def test_so_it_does_in_a_worker_that_does_not_wait(stage: Stage) -> None:
    """The next job starts when it has ended; that this is written is not promised (rule 4)."""
    last, innocent = await stage.jobs(4, 0)
    stage.all_may_end = True
    await stage.app.run_worker_async(wait=False, concurrency=6, install_signal_handlers=False)

    assert stage.held[last] == [4]
    assert stage.together == [{last}, {innocent}]


async def test_a_suspect_starts_when_the_hand_backs_of_others_are_written(
    stage: Stage, working: Any, until: Any, short_delays: None
) -> None:
    suspected = await stage.jobs(2, 3, 2)
    await stage.jobs(0, 1)
    stage.all_may_end = True
    async with working(stage.app, concurrency=6):
        await until(lambda: len(stage.held) == 5)

    for each in suspected:
        assert sum(map(blame.is_suspect, stage.held[each])) == 1


@pytest.mark.parametrize("crashes", [blame.SUSPECTED, blame.CRASH_LIMIT - 1])
async def test_a_suspect_starts_when_the_endings_before_it_are_written(
    stage: Stage,
    working: Any,
    until: Any,
    crashes: int,
    app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would run again if it killed the process."""
    may_write, run_async = asyncio.Event(), app._gateway.run_async

    async def slow(flow: Any, **options: Any) -> Any:
        if flow.__name__ == "settle":
            await may_write.wait()
        return await run_async(flow, **options)

    monkeypatch.setattr(app._gateway, "run_async", slow)
    ended = await stage.jobs(0, 0, 0)
    stage.let_go.update(ended)
    async with working(stage.app, concurrency=5):
        await until(lambda: len(stage.held) == 3 and not stage.running)
        (suspect,) = await stage.jobs(crashes)
        await until(lambda: stage.column("status", suspect) == "doing")
        (after,) = await stage.jobs(0)
        if crashes == blame.SUSPECTED:  # beside such a one others are claimed
            await until(lambda: after in stage.held)
        else:
            await asyncio.sleep(0.1)
        begun = set(stage.held)
        may_write.set()
        await until(lambda: suspect in stage.held)
        stage.all_may_end = True
        await until(lambda: after in stage.held)

    assert suspect not in begun
    assert (after in begun) is (crashes == blame.SUSPECTED)  # beside the other they are not
    assert [stage.column("status", each) for each in ended] == ["succeeded"] * 3


async def test_it_goes_back_with_a_delay_if_the_process_does_not_become_empty(
    stage: Stage, working: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "WAIT_TO_BE_ALONE", 0.05)
    (endless,) = await stage.jobs(0)
    async with working(stage.app, concurrency=3):
        await until(lambda: stage.running == {endless})
        (last,) = await stage.jobs(blame.CRASH_LIMIT - 1)
        await until(lambda: stage.column("bounces", last) is not None)
        job = await stage.job(last)
        (innocent,) = await stage.jobs(0)
        await until(lambda: stage.running == {endless, innocent})
        stage.all_may_end = True

    assert (job.attempts, job.status) == (0, Status.TODO)
    assert job.scheduled_at is not None


@pytest.mark.parametrize("how", ["stop", "abort"])
async def test_a_job_that_waits_to_be_alone_is_handed_back_when_it_is_not_to_run(
    stage: Stage, working: Any, until: Any, how: str
) -> None:
    (endless,) = await stage.jobs(0)
    async with working(stage.app, concurrency=3, shutdown_graceful_timeout=0):
        await until(lambda: stage.running == {endless})
        (last,) = await stage.jobs(blame.CRASH_LIMIT - 1)
        await until(lambda: stage.column("status", last) == "doing")
        if how == "abort":
            await stage.app.job_manager.cancel_job_by_id_async(last, abort=True)
            await until(lambda: stage.column("status", last) == "aborted")

    job = await stage.job(last)
    assert (job.status, job.attempts) == (Status.ABORTED if how == "abort" else Status.TODO, 0)


# Real processes


class Fleet:
    """Worker processes that are started again when they die, as a supervisor does."""

    def __init__(self, dsn: str, count: int, concurrency: int) -> None:
        options = {
            "update_heartbeat_interval": 0.2,
            "stalled_worker_timeout": 3.0,  # no live one is taken for dead on a busy machine
            "concurrency": concurrency,
            "fetch_job_polling_interval": 0.5,
        }
        self.command = [sys.executable, str(APP), dsn, json.dumps(options)]
        self.processes = [self.start() for _ in range(count)]
        self.deaths = 0

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            for number, process in enumerate(self.processes):
                if process.poll() is not None:
                    self.deaths += 1
                    self.processes[number] = self.start()
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("killers", "innocent", "concurrency"), [(1, 9, 10), (1, 99, 100), (2, 56, 10)]
)
def test_only_the_jobs_that_kill_their_process_fail(
    sync_app: procrastinate.App,
    dsn: str,
    query: Callable[..., Any],
    killers: int,
    innocent: int,
    concurrency: int,
) -> None:
    nap = sync_app.configure_task("nap")
    suicide = sync_app.configure_task("slow_suicide")
    guilty: list[int] = []
    for number in range(killers + innocent):
        if number % (innocent // killers) == 3 and len(guilty) < killers:
            guilty.append(suicide.defer(seconds=0.2))
        else:
            nap.defer(seconds=0.4)
    fleet = Fleet(dsn, 2, concurrency)
    try:
        unended = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        fleet.run_until(lambda: query(unended) == [(0,)], 200)
    finally:
        fleet.stop()

    rows = query("select id, status::text, crashes from procrastinate_jobs")
    print(fleet.deaths, sorted(rows))
    assert sorted(job_id for job_id, status, _ in rows if status == "failed") == guilty
    assert {status for _, status, _ in rows} == {"failed", "succeeded"}
    reasons = query("select errors->-1->>'message' from procrastinate_jobs where status = 'failed'")
    assert all("while it held this job" in reason for (reason,) in reasons)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_kills_at_once_fails_after_five_crashes(
    sync_app: procrastinate.App, dsn: str, query: Callable[..., Any]
) -> None:
    """What goes back because of it is written before it starts, so it is alone when it dies."""
    nap = sync_app.configure_task("nap")
    guilty = sync_app.configure_task("suicide").defer()
    nap.batch_defer(*[{"seconds": 1.0}] * 9)
    fleet = Fleet(dsn, 2, 5)
    try:
        unended = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        fleet.run_until(lambda: query(unended) == [(0,)], 120)
    finally:
        fleet.stop()

    rows = query("select id, status::text, crashes from procrastinate_jobs order by id")
    crashes = {job_id: crashes or 0 for job_id, _, crashes in rows}
    assert (crashes.pop(guilty), fleet.deaths) == (blame.CRASH_LIMIT, blame.CRASH_LIMIT)
    assert max(crashes.values()) <= blame.SUSPECTED
    assert [job_id for job_id, status, _ in rows if status == "failed"] == [guilty]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_machine_that_fails_costs_the_others_little(
    sync_app: procrastinate.App, dsn: str, query: Callable[..., Any]
) -> None:
    """One kill -9 of a worker with 100 running jobs while 1,000 wait: near a plain requeue."""
    nap_async = sync_app.configure_task("nap_async")
    nap_async.batch_defer(*[{"seconds": 1.0}] * 1_100)
    fleet = Fleet(dsn, 2, 100)
    try:
        running = "select count(*) from procrastinate_jobs where status = 'doing'"
        done = "select count(*) from procrastinate_jobs where status = 'succeeded'"
        fleet.run_until(lambda: query(running)[0][0] >= 200, 30)
        began = time.monotonic()
        fleet.processes[0].kill()
        fleet.run_until(lambda: query(done) == [(1_100,)], 90)
        took = time.monotonic() - began
    finally:
        fleet.stop()

    crashed = query("select count(*), max(crashes) from procrastinate_jobs where crashes > 0")
    print(took, crashed)
    assert crashed[0][1] == 1
    # 1,100 s of work on 200 slots are 5.5 s; a process starts within 2 s, and those that were lost
    # are found after 3 to 4 s and begin anew. One after the other, they would take 100 s.
    assert took < 60
