"""What a job costs, told without a clock: rows compared, statements, WAL, dead rows, objects.

Speeds are for the benchmarks; these are the causes of slowness that were met so far.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

import procrastinate
import procrastinate_embedded
from procrastinate import json_codec
from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.drive import Request
from procrastinate.model.claiming.levels import BELOW_ALL
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.text import json_text
from procrastinate.storage.claim import claim
from procrastinate.storage.statements import Statements, load

Run = Callable[..., list[tuple[Any, ...]]]

WAITING = 20_000
FILL = f"""
    insert into procrastinate_jobs (task_name, queue_name)
    select 'noop', 'default' from generate_series(1, {WAITING})
"""
#: A worker holds 1,000 of them.
CLAIM = """
    update procrastinate_jobs set status = 'doing', worker_id = 1, attempts = 1, lease = 1
    where id <= 1000
"""
#: How the planner came to what it believes of the table.
BELIEFS = {
    "never analyzed": [FILL, CLAIM],
    "analyzed when empty": ["analyze procrastinate_jobs", FILL, CLAIM],
    "analyzed while all waited": [FILL, "analyze procrastinate_jobs", CLAIM],
    "analyzed": [FILL, CLAIM, "analyze procrastinate_jobs"],
}


@pytest.fixture(scope="module", params=BELIEFS)
def busy(request: pytest.FixtureRequest, procrastinate_server: Any) -> Iterator[Any]:
    """A connection to tables in which a worker holds many jobs."""
    with procrastinate_server.database() as dsn:
        connector = procrastinate.Psycopg2Connector(dsn=dsn)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("alter table procrastinate_jobs set (autovacuum_enabled = off)")
            for step in BELIEFS[request.param]:
                cursor.execute(step)
        connection.autocommit = False
        yield connection
        connection.close()


#: Each statement reads those parameters that stand in its text.
CLAIM = {
    "queue_names": ["default"],
    "lows": [1000],
    "queue_name": "default",
    "low": 1000,
    "above": BELOW_ALL,
    "priority": 0,
    "served": None,
    "worker_id": 1,
}
HOW_MANY = ["limit", "scanned", "each", "share"]
CLAIMS = sorted(name for name in load() if name.startswith("claim_"))
BATCHES = [
    *("finish_jobs", "finish_jobs_that_returned_nothing", "finish_jobs_with_results"),
    *("settle_jobs", "delete_finished", *CLAIMS),
]


LOOKUPS = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Seq Scan"}


def params_of(statement: str, batch: int) -> dict[str, Any]:
    ids, ones = list(range(1, batch + 1)), [1] * batch
    held = {"ids": ids, "leases": ones, "worker_id": 1, "first_id": 1, "last_id": batch}
    return {
        "finish_jobs": held | {"began_us": ones, "ended_us": ones},
        "finish_jobs_that_returned_nothing": held | {"began_us": ones, "ended_us": ones},
        "finish_jobs_with_results": held
        | {"began_us": ones, "ended_us": ones, "results": json_text.joined(["1"] * batch)}
        | {"result_errors": [None] * batch},
        "delete_finished": held,
        "settle_jobs": held
        | {"began_us": ones, "ended_us": ones, "wanted": ["todo"] * batch, "begun": ones}
        | {"unknown": [0] * batch, "delays_us": ones, "errors": ["{}"] * batch}
        | dict.fromkeys(["due_ats", "priorities", "queue_names", "locks"], [None] * batch)
        | {"longest_bounce_us": 1, "aborted_type": "", "why_aborted": ""},
        **dict.fromkeys(
            CLAIMS, CLAIM | dict.fromkeys(["limit", "scanned", "each", "share"], batch)
        ),
    }[statement]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [100, 500])
@pytest.mark.parametrize("statement", BATCHES)
def test_a_batch_is_worked_on_without_comparing_each_job_with_every_other(
    busy: Any, statement: str, batch: int
) -> None:
    """A nested loop over 500 jobs and 500 endings looks at 250,000 pairs."""
    plan = explained(busy, Statements()(Request(statement, **params_of(statement, batch))))
    steps = list(nodes(plan))
    changed = sum(each["Actual Rows"] for each in steps if each["Node Type"] == "CTE Scan")
    ended = plan["Actual Rows"]
    assert batch in (changed, ended) or changed > batch  # it did change the batch
    removed = ("Rows Removed by Join Filter", "Rows Removed by Filter")
    assert sum(each.get(name, 0) * each["Actual Loops"] for each in steps for name in removed) <= (
        10 * batch
    )


@pytest.mark.slow
def test_a_batch_of_successes_is_written_by_the_plainest_of_updates(busy: Any) -> None:
    """Nothing is planned for what else may become of an attempt: see settle_jobs.

    Nor for the waking of who waits: see wake_waiters. Whether anybody may wait is asked once.
    """
    plan = explained(busy, Statements()(Request("finish_jobs", **params_of("finish_jobs", 100))))
    kinds = Counter(each["Node Type"] for each in nodes(plan))
    relations = Counter(
        each["Relation Name"] for each in nodes(plan) if each["Node Type"] in LOOKUPS
    )
    asked = [each["Actual Loops"] for each in nodes(plan) if each["Node Type"] == "Limit"]
    assert relations == {"procrastinate_jobs": 1, "procrastinate_waits": 1}
    assert (kinds["ModifyTable"], kinds["CTE Scan"], asked) == (1, 0, [1]), kinds
    assert (kinds["Aggregate"], kinds["WindowAgg"], kinds["LockRows"]) == (0, 0, 0), kinds
    assert len(Statements()(Request("finish_jobs")).sql) < 1_300


def explained(connection: Any, query: Query) -> dict[str, Any]:
    """Return the plan of a statement that was run, and undo what it did."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"explain (analyze, buffers, timing off, format json) {query.sql}", as_text(query)
        )
        plan: dict[str, Any] = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    return plan


def as_text(query: Query) -> dict[str, Any]:
    """Return parameters as the connectors send them: lists as the text of an array."""

    def text(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return "{" + ",".join("NULL" if each is None else str(each) for each in value) + "}"

    return {name: text(value) for name, value in query.params.items()}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The statements that asynchronous sessions have run, by name."""
    counter: Counter[str] = Counter()
    execute = AsyncSession.execute

    async def counting(self: AsyncSession[Any], query: Query, /) -> Rows:
        counter[query.name] += 1
        return await execute(self, query)

    monkeypatch.setattr(AsyncSession, "execute", counting)
    return counter


async def until_all_ended(query: Run) -> None:
    async with asyncio.timeout(60):
        while query("select 1 from procrastinate_jobs where status in ('todo', 'doing') limit 1"):
            await asyncio.sleep(0.02)


def wal_bytes(query: Run) -> int:
    ((position,),) = query("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
    return int(position)


@pytest.fixture
def lonely_dsn() -> Iterator[str]:
    """A database with procrastinate's tables on a server that nobody else writes on."""
    with procrastinate_embedded.server(durable=False, settings={"autovacuum": "off"}) as server:
        dsn = server.create_database()
        connector = procrastinate.Psycopg2Connector(dsn=dsn)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
        yield dsn


async def test_a_jobs_whole_life_takes_few_statements_and_little_wal(
    lonely_dsn: str, working: Any, counted: Counter[str]
) -> None:
    """In batches: 0.05 statements for each job (each a commit at the most), 1,200 bytes of WAL."""
    jobs = 3_000
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=lonely_dsn))

    @app.task(name="noop")
    async def noop(n: int) -> None: ...

    with psycopg2.connect(lonely_dsn) as connection:
        connection.autocommit = True
        query = querying(connection)
        before = wal_bytes(query)
        async with app.open_async():
            for first in range(0, jobs, 500):
                await noop.batch_defer_async(*[{"n": n} for n in range(first, first + 500)])
            counted.clear()
            async with working(app, concurrency=100):
                await until_all_ended(query)
        wal, statements = wal_bytes(query) - before, counted.total()
        succeeded = query("select count(*) from procrastinate_jobs where status = 'succeeded'")

    assert succeeded == [(jobs,)]
    assert statements / jobs <= 0.05, counted
    assert wal / jobs <= 1_200


def querying(connection: Any) -> Run:
    def run(sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    return run


@pytest.mark.one_partition("a batch is in any partition, and its scan is of one")
def test_only_a_full_scan_reads_what_ended_under_an_old_snapshot(dsn: str, query: Run) -> None:
    """While somebody's transaction keeps vacuum from the dead rows of a queue's beginning."""
    query("alter table procrastinate_jobs set (autovacuum_enabled = off)")
    query(FILL)
    snapshot, mine = psycopg2.connect(dsn), psycopg2.connect(dsn)
    snapshot.set_session(isolation_level="REPEATABLE READ")
    with snapshot.cursor() as cursor:
        cursor.execute("select count(*) from procrastinate_jobs")
    done = WAITING - 1_000
    query(f"update procrastinate_jobs set status = 'doing', worker_id = 1 where id <= {done}")
    query(f"update procrastinate_jobs set status = 'succeeded' where id <= {done}")
    params = params_of("claim_unlocked_level_of_one", 100)

    full = explained(mine, Statements()(Request("claim_unlocked_full_of_one", **params)))
    above = explained(
        mine, Statements()(Request("claim_unlocked_level_of_one", **params | {"low": done}))
    )
    higher = explained(
        mine, Statements()(Request("claim_unlocked_full_of_one", **params | {"above": 0}))
    )

    for plan in (full, above):
        assert sum(1 for each in nodes(plan) if each["Node Type"] == "LockRows") >= 1
    assert above["Shared Hit Blocks"] + above["Shared Read Blocks"] <= 100 * 20
    assert scanned_blocks(above) * 10 < scanned_blocks(full)
    assert higher["Actual Rows"] == 1  # about the claim; it brought none
    assert scanned_blocks(higher) <= 4  # down the index, where none of the level's entries stand
    snapshot.close()
    mine.close()


def scanned_blocks(plan: dict[str, Any]) -> int:
    """The pages that were read to find the jobs to be claimed."""
    (locking,) = [each for each in nodes(plan) if each["Node Type"] == "LockRows"][:1]
    (scan,) = locking["Plans"]
    return int(scan["Shared Hit Blocks"] + scan["Shared Read Blocks"])


async def test_a_worker_keeps_nothing_of_the_jobs_that_it_has_run(
    app: procrastinate.App, query: Run, working: Any, until: Any
) -> None:
    @app.task(name="noop")
    async def noop(n: int) -> None: ...

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    async def run(jobs: int) -> None:
        await noop.batch_defer_async(*[{"n": n} for n in range(jobs)])
        await until_all_ended(query)

    async with working(app, concurrency=20):
        await run(500)  # caches fill
        await asyncio.sleep(0.1)  # what comes after the last answer of the database is not of a job
        before = objects()
        await run(2_000)
        # Less than one object for each job; what measures the coverage of tests keeps some, too.
        await until(lambda: objects() - before < 1_500, seconds=30)


QUEUES = [f"q{n}" for n in range(100)]


@pytest.fixture(scope="module", params=[False, True], ids=["never analyzed", "analyzed"])
def many_queues(request: pytest.FixtureRequest, procrastinate_server: Any) -> Iterator[Any]:
    """A connection to 100 queues with 100 jobs each, of which one in seven has one of 40 locks."""
    with procrastinate_server.database() as dsn:
        connector = procrastinate.Psycopg2Connector(dsn=dsn)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute(
                "insert into procrastinate_jobs (task_name, queue_name, priority, lock)"
                " select 'noop', 'q' || n % 100, n % 3, case when n % 7 = 0 then 'l' || n % 40 end"
                " from generate_series(1, 10000) as n"
            )
            cursor.execute("insert into procrastinate_workers (id, name) values (1, 'one')")
            if request.param:
                cursor.execute("analyze")
        connection.commit()
        yield connection
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("with_locks", [False, True], ids=["unlocked", "with locks"])
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("limit", [1, 20, 500])
@pytest.mark.parametrize("queues", [1, 2, 5, 100])
def test_a_claim_locks_no_row_that_it_neither_takes_nor_parks(
    many_queues: Any, queues: int, limit: int, kind: Kind, with_locks: bool
) -> None:
    """But for a few; and for the first claim after a long time that meets jobs with locks."""
    priority = BELOW_ALL if kind is Kind.FULL else 1
    names = tuple(QUEUES[:queues])
    scan = Scan(kind, limit, names, priority=priority, with_locks=with_locks, wary=True)
    if kind is Kind.LEVEL:
        scan = replace(scan, lows=(0,) * queues)
    flow = claim(scan, worker_id=1, loads=json_codec.loads, served=names)
    query = Statements()(next(flow))
    plan = explained(many_queues, query)
    locked = sum(
        round(each["Actual Rows"] * each["Actual Loops"])
        for each in nodes(plan)
        if each["Node Type"] == "LockRows" and reads(each, "procrastinate_jobs")
    )
    changed = sum(
        round(each["Actual Rows"])
        for each in nodes(plan)
        if each["Node Type"] == "ModifyTable" and each["Relation Name"] == "procrastinate_jobs"
    )
    assert changed >= 1 or not with_locks  # then the next claim takes them, with their locks
    assert locked <= changed + 10


def reads(plan: dict[str, Any], relation: str) -> bool:
    return any(each.get("Relation Name") == relation for each in nodes(plan))
