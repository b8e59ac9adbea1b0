"""Who waits for whom around a lock, step by step: what keeps the crowd from deadlocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lock_waits import COUNT_WAITING

from procrastinate import drive, json_codec
from procrastinate.connector import Executor
from procrastinate.drive import Request
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import SUCCEEDED
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.storage import claim, defer, finish, jobs, locks
from procrastinate.storage.statements import Statements
from procrastinate_psycopg2 import Psycopg2Connector

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

sql = Statements()

Look = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def connector(dsn: str) -> Iterator[Psycopg2Connector]:
    """A statement that waits where it must not fails instead."""
    connector = Psycopg2Connector(dsn=dsn, options="-c lock_timeout=5s")
    connector.open()
    yield connector
    connector.close()


@pytest.fixture
def line(connector: Psycopg2Connector) -> tuple[Job, list[int]]:
    """A line for one lock: the running job that holds it, and three that are parked."""
    batch = [NewJob("task", lock="k") for _ in range(4)]
    with connector.session() as executor:
        ids = [drive.run(defer.defer_job(each), executor, sql) for each in batch]
        found = claimed(executor)
    assert ([job.id for job in found.jobs], found.parked) == (ids[:1], 3)
    return found.jobs[0], ids[1:]


def claimed(executor: Executor) -> claim.Claim:
    scan = Scan(Kind.FULL, 10, ("default",), with_locks=True)
    flow = claim.claim(scan, worker_id=1, loads=json_codec.loads)
    return drive.run(flow, executor, sql)


def finish_job(connector: Psycopg2Connector, job: Job) -> None:
    ended = finish.Ended(job, SUCCEEDED, began=0.0, ended=0.0)
    with connector.session(transaction=True) as executor:
        flow = finish.settle([ended], now=0.0, worker_id=1, dumps=json_codec.dumps)
        assert drive.run(flow, executor, sql).changed == {job.id: Status.SUCCEEDED}


def ready(query: Look) -> list[int]:
    return [
        row[0]
        for row in query(
            "select id from procrastinate_jobs where status = 'todo' and hold is null order by id"
        )
    ]


@pytest.mark.parametrize("queues", [["default"], ["default", "other"]], ids=len)
def test_a_job_that_another_claim_is_just_taking_is_undecided_and_then_gone(
    connector: Psycopg2Connector, queues: list[str]
) -> None:
    def unlocked() -> drive.Flow[claim.Claim]:
        scan = Scan(Kind.FULL, 5, tuple(queues))
        return claim.claim(scan, worker_id=1, loads=json_codec.loads)

    with connector.session() as other:
        job_id = drive.run(defer.defer_job(NewJob("task")), other, sql)
        with connector.session(transaction=True) as executor:
            taken = drive.run(unlocked(), executor, sql)
            meanwhile = drive.run(unlocked(), other, sql)
        after = drive.run(unlocked(), other, sql)

    assert ([job.id for job in taken.jobs], taken.undecided) == ([job_id], 0)
    assert (meanwhile.jobs, meanwhile.undecided) == ([], 1)
    assert (after.jobs, after.undecided) == ([], 0)


def test_a_claim_neither_waits_for_a_release_under_way_nor_parks_behind_it(
    connector: Psycopg2Connector, line: tuple[Job, list[int]]
) -> None:
    holder, _ = line
    with connector.session(transaction=True) as releaser, connector.session() as other:
        releaser.execute(sql(Request("grip_locks", ids=[holder.id])))
        drive.run(defer.defer_job(NewJob("task", lock="k")), other, sql)
        found = claimed(other)
    assert (found.jobs, found.parked, found.undecided) == ([], 0, 1)


def test_a_lock_that_another_claim_was_faster_to_take_leaves_its_job_undecided(
    connector: Psycopg2Connector, query: Look
) -> None:
    """Also where the claim had room for no more than this job: who made it has to look again."""
    found: list[claim.Claim] = []

    def take(executor: Executor, queue: str) -> None:
        scan = Scan(Kind.FULL, 1, (queue,), with_locks=True)
        flow = claim.claim(scan, served=[queue], worker_id=1, loads=json_codec.loads)
        found.append(drive.run(flow, executor, sql))

    def take_b() -> None:
        with connector.session() as executor:
            take(executor, "b")

    with connector.session() as executor:
        ids = drive.run(
            defer.defer_jobs([NewJob("task", queue=name, lock="k") for name in "ab"]), executor, sql
        )
    with connector.session(transaction=True) as executor:
        take(executor, "a")
        slower = threading.Thread(target=take_b)
        slower.start()
        until_somebody_waits(query)
    slower.join(10)
    first, second = found
    assert ([job.id for job in first.jobs], second.jobs) == (ids[:1], [])
    assert (second.parked, second.undecided) == (0, 1)


def test_two_who_cancel_jobs_of_one_line_do_not_wait_for_each_other(
    connector: Psycopg2Connector, line: tuple[Job, list[int]], query: Look
) -> None:
    """Each would pass the lock on to the job that the other is cancelling."""
    _, (first, second, third) = line
    with (
        connector.session(transaction=True) as one,
        connector.session(transaction=True) as other,
    ):
        one.execute(sql(Request("cancel_todo", ids=[first])))
        cancel = jobs.cancel_jobs([second], abort=False, delete=False)
        assert drive.run(cancel, other, sql) == {second}
        one.execute(sql(Request("pass_on_locks", locks=["k"])))
    assert ready(query) == [third]


@pytest.mark.parametrize("commit", [True, False])
def test_a_release_waits_for_a_change_by_hand_and_passes_on_to_whoever_is_next_then(
    connector: Psycopg2Connector, line: tuple[Job, list[int]], query: Look, *, commit: bool
) -> None:
    holder, (first, second, _) = line
    thread = threading.Thread(target=finish_job, args=(connector, holder), daemon=True)
    try:
        with connector.session(transaction=True) as operator:
            operator.execute(sql(Request("delete_todo", ids=[first])))
            thread.start()
            until_somebody_waits(query)
            if not commit:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    thread.join(10)
    assert ready(query) == [second if commit else first]
    assert query("select * from procrastinate_locks") == []


def test_a_release_does_not_wait_for_changes_in_other_lines(
    connector: Psycopg2Connector, line: tuple[Job, list[int]], query: Look
) -> None:
    holder, (first, *_) = line
    with connector.session() as executor:
        elsewhere = drive.run(defer.defer_job(NewJob("task", lock="other")), executor, sql)
    with connector.session(transaction=True) as operator:
        operator.execute(sql(Request("cancel_todo", ids=[elsewhere])))
        finish_job(connector, holder)
    assert ready(query) == [first]


def test_a_line_whose_best_job_stayed_parked_is_mended(
    connector: Psycopg2Connector, line: tuple[Job, list[int]], query: Look
) -> None:
    """Nothing could start there any more, although a job behind it is ready."""
    holder, (first, second, third) = line
    finish_job(connector, holder)
    query("update procrastinate_jobs set hold = 'lock' where id = %s", first)
    query("update procrastinate_jobs set hold = null where id = %s", second)
    with connector.session(transaction=True) as executor:
        assert claimed(executor).jobs == []
        drive.run(locks.mend(), executor, sql)
        assert [job.id for job in claimed(executor).jobs] == [first]
    assert ready(query) == []
    assert query("select hold::text from procrastinate_jobs where id = %s", third) == [("lock",)]


def test_a_line_that_moves_is_left_alone(
    connector: Psycopg2Connector, line: tuple[Job, list[int]], query: Look
) -> None:
    holder, (first, *_) = line
    with connector.session(transaction=True) as executor:
        drive.run(locks.mend(), executor, sql)
    assert ready(query) == []
    finish_job(connector, holder)
    with connector.session(transaction=True) as executor:
        drive.run(locks.mend(), executor, sql)
    assert ready(query) == [first]


def until_somebody_waits(query: Look) -> None:
    deadline = time.monotonic() + 10
    while query(COUNT_WAITING) == [(0,)]:
        assert time.monotonic() < deadline, "nobody waits"
