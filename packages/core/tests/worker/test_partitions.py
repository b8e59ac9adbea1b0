"""A worker over 64 partitions: it finds every job, also if a part of the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import drive
from procrastinate.connector import AsyncSessionExecutor, Query, Rows
from procrastinate.errors import ConnectionLost, PartitionAway
from procrastinate.model.partitions import VALUES, Partitions
from procrastinate.storage.nodes import partitions_by_node
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.statements import Statements
from procrastinate.worker.claiming import claiming
from procrastinate.worker.database import outages

MANY = Partitions(64)
Wait = Callable[..., Awaitable[None]]


@pytest.fixture
def wide_dsn(dsn: str) -> str:
    """The DSN of a database with 64 partitions."""
    connector = procrastinate.Psycopg2Connector(dsn=dsn)
    connector.open()
    with connector.session(transaction=True) as executor:
        assert drive.run(into_partitions(), executor, Statements()).are_many
    connector.close()
    return dsn


def partition_of(query: Query) -> Any:
    """Return the partition that a query names, or None. On a cluster its text may name it."""
    named = re.search(r"\bpartition = (\d+)::smallint", query.sql)
    return int(named[1]) if named else query.params.get("partition")


class Breaking:
    """An executor to which some partitions are away."""

    def __init__(self, inner: AsyncSessionExecutor, connector: BreakingConnector) -> None:
        self._inner = inner
        self._connector = connector
        self.sever = inner.sever

    async def execute(self, query: Query) -> Rows:
        asked = {partition_of(query)}
        whole = query.params.get("partitions")
        if whole is not None:
            asked = set(whole)  # type: ignore[arg-type]
        if asked & self._connector.away:
            self._connector.refused[query.name] += 1
            raise PartitionAway("connection refused", sqlstate="08006")
        self._connector.executed[query.name] += 1
        kind = "claim" if query.name.startswith("claim") else query.name
        if (kind, partition_of(query)) in self._connector.holds:
            self._connector.is_holding = True
            await self._connector.go_on.wait()
        spoil = self._connector.spoil_claim_after_jobs
        if not query.name.startswith("claim"):
            return await self._inner.execute(query)
        if spoil is not None and self._connector.has_claimed:
            self._connector.spoil_claim_after_jobs = None
            await spoil(self._inner)
        rows = await self._inner.execute(query)
        self._connector.has_claimed |= len(rows) > 1
        return rows


class BreakingConnector(procrastinate.AiopgConnector):
    """A connector to a distributed database of which some partitions are away."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.away: set[Any] = set()
        self.refused: Counter[str] = Counter()
        self.executed: Counter[str] = Counter()
        #: Is called once, instead of the first claim after one that brought jobs.
        self.spoil_claim_after_jobs: Callable[..., Awaitable[None]] | None = None
        self.has_claimed = False
        #: Kinds of statements that wait for `go_on`, each in one partition.
        self.holds: set[tuple[str, Any]] = set()
        self.is_holding = False
        self.go_on = asyncio.Event()

    @contextlib.asynccontextmanager
    async def session_async(self, **options: Any) -> AsyncIterator[AsyncSessionExecutor]:
        async with super().session_async(**options) as executor:
            yield Breaking(executor, self)


@pytest.fixture
async def connector(wide_dsn: str) -> BreakingConnector:
    return BreakingConnector(dsn=wide_dsn)


@pytest.fixture
async def app(connector: BreakingConnector) -> AsyncIterator[procrastinate.App]:
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app


@pytest.fixture
def change(wide_dsn: str) -> Iterator[Callable[[str], list[Any]]]:
    """Run SQL by hand."""
    connection = psycopg2.connect(wide_dsn)
    connection.autocommit = True

    def run(sql: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return [] if cursor.description is None else cursor.fetchall()

    yield run
    connection.close()


async def test_one_worker_finds_the_jobs_of_all_partitions(
    app: procrastinate.App, change: Any
) -> None:
    ran: Counter[int] = Counter()
    lines: defaultdict[str, list[int]] = defaultdict(list)
    holding: Counter[str] = Counter()

    @app.task(name="plain", retry=procrastinate.RetryStrategy(max_attempts=2, wait=0))
    async def plain(n: int) -> None:
        ran[n] += 1
        if n % 10 == 0 and ran[n] == 1:
            raise ValueError("again")

    @app.task(name="locked")
    async def locked(lock: str, n: int) -> None:
        holding[lock] += 1
        assert holding[lock] == 1
        await asyncio.sleep(0)
        holding[lock] -= 1
        lines[lock].append(n)

    for n in range(200):
        await plain.defer_async(n=n)
    for n in range(100):
        await locked.configure(lock=f"lock {n % 10}").defer_async(lock=f"lock {n % 10}", n=n)
    await app.run_worker_async(wait=False, concurrency=10)
    assert ran == {n: 1 + (n % 10 == 0) for n in range(200)}
    assert lines == {f"lock {n}": list(range(n, 100, 10)) for n in range(10)}
    ((statuses, places),) = change(
        "select array_agg(distinct status::text), count(distinct partition) from procrastinate_jobs"
    )
    assert (statuses, places > 40) == (["succeeded"], True)
    assert change("select * from procrastinate_locks") == []


async def test_a_line_goes_on_while_a_claim_from_another_partition_is_answered(
    app: procrastinate.App,
    connector: BreakingConnector,
    until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claiming, "LINES_EXPECTED_FOR", 3600.0)
    there = MANY.of_key("other")
    assert there != MANY.of_key("line")
    ran: list[int] = []
    waits, go_on = asyncio.Event(), asyncio.Event()

    @app.task(name="in_line", lock="line")
    async def in_line(n: int) -> None:
        ran.append(n)
        if connector.executed["hand_over"] >= 3:
            waits.set()
            await go_on.wait()

    @app.task(name="other")
    async def other() -> None:
        ran.append(-1)

    await in_line.batch_defer_async(*({"n": n} for n in range(50)))
    connector.holds.add(("claim", there))
    async with app.worker(concurrency=10, fetch_job_polling_interval=1000.0, on_failure="cancel"):
        await until(waits.is_set)
        await other.configure(partition_key="other").defer_async()
        await until(lambda: connector.is_holding)
        go_on.set()
        await until(lambda: len(ran) == 50)
        assert ran == list(range(50))
        connector.go_on.set()
        await until(lambda: ran[50:] == [-1])


async def test_a_partition_is_claimed_from_after_its_lines_went_on(
    app: procrastinate.App,
    connector: BreakingConnector,
    until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claiming, "LINES_EXPECTED_FOR", 3600.0)
    ran: list[int] = []

    @app.task(name="in_line", lock="line")
    async def in_line(n: int) -> None:
        ran.append(n)

    @app.task(name="other")
    async def other() -> None:
        ran.append(-1)

    await in_line.batch_defer_async(*({"n": n} for n in range(20)))
    connector.holds.add(("hand_over", MANY.of_key("line")))
    async with app.worker(concurrency=10, fetch_job_polling_interval=1000.0, on_failure="cancel"):
        await until(lambda: connector.is_holding)
        await other.configure(partition_key="line").defer_async()
        await other.configure(partition_key="other").defer_async()
        await until(lambda: -1 in ran)  # so the other one was heard of, too
        assert ran.count(-1) == 1
        connector.go_on.set()
        await until(lambda: len(ran) == 22)
    assert [n for n in ran if n >= 0] == list(range(20))


async def test_what_nobody_announced_is_found_by_a_sweep(
    app: procrastinate.App, connector: BreakingConnector, change: Any, until: Wait
) -> None:
    ran: list[int] = []

    @app.task(name="quiet")
    async def quiet(n: int) -> None:
        ran.append(n)

    async with app.worker(fetch_job_polling_interval=0.2, on_failure="cancel"):
        await until(lambda: connector.executed["sweep"] >= 2)
        change(
            "insert into procrastinate_jobs (id, partition, queue_name, task_name, args)"
            f" values ({64 * 10**6}, {VALUES[0]}, 'default', 'quiet', '{{\"n\": 7}}')"
        )
        await until(lambda: ran == [7])
        assert connector.executed["ready_queues"] == 0  # the sweep said in which queue it is
        change(
            "insert into procrastinate_jobs (id, partition, queue_name, task_name, args) select"
            f" {64 * (10**6 + 1)} + 64 * n, {VALUES[0]}, 'q' || n, 'quiet',"
            " jsonb_build_object('n', n) from generate_series(0, 2) as n"
        )
        await until(lambda: sorted(ran) == [0, 1, 2, 7])


async def test_a_scheduled_job_that_was_not_announced_starts_when_it_is_due(
    app: procrastinate.App, connector: BreakingConnector, change: Any, until: Wait
) -> None:
    ran: list[int] = []

    @app.task(name="quiet")
    async def quiet(n: int) -> None:
        ran.append(n)

    async with app.worker(fetch_job_polling_interval=0.2, on_failure="cancel"):
        await until(lambda: connector.executed["sweep"] >= 2)
        change(
            "insert into procrastinate_jobs"
            " (id, partition, queue_name, task_name, args, hold, scheduled_at) select"
            f" {64 * 10**6} + n, (array{list(VALUES)})[n + 1], 'default', 'quiet',"
            " jsonb_build_object('n', n), 'schedule', now() + interval '1 s'"
            " from generate_series(0, 4) as n"
        )
        await until(lambda: sorted(ran) == [0, 1, 2, 3, 4])
    late = "select max(started_at - scheduled_at) < interval '10 s' from procrastinate_jobs"
    assert change(late) == [(True,)]


async def test_an_idle_worker_asks_for_all_partitions_at_once(
    app: procrastinate.App, connector: BreakingConnector, until: Wait
) -> None:
    async with app.worker(fetch_job_polling_interval=0.1, on_failure="cancel"):
        await until(lambda: connector.executed["sweep"] >= 2)
        before = connector.executed.copy()
        await until(lambda: connector.executed["sweep"] >= 6)
        asked = connector.executed - before
    assert set(asked) <= {"sweep", "notify_listener", "running_workers", "prune_workers"} | {
        *("any_unknown", "parked_partitions", "abort_requests"),
    }


async def test_a_job_that_is_announced_takes_one_claim_in_its_partition(
    app: procrastinate.App, connector: BreakingConnector, change: Any, until: Wait
) -> None:
    ran: list[int] = []

    @app.task(name="announced")
    async def announced(n: int) -> None:
        ran.append(n)

    async with app.worker(fetch_job_polling_interval=60, on_failure="cancel"):
        await until(lambda: connector.executed["sweep"] >= 1)
        await announced.defer_async(n=0)
        await until(lambda: ran == [0])
        before = connector.executed.copy()
        for n in range(1, 21):
            await announced.defer_async(n=n)
            await until(lambda n=n: ran[-1] == n)
        ended = "select count(*) from procrastinate_jobs where status = 'succeeded'"
        await until(lambda: change(ended) == [(21,)])
        asked = connector.executed - before
    claims = sum(count for name, count in asked.items() if name.startswith("claim"))
    assert claims <= 2 * 20, asked
    # It sweeps when it hears that LISTEN is in force, and at its turn of the minute. What a sweep
    # finds is looked for in all queues.
    assert asked["sweep"] <= 3, asked
    assert asked["ready_queues"] <= asked["sweep"] + 1, asked


async def test_two_workers_take_turns_to_sweep(
    app: procrastinate.App, connector: BreakingConnector, wide_dsn: str, until: Wait
) -> None:
    options = {"fetch_job_polling_interval": 0.25, "update_heartbeat_interval": 0.1}
    other = BreakingConnector(dsn=wide_dsn)
    async with (
        procrastinate.App(connector=other).open_async() as second,
        app.worker(**options, on_failure="cancel"),
        second.worker(**options, on_failure="cancel"),
    ):
        await until(lambda: min_swept(connector, other) >= 3)
        before = connector.executed["sweep"], other.executed["sweep"]
        await until(lambda: min_swept(connector, other) >= max(before) + 6)
        swept = [connector.executed["sweep"], other.executed["sweep"]]
    assert abs((swept[0] - before[0]) - (swept[1] - before[1])) <= 3


def min_swept(*connectors: BreakingConnector) -> int:
    return min(each.executed["sweep"] for each in connectors)


async def test_a_partition_that_is_away_holds_up_no_other(
    app: procrastinate.App,
    connector: BreakingConnector,
    change: Any,
    until: Wait,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outages, "PROBE_EVERY", 0.05)
    caplog.set_level(logging.INFO, logger="procrastinate.worker")
    ran: Counter[int] = Counter()
    may_end = asyncio.Event()

    @app.task(name="job")
    async def job(n: int) -> None:
        ran[n] += 1
        if n < 0:
            await may_end.wait()

    keys: dict[int, str] = {}
    for n in range(1_000):
        keys.setdefault(MANY.of_key(f"k{n}"), f"k{n}")
    node = set(VALUES[:20])
    async with app.worker(
        concurrency=10,
        fetch_job_polling_interval=0.2,
        update_heartbeat_interval=0.2,
        on_failure="cancel",
    ):
        # Jobs of the node are running when it goes away: their endings have to wait.
        for n, partition in enumerate(VALUES[:5]):
            await job.configure(partition_key=keys[partition]).defer_async(n=-1 - n)
        await until(lambda: len(ran) == 5)
        connector.away |= node
        may_end.set()
        for n, partition in enumerate(VALUES):
            await job.configure(partition_key=keys[partition]).defer_async(n=n)
        others = {n for n in range(64) if VALUES[n] not in node}
        await until(lambda: others <= set(ran))
        assert set(ran) == others | {-1, -2, -3, -4, -5}
        beats = change("select max(last_heartbeat) from procrastinate_workers")
        await until(
            lambda: change("select max(last_heartbeat) from procrastinate_workers") > beats,
        )
        await until(lambda: connector.refused["probe_partition"] >= 3)
        connector.away.clear()
        await until(lambda: len(ran) == 69)
        done = "select count(*) from procrastinate_jobs where status = 'succeeded'"
        await until(lambda: change(done) == [(69,)])
        await until(lambda: "answer again" in caplog.text)
    assert set(ran.values()) == {1}
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(told) == 1, told
    assert told[0].startswith("a part of the database does not answer")


async def lost(executor: AsyncSessionExecutor) -> None:
    executor.sever()
    raise ConnectionLost("the connection broke")


async def silent(executor: AsyncSessionExecutor) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("spoil", [lost, silent])
async def test_jobs_of_one_partition_are_not_forgotten_if_the_claim_of_the_next_one_fails(
    app: procrastinate.App,
    connector: BreakingConnector,
    until: Wait,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[AsyncSessionExecutor], Awaitable[None]],
) -> None:
    monkeypatch.setattr(claiming, "CALL_MAY_TAKE", 0.5)
    ran: Counter[int] = Counter()

    @app.task(name="job")
    async def job(n: int) -> None:
        ran[n] += 1

    for n in range(8):
        await job.configure(partition_key=f"k{n}").defer_async(n=n)
    assert len({MANY.of_key(f"k{n}") for n in range(8)}) == 8
    connector.spoil_claim_after_jobs = spoil
    async with app.worker(concurrency=20, fetch_job_polling_interval=0.2, on_failure="cancel"):
        await until(lambda: len(ran) == 8)
    assert connector.spoil_claim_after_jobs is None
    assert set(ran.values()) == {1}


@pytest.fixture
def together(wide_dsn: str) -> set[int]:
    """Partitions that can be away while others are not: on a cluster, all of one node."""
    connector = procrastinate.Psycopg2Connector(dsn=wide_dsn)
    connector.open()
    with connector.session() as executor:
        nodes = drive.run(partitions_by_node(), executor, Statements())
    connector.close()
    return set(nodes[0] if nodes else VALUES[:3])


async def test_jobs_of_dead_workers_are_recovered_in_all_partitions_but_those_that_are_away(
    app: procrastinate.App, connector: BreakingConnector, change: Any, together: set[int]
) -> None:
    @app.task(name="job")
    async def job(n: int) -> None: ...

    keys = {MANY.of_key(f"k{n}"): f"k{n}" for n in range(1_000)}
    for n, partition in enumerate(VALUES):
        await job.configure(partition_key=keys[partition], lock=f"{n}").defer_async(n=n)
    change(
        "insert into procrastinate_workers (id, name, last_heartbeat)"
        " values (1000, 'dead', now() - interval '1 hour')"
    )
    change("update procrastinate_jobs set status = 'doing', worker_id = 1000, lease = 1")
    change(
        "insert into procrastinate_locks (lock, partition, job_id)"
        " select lock, partition, id from procrastinate_jobs"
    )
    connector.away = together
    await app.run_worker_async(wait=False)
    left = change("select partition from procrastinate_jobs where status <> 'succeeded'")
    assert {partition for (partition,) in left} == connector.away
    assert change("select count(*) from procrastinate_workers") == [(1,)]
    connector.away = set()
    await app.run_worker_async(wait=False)
    assert change("select distinct status::text from procrastinate_jobs") == [("succeeded",)]
    assert change("select count(*) from procrastinate_locks") == [(0,)]
