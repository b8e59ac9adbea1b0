"""What a worker does about periodic tasks, on a real database."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import drive
from procrastinate.drive import Flow
from procrastinate.model.job import NewJob
from procrastinate.model.partitions import MANY, ONE, Partitions
from procrastinate.model.periodic import DueTick, Periodic, Timetable, schedule_from
from procrastinate.storage import periodic as flows
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector
from procrastinate.watchdog import Watchdog
from procrastinate.worker.companions import ticker as ticker_module
from procrastinate.worker.companions.companion import Companion
from procrastinate.worker.companions.ticker import ServerClock, Ticker
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.line import Line

APP = Path(__file__).with_name("periodic_app.py")
SECOND = timedelta(seconds=1)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

#: Each job's tick, and by how many seconds it was deferred after it, in the order of their ids.
TICKS = """
    select
        (args->>'timestamp')::bigint,
        extract(epoch from deferred_at)::float - (args->>'timestamp')::bigint
    from procrastinate_jobs order by id
"""

Query = Callable[..., list[tuple[Any, ...]]]


def every_second(app: procrastinate.App, **options: Any) -> None:
    @app.periodic(cron="* * * * * *", **options)
    @app.task(name="second")
    async def second(timestamp: int) -> None: ...


def seen_before(query: Query, *, seconds: float, task: str = "second") -> None:
    """Let a schedule be settled up to a number of seconds ago, as if there was no worker since."""
    query(
        "insert into procrastinate_periodic (task_name, periodic_id, done_until)"
        " values (%s, '', now() - %s * interval '1 second')",
        task,
        seconds,
    )


def ticks_of(query: Query) -> list[int]:
    return [tick for tick, _ in query(TICKS)]


def consecutive(ticks: list[int]) -> bool:
    return ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def threads_named(end: str) -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.endswith(end)]


async def test_a_tick_is_deferred_when_its_time_comes_and_run(
    app: procrastinate.App, working: Callable[..., Any], query: Query, until: Callable[..., Any]
) -> None:
    """Never before, and soon after: on an idle machine within some milliseconds."""
    every_second(app, queue="q", priority=7, lock="l")
    ended = "select count(*) from procrastinate_jobs where status = 'succeeded'"
    async with working(app):
        await until(lambda: query(ended)[0][0] >= 3)
    found = query(TICKS)
    assert consecutive([tick for tick, _ in found])
    assert 0 <= min(late for _, late in found) < 1
    assert query("select distinct queue_name, priority, lock from procrastinate_jobs") == [
        ("q", 7, "l")
    ]


async def test_a_task_that_blocks_the_event_loop_delays_no_tick(
    app: procrastinate.App, working: Callable[..., Any], query: Query, until: Callable[..., Any]
) -> None:
    every_second(app)
    began = []

    @app.task
    async def blocking() -> None:
        began.append(time.time())
        time.sleep(5)  # noqa: ASYNC251 - the point of it

    async with working(app):
        await until(lambda: len(query(TICKS)) >= 1)
        await blocking.defer_async()
        await until(lambda: began)
    during = [late for tick, late in query(TICKS) if tick and began[0] <= tick < began[0] + 4.5]
    assert len(during) >= 4
    assert max(during) < 3  # the first one would be later than that if it waited for the task


async def test_what_was_missed_is_made_up_for_in_order_after_a_restart(
    app: procrastinate.App, query: Query
) -> None:
    """Up to max_delay, not all sixty; what is older is counted in one line."""
    every_second(app, max_delay=5)
    seen_before(query, seconds=60)
    await app.run_worker_async(wait=False)
    found = query(TICKS)
    assert consecutive([tick for tick, _ in found])
    assert 5 <= len(found) <= 20
    assert max(late for _, late in found) <= 20


async def test_ticks_that_are_too_old_are_told_once_and_by_one_worker(
    app: procrastinate.App, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    @app.periodic(cron="0 * * * *")
    @app.task(name="hourly")
    async def hourly(timestamp: int) -> None: ...

    seen_before(query, seconds=48 * 3600, task="hourly")
    for _ in range(2):
        await app.run_worker_async(wait=False)
    lines = [each.getMessage() for each in caplog.records if "max_delay" in each.getMessage()]
    assert len(lines) == 1
    assert re.search(r"hourly has missed 4[78] ticks", lines[0])


async def test_a_schedule_that_nobody_saw_before_starts_now(
    app: procrastinate.App, query: Query
) -> None:
    every_second(app)
    ((before,),) = query("select extract(epoch from clock_timestamp())::float")
    await app.run_worker_async(wait=False)
    assert all(tick > before for tick in ticks_of(query))
    query("update procrastinate_periodic set done_until = done_until - interval '2 seconds'")
    await app.run_worker_async(wait=False)
    assert len(ticks_of(query)) >= 2


async def test_a_worker_that_does_not_wait_runs_what_is_due_and_ends(
    app: procrastinate.App, query: Query
) -> None:
    every_second(app)
    seen_before(query, seconds=3)
    await app.run_worker_async(wait=False)
    assert query("select distinct status::text from procrastinate_jobs") == [("succeeded",)]


async def test_a_worker_of_another_queue_defers_too(
    app: procrastinate.App, working: Callable[..., Any], query: Query, until: Callable[..., Any]
) -> None:
    every_second(app, queue="elsewhere")
    async with working(app, queues=["mine"]):
        await until(lambda: query(TICKS))


async def test_a_changed_expression_goes_on_from_the_last_tick(
    app: procrastinate.App, query: Query
) -> None:
    every_second(app)
    last = int(time.time()) - 4
    query(
        "insert into procrastinate_periodic (task_name, periodic_id, done_until)"
        " values ('second', '', to_timestamp(%s))",
        last,
    )
    await app.run_worker_async(wait=False)
    assert ticks_of(query)[0] == last + 1


async def test_a_draining_worker_defers_no_more(
    app: procrastinate.App, working: Callable[..., Any], query: Query, until: Callable[..., Any]
) -> None:
    every_second(app, queue="elsewhere")
    began, go = asyncio.Event(), asyncio.Event()

    @app.task(queue="mine")
    async def long() -> None:
        began.set()
        await go.wait()

    await long.defer_async()
    async with working(app, queues=["mine"]) as worker:
        await asyncio.wait_for(began.wait(), 10)
        await until(lambda: len(ticks_of(query)) >= 2)
        worker.cancel()
        await until(lambda: not threads_named("-ticker"))
        before = ticks_of(query)
        await asyncio.sleep(1.5)
        assert ticks_of(query) == before
        go.set()


async def test_ticks_are_made_up_for_when_the_database_comes_back(
    app: procrastinate.App,
    working: Callable[..., Any],
    query: Query,
    until: Callable[..., Any],
    procrastinate_dsn: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    every_second(app)
    ((name,),) = query("select current_database()")
    elsewhere = psycopg2.connect(procrastinate_dsn, dbname="postgres")
    elsewhere.autocommit = True
    async with working(app):
        await until(lambda: query(TICKS))
        with elsewhere.cursor() as cursor:
            cursor.execute(f'alter database "{name}" with allow_connections false')
        query(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        await until(lambda: "all periodic tasks have to wait" in caplog.text)
        count = len(ticks_of(query))
        await asyncio.sleep(2)
        assert len(ticks_of(query)) == count
        with elsewhere.cursor() as cursor:
            cursor.execute(f'alter database "{name}" with allow_connections true')
        elsewhere.close()
        await until(lambda: len(ticks_of(query)) >= count + 4)
    assert consecutive(ticks_of(query))


async def test_a_schedule_that_is_settled_far_ahead_starts_again_from_now(
    app: procrastinate.App, query: Query
) -> None:
    """The clock must have been wrong, and was set back."""
    every_second(app)
    seen_before(query, seconds=-2 * 3600)
    await app.run_worker_async(wait=False)
    ahead = "select done_until > now() from procrastinate_periodic"
    assert query(ahead) == [(True,)]
    query("update procrastinate_periodic set done_until = now() + interval '4 hours'")
    await app.run_worker_async(wait=False)
    assert query(ahead) == [(False,)]


async def test_a_deleted_row_is_entered_again(
    app: procrastinate.App, working: Callable[..., Any], query: Query, until: Callable[..., Any]
) -> None:
    every_second(app)
    async with working(app):
        await until(lambda: query(TICKS))
        query("delete from procrastinate_periodic")
        query("delete from procrastinate_jobs where status = 'succeeded'")
        await until(lambda: len(ticks_of(query)) >= 2)


@pytest.mark.one_partition("its flows are those of one partition")
@pytest.mark.parametrize(
    "partitions",
    [
        pytest.param(
            ONE, id="at once", marks=pytest.mark.one_partition("its statement is for one")
        ),
        pytest.param(Partitions(MANY), id="one by one"),
    ],
)
@pytest.mark.parametrize(
    "more, expected",
    [(0, [flows.Outcome.ELSEWHERE]), (1, [flows.Outcome.ELSEWHERE, flows.Outcome.DEFERRED])],
)
async def test_two_deferrers_race_on_one_tick_and_one_inserts(
    app: procrastinate.App,
    query: Query,
    more: int,
    expected: list[flows.Outcome],
    partitions: Partitions,
) -> None:
    """The second one waits for the first one's commit, and finds done what was done by it."""
    which = job_of_t("* * * * * *")
    sql = Statements()
    now = await app._gateway.run_async(flows.look(Timetable([which])))
    due = [
        DueTick(which, now + n * timedelta(microseconds=1), NewJob("t")) for n in (1, 2)[: 1 + more]
    ]

    def settle(ticks: list[DueTick]) -> Flow[flows.Round]:
        return flows.defer_ticks(Timetable([which]), ticks, partitions)

    async with app.connector.session_async(transaction=True) as first:  # type: ignore[attr-defined]
        mine = await drive.run_async(settle(due[:1]), first, sql)
        second = asyncio.create_task(
            app._gateway.run_async(settle(due), transaction=partitions.are_many)
        )
        await asyncio.wait([second], timeout=0.3)
        assert not second.done()
    theirs = await second
    assert [each.outcome for each in mine.settled] == [flows.Outcome.DEFERRED]
    assert [each.outcome for each in theirs.settled] == expected
    ids = [job.id for job in await app.job_manager.list_jobs_async()]
    assert len(ids) == 1 + more
    assert query("select done_until, last_tick, job_id from procrastinate_periodic") == [
        (due[-1].tick, due[-1].tick, ids[-1])
    ]


@pytest.mark.parametrize("level", ["serializable", r"repeatable\ read"])
async def test_one_by_one_ticks_are_deferred_whatever_the_role_s_isolation(
    many: procrastinate.App, dsn: str, level: str
) -> None:
    """Their transaction begins with a savepoint, behind which the isolation cannot be set."""
    which = job_of_t("* * * * * *")
    connector = procrastinate.Psycopg2Connector(
        dsn=dsn, options=f"-c default_transaction_isolation={level}"
    )
    with procrastinate.App(connector=connector).open() as app:
        now = app._gateway.run(flows.look(Timetable([which])))
        due = [DueTick(which, now + timedelta(microseconds=1), NewJob("t"))]
        flow = flows.defer_ticks(Timetable([which]), due, Partitions(MANY))
        (settled,) = app._gateway.run(flow, transaction=True).settled
        assert [job.id for job in app.job_manager.list_jobs()] == [settled.job_id]


async def test_one_by_one_as_at_once_a_paused_queue_gets_one_job_of_a_schedule(
    many: procrastinate.App,
) -> None:
    which = job_of_t("* * * * * *")
    await many._gateway.partitions_async(anew=True)
    now = await many._gateway.run_async(flows.look(Timetable([which])))

    async def settle(*numbers: int) -> list[str]:
        ticks = [
            DueTick(which, now + n * timedelta(microseconds=1), NewJob("t", lock=str(n)))
            for n in numbers
        ]
        flow = flows.defer_ticks(Timetable([which]), ticks, Partitions(MANY))
        settled = (await many._gateway.run_async(flow, transaction=True)).settled
        return [each.outcome.name for each in settled]

    await many.queue_manager.pause_async("default")
    assert await settle(1, 2) == ["PAUSED", "DEFERRED"]
    assert await settle(3) == ["PAUSED"]
    assert [job.lock for job in await many.job_manager.list_jobs_async()] == ["2"]
    await many.job_manager.cancel_jobs_async(queue="default")
    assert await settle(4) == ["DEFERRED"]
    await many.queue_manager.resume_async("default")
    assert await settle(5, 6) == ["DEFERRED", "DEFERRED"]


async def test_one_by_one_as_at_once_a_refused_tick_holds_up_no_other_schedule(
    many: procrastinate.App, query: Query
) -> None:
    app = many
    names = ("apart", "bad", "good", "taken")
    apart, bad, good, taken = schedules = [job_of_t("* * * * * *", name) for name in names]
    now = await app._gateway.run_async(flows.look(Timetable(schedules)))
    await app.configure_task("t", allow_unknown=True, queueing_lock="q").defer_async()
    jobs = {good: NewJob("t"), bad: NewJob("t", args='{"x": "\\u0000"}')}
    jobs[taken] = NewJob("t", queueing_lock="q")
    jobs[apart] = NewJob("t", lock="l", queueing_lock="of another partition")
    due = [DueTick(which, now + timedelta(microseconds=1), job) for which, job in jobs.items()]
    flow = flows.defer_ticks(Timetable(jobs), due, Partitions(MANY))
    settled = (await app._gateway.run_async(flow, transaction=True)).settled
    assert {each.due.periodic: each.outcome for each in settled} == {
        good: flows.Outcome.DEFERRED,
        bad: flows.Outcome.REFUSED,
        apart: flows.Outcome.REFUSED,
        taken: flows.Outcome.WAITING,
    }
    (told,) = (each.job_id for each in settled if each.job_id is not None)
    assert query(
        "select periodic_id, done_until > %s, job_id from procrastinate_periodic order by 1", now
    ) == [("apart", False, None), ("bad", False, None), ("good", True, told), ("taken", True, None)]


@pytest.fixture
async def many(app: procrastinate.App) -> procrastinate.App:
    """An app whose database has 64 partitions."""
    if not (await app._gateway.partitions_async()).are_many:
        await app._gateway.run_async(into_partitions(), transaction=True)
    return app


def away(query: Query, partition: int) -> None:
    """Let the node of a partition be away, as a cluster reports it, until `back`."""
    query(
        "create function fail() returns trigger language plpgsql as $$ begin"
        f" if new.partition = {partition} then raise 'no node' using errcode = '08006'; end if;"
        " return new; end $$"
    )
    query(
        "create trigger fail before insert on procrastinate_jobs for each row"
        " execute function fail()"
    )


def back(query: Query) -> None:
    query("drop function fail cascade")


def periodic_jobs(query: Query, task: str) -> list[int]:
    rows = query(
        "select (args->>'timestamp')::bigint from procrastinate_jobs where task_name = %s order by"
        " 1",
        task,
    )
    return [tick for (tick,) in rows]


async def test_a_schedule_whose_node_is_away_holds_up_no_other_and_is_made_up_for(
    many: procrastinate.App,
    working: Callable[..., Any],
    query: Query,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    every_second(many)
    for name in ("one", "two"):

        @many.periodic(cron="* * * * * *", lock="l")
        @many.task(name=name)
        async def stuck(timestamp: int) -> None: ...

    away(query, Partitions(MANY).of_key("l"))
    async with working(many, queues=["mine"]):
        await until(lambda: len(periodic_jobs(query, "second")) >= 4)
        assert periodic_jobs(query, "one") + periodic_jobs(query, "two") == []
        missed = periodic_jobs(query, "second")
        back(query)
        for name in ("one", "two"):
            await until(lambda name=name: set(missed) <= set(periodic_jobs(query, name)))
    for name in ("second", "one", "two"):
        assert consecutive(periodic_jobs(query, name))
    (told,) = (each.getMessage() for each in caplog.records if "periodic" in each.getMessage())
    assert told.endswith("these periodic tasks have to wait: one, two (no node)")


async def test_a_worker_that_does_not_wait_defers_what_it_can_while_a_node_is_away(
    many: procrastinate.App, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    every_second(many)

    @many.periodic(cron="* * * * * *", lock="l")
    @many.task(name="stuck")
    async def stuck(timestamp: int) -> None: ...

    seen_before(query, seconds=3)
    seen_before(query, seconds=3, task="stuck")
    away(query, Partitions(MANY).of_key("l"))
    await many.run_worker_async(wait=False)
    assert len(periodic_jobs(query, "second")) >= 3
    assert periodic_jobs(query, "stuck") == []
    assert "these periodic tasks have to wait: stuck (no node)" in caplog.text
    back(query)
    await many.run_worker_async(wait=False)
    assert len(periodic_jobs(query, "stuck")) >= 3


async def test_a_schedule_that_is_refused_holds_up_no_other_and_is_told_once(
    many: procrastinate.App,
    working: Callable[..., Any],
    query: Query,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    every_second(many)

    @many.periodic(cron="* * * * * *", lock="l", queueing_lock="of another partition")
    @many.task(name="apart")
    async def apart(timestamp: int) -> None: ...

    async with working(many, queues=["mine"]):
        await until(lambda: len(periodic_jobs(query, "second")) >= 4)
    assert periodic_jobs(query, "apart") == []
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in told if "periodic task apart cannot be deferred" in each]) == 1


# --- how much it costs, and the clock, in memory -------------------------------------------------


def job_of_t(cron: str, periodic_id: str = "") -> Periodic:
    schedule = schedule_from(cron, "UTC")
    return Periodic("t", periodic_id, schedule, timedelta(hours=1), lambda tick: NewJob("t"))


class CountedLine(Line):
    """A line that counts its flows."""

    def __init__(self, connector: InMemoryConnector) -> None:
        super().__init__(connector.sync_connector, Statements(), Watchdog("w"))
        self.flows: list[str] = []

    def run(self, flow: Any, **options: Any) -> Any:
        found = super().run(flow, **options)
        self.flows.append(flow.__name__)
        return found


class Counted(Companion):
    """A companion that ticks, on a connector in memory, and counts its flows."""

    def __init__(self, connector: InMemoryConnector, *periodics: Periodic) -> None:
        line = CountedLine(connector)
        ticker = Ticker(periodics)
        super().__init__(
            ticker, line, worker_name="w", backoff=Backoff(), on_giving_up=lambda *_: None
        )
        self.flows = line.flows

    def stop(self) -> None:
        self.let_go()
        self._thread.join()


@pytest.fixture
def memory() -> InMemoryConnector:
    return InMemoryConnector()


async def test_a_hundred_schedules_cost_one_statement_when_they_are_due_together(
    memory: InMemoryConnector, until: Callable[..., Any]
) -> None:
    """And one a minute while nothing is due."""
    now = memory.clock.now()
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    memory.clock.move(noon - 3.0 * SECOND - now)  # it has to look before noon
    ticker = Counted(memory, *(job_of_t("0 12 * * *", str(n)) for n in range(100)))
    ticker.start()
    await until(lambda: len(memory.jobs) == 100)
    await asyncio.sleep(1.5)
    ticker.stop()
    assert ticker.flows == ["look", "defer_ticks"]
    assert {job.deferred_at >= noon for job in memory.jobs if job.deferred_at} == {True}


async def test_a_clock_that_moves_is_noticed_by_the_next_look(
    memory: InMemoryConnector, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker_module, "LOOK_EVERY", 0.05)
    memory.clock.freeze(NOON)
    ticker = Counted(memory, job_of_t("*/10 * * * *"))
    ticker.start()
    await until(lambda: ticker.flows)
    memory.clock.move(timedelta(minutes=35))
    await until(lambda: len(memory.jobs) == 3)
    ticker.stop()


async def test_a_worker_without_schedules_starts_no_thread_for_them(
    memory: InMemoryConnector, until: Callable[..., Any]
) -> None:
    def companions() -> set[str]:
        return {each.name for each in threading.enumerate() if each.name.startswith("plain-")}

    app = procrastinate.App(connector=memory)
    running = asyncio.create_task(app.run_worker_async(name="plain", install_signal_handlers=False))
    await until(lambda: len(companions()) >= 2)
    found = companions()
    running.cancel()
    await asyncio.wait([running])

    assert found == {"plain-heartbeat", "plain-watchdog"}


def test_the_server_s_time_is_never_taken_for_later_than_it_is() -> None:
    clock = ServerClock()
    began = time.monotonic()
    clock.learn(NOON, sent=began - 5, received=began)
    assert abs(clock.now() - NOON) < SECOND


def test_an_answer_that_took_long_does_not_spoil_what_is_known() -> None:
    clock = ServerClock()
    now = time.monotonic()
    clock.learn(NOON, sent=now - 0.001, received=now)
    clock.learn(NOON + SECOND, sent=now + 1 - 0.001, received=now + 1 + 30)
    assert abs(clock.now() - NOON) < SECOND


def test_a_server_s_clock_that_was_set_is_believed() -> None:
    clock = ServerClock()
    now = time.monotonic()
    clock.learn(NOON, sent=now - 0.001, received=now)
    clock.learn(NOON - timedelta(hours=1), sent=now, received=now + 0.001)
    assert abs(clock.now() - NOON + timedelta(hours=1)) < SECOND


def test_a_machine_that_stood_still_looks_again(
    memory: InMemoryConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its monotonic clock stood still as well; the time of the day went on."""
    ticker = Counted(memory, job_of_t("0 0 1 1 *"))
    ticker._round()
    ticker._round()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    ticker._round()
    ticker._round()
    assert ticker.flows == ["look", "look"]


async def test_an_error_of_our_own_does_not_end_the_thread(
    memory: InMemoryConnector,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticker = Counted(memory, job_of_t("* * * * * *"))
    look = Ticker._look_at_tables
    failures = iter([ZeroDivisionError()])

    def failing(self: Ticker, line: Line) -> None:
        for failure in failures:
            raise failure
        look(self, line)

    monkeypatch.setattr(Ticker, "_look_at_tables", failing)
    ticker.start()
    await until(lambda: len(memory.jobs) >= 1)
    ticker.stop()
    assert "it starts again" in caplog.text


def test_what_is_left_out_for_a_queueing_lock_is_said_and_no_error(
    memory: InMemoryConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "procrastinate.worker")
    app = procrastinate.App(connector=memory)

    @app.periodic(cron="* * * * *", queueing_lock="once", queue="nobody's")
    @app.task(name="minutely")
    def minutely(timestamp: int) -> None: ...

    memory.clock.freeze(NOON)
    for _ in range(3):
        app.run_worker(wait=False, queues=["mine"])
        memory.clock.move(60)
    lines = [each for each in caplog.records if getattr(each, "action", "") == "defer_periodic"]
    assert [(each.levelname, each.job_id) for each in lines] == [("INFO", 1), ("INFO", None)]  # type: ignore[attr-defined]
    assert len(memory.jobs) == 1


# --- several workers -----------------------------------------------------------------------------


def start(dsn: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(APP), dsn])


@pytest.mark.slow
@pytest.mark.first
@pytest.mark.timeout(300)
def test_three_workers_defer_sixty_ticks_a_minute_and_none_twice(dsn: str, query: Query) -> None:
    """While one of them is killed, and another one starts."""

    def wait_for_ticks(count: int) -> None:
        deadline = time.monotonic() + 90
        while len(ticks_of(query)) < count:
            assert time.monotonic() < deadline, f"{count} ticks did not come"
            time.sleep(0.05)

    workers = [start(dsn) for _ in range(3)]
    try:
        wait_for_ticks(20)
        workers[0].kill()
        wait_for_ticks(35)
        workers.append(start(dsn))
        wait_for_ticks(64)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)
    found = query(TICKS)
    (first, _), *_ = found
    window = [(tick, late) for tick, late in found if first + 2 <= tick < first + 62]
    assert [tick for tick, _ in window] == list(range(first + 2, first + 62))
    assert all(0 <= late < 5 for _, late in window), json.dumps(window)
