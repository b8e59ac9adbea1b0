"""Jobs that are changed between a claim's look at them and its taking them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from procrastinate import drive, json_codec
from procrastinate.connector import Query
from procrastinate.drive import Flow, Request
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.job import NewJob
from procrastinate.storage import claim, defer, jobs
from procrastinate.storage.statements import Statements
from procrastinate_psycopg2 import Psycopg2Connector

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

PAUSE = 4711  # of an advisory lock
NAP = f"""nap as materialized (
    select pg_advisory_xact_lock({PAUSE})::text from (select count(*) from chosen) as looked
),
"""
QUEUES = ("a", "b")  # of one queue, rows are locked as they are read

Look = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def connector(dsn: str) -> Iterator[Psycopg2Connector]:
    connector = Psycopg2Connector(dsn=dsn)
    connector.open()
    yield connector
    connector.close()


class Pausing:
    """Makes queries as ever, but lets a claim wait between its look and what it takes."""

    def __call__(self, request: Request) -> Query:
        query = Statements()(request)
        taking, first = "wanted as materialized (", "job.id = startable.id\n"
        if "unlocked" in request.name:
            taking, first = "candidate as materialized (", "job.id = chosen.id\n"
        before, after = query.sql.split(taking)
        assert first in after
        waiting = f"{first.strip()} + 0 * (select count(*) from nap)\n"
        return replace(query, sql=before + NAP + taking + after.replace(first, waiting, 1))


def claimed(
    connector: Psycopg2Connector, query: Look, change: Flow[Any], *, with_locks: bool
) -> claim.Claim:
    """Claim, and run a change once the claim has looked."""
    scan = Scan(Kind.FULL, 10, QUEUES, with_locks=with_locks)
    flow = claim.claim(scan, worker_id=1, loads=json_codec.loads)
    found: list[claim.Claim] = []

    def run() -> None:
        with connector.session() as executor:
            found.append(drive.run(flow, executor, Pausing()))

    thread = threading.Thread(target=run, daemon=True)
    with connector.session(transaction=True) as pausing:
        pausing.execute(Query("pause", f"select pg_advisory_xact_lock({PAUSE})"))
        thread.start()
        deadline = time.monotonic() + 10
        while not query(
            "select pid from pg_locks where locktype = 'advisory' and not granted and database ="
            " (select oid from pg_database where datname = current_database())"
        ):
            assert time.monotonic() < deadline, "the claim does not pause"
            time.sleep(0.005)
        with connector.session(transaction=True) as executor:
            drive.run(change, executor, Statements())
    thread.join(10)
    return found[0]


def deferred(connector: Psycopg2Connector, *new: NewJob) -> list[int]:
    with connector.session() as executor:
        return drive.run(defer.defer_jobs(new), executor, Statements())


@pytest.mark.parametrize("change", [jobs.ByHand(lock="new"), jobs.ByHand(queue="other")])
@pytest.mark.parametrize("lock, with_locks", [(None, False), (None, True), ("old", True)])
def test_a_job_whose_lock_or_queue_has_changed_is_left_to_the_next_claim(
    connector: Psycopg2Connector,
    query: Look,
    change: jobs.ByHand,
    lock: str | None,
    with_locks: bool,
) -> None:
    """It would run with the slot of its old lock beside another job of the new one."""
    (job_id,) = deferred(connector, NewJob("t", queue="a", lock=lock))
    by_hand = jobs.retry_by_hand([job_id], change)
    found = claimed(connector, query, by_hand, with_locks=with_locks)
    assert found.jobs == []
    assert query("select status::text, hold::text from procrastinate_jobs") == [("todo", None)]
    assert query("select * from procrastinate_locks") == []


def test_a_job_whose_lock_has_changed_is_not_parked_behind_the_old_one(
    connector: Psycopg2Connector, query: Look
) -> None:
    first, second = deferred(connector, *[NewJob("t", queue="a", lock="old") for _ in range(2)])
    by_hand = jobs.retry_by_hand([second], jobs.ByHand(lock="new"))
    found = claimed(connector, query, by_hand, with_locks=True)
    assert ([job.id for job in found.jobs], found.parked) == ([first], 0)
    assert query(f"select lock, hold::text from procrastinate_jobs where id = {second}") == [
        ("new", None)
    ]
