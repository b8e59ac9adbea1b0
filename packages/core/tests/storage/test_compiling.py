"""PostgreSQL compiles no statement of ours, on tables that are full and analyzed.

It compiles a statement, anew for each execution, if it expects that to pay (``jit_above_cost``). A
claim with locks took 200 ms of compiling and 20 of work, because the planner expected a hundred
times the rows that there were. `TOO_DEAR` lists the statements that it still expects too much of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import every_statement
import psycopg2
import pytest

import procrastinate
from procrastinate import json_codec
from procrastinate.connector import Query
from procrastinate.model.claiming.levels import BELOW_ALL
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.storage.claim import claim
from procrastinate.storage.statements import Statements

pytestmark = pytest.mark.slow  # the costs are PostgreSQL's, whichever Python asks for them

JIT_ABOVE_COST = 100_000  # PostgreSQL's default
BATCH = 500
UTILITIES = frozenset({"create_schema", "set_savepoint", "drop_savepoint", "return_to_savepoint"})
CLAIMS = frozenset(each for each in every_statement.names() if each.startswith("claim_"))
OTHERS = every_statement.names(without=UTILITIES | CLAIMS)

#: A third of 100,000 jobs has a lock: 1,000 different ones.
WAITING = """
    insert into procrastinate_jobs (task_name, queue_name, priority, lock)
    select 'task', {queue}, n % 3, case when n % 3 = 0 then 'lock ' || n / 3 % 1000 end
    from generate_series(1, 100000) as n;
"""
#: 1,000 jobs on 50 locks, after 20,000 others.
LINES = """
    insert into procrastinate_jobs (task_name, queue_name, status, worker_id, finished_at, lock)
    select 'task', 'q0', 'succeeded', 1, now(), case when n % 3 = 0 then 'lock ' || n % 50 end
    from generate_series(1, 20000) as n;

    insert into procrastinate_jobs (task_name, queue_name, lock)
    select 'task', 'q0', 'lock ' || n % 50 from generate_series(1, 1000) as n;
"""
#: The first job of each line runs, and the others are parked.
PARKED = """
    insert into procrastinate_locks (lock, job_id)
    select job.lock, min(job.id)
    from procrastinate_jobs as job
    where job.lock is not null and job.status = 'todo'
    group by job.lock;

    update procrastinate_jobs as job
    set status = case when held.job_id is null then 'todo' else 'doing' end
            ::procrastinate_job_status,
        worker_id = 1,
        hold = case when held.job_id is null then 'lock'::procrastinate_hold end
    from procrastinate_jobs as same
    left join procrastinate_locks as held on held.job_id = same.id
    where same.id = job.id and job.lock is not null and job.status = 'todo';
"""
TABLES = {
    "one queue": [WAITING.format(queue="'q0'")],
    "1,000 queues": [WAITING.format(queue="'q' || n % 1000")],
    "50 lines": [LINES],
    "all parked": [WAITING.format(queue="'q0'"), PARKED],
}

CLAIMS_WITH_LOCKS = frozenset(each for each in CLAIMS if not each.startswith("claim_unlocked"))
RELEASES = frozenset({"pass_on_locks", "release_locks"})
TOO_DEAR: frozenset[str] = frozenset()


@pytest.fixture
def filled(procrastinate_server: Any) -> Iterator[list[Any]]:
    """Connections to databases that are filled in these ways."""
    with ExitStack() as databases:
        connections = []
        for steps in TABLES.values():
            dsn = databases.enter_context(procrastinate_server.database())
            with procrastinate.App(
                connector=procrastinate.Psycopg2Connector(dsn=dsn)
            ).open() as app:
                app.schema_manager.apply_schema()
            connection = databases.enter_context(closing(psycopg2.connect(dsn)))
            with connection.cursor() as cursor:
                for step in steps:
                    cursor.execute(step)
                cursor.execute("insert into procrastinate_workers (id, name) values (1, 'one')")
                cursor.execute("analyze")
            connection.commit()
            connections.append(connection)
        yield connections


def test_no_statement_is_worth_compiling(filled: list[Any]) -> None:
    costs: dict[str, float] = {}
    for query in queries():
        expected = [cost(connection, query) for connection in filled]
        costs[query.name] = max(costs.get(query.name, 0), *expected)
    assert len(costs) >= len(OTHERS) + len(CLAIMS_WITH_LOCKS)
    dear = {name: cost for name, cost in costs.items() if cost > JIT_ABOVE_COST}
    assert set(dear) == TOO_DEAR, dear


def queries() -> Iterator[Query]:
    """All statements, about as many jobs as they ever are about."""
    for name in OTHERS:
        params: dict[str, Any] = {"limit": BATCH, "scanned": BATCH}
        if name in RELEASES | {"drop_stale_locks"}:
            params["locks"] = [f"lock {n}" for n in range(BATCH)]
        if name.startswith(("grip_", "list_")):  # their filters are optional
            filters = ("queue_name", "task_name", "lock", "queueing_lock", "worker_id")
            params |= dict.fromkeys(filters)
        query = every_statement.query(name, size=BATCH)
        known = {key: value for key, value in params.items() if key in query.params}
        yield every_statement.query(name, size=BATCH, **known)
    for queues in (1, 3, 20, 100, 1000):
        for limit in (1, 20, 100, BATCH):
            for kind in Kind:
                yield from (_claim(kind, queues, limit, with_locks) for with_locks in (False, True))


def _claim(kind: Kind, queues: int, limit: int, with_locks: bool) -> Query:
    names = tuple(f"q{n}" for n in range(queues))
    priority = BELOW_ALL if kind is Kind.FULL else 0
    scan = Scan(kind, limit, names, priority=priority, with_locks=with_locks, wary=True)
    if kind is Kind.LEVEL:
        scan = replace(scan, lows=(0,) * queues)
    flow = claim(scan, worker_id=1, loads=json_codec.loads, served=names)
    return Statements()(next(flow))


def cost(connection: Any, query: Query) -> float:
    """Return what the planner expects a statement to cost."""
    with connection.cursor() as cursor:
        cursor.execute(f"explain (format json) {query.sql}", every_statement.literal(query))
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    return float(plan["Total Cost"])
