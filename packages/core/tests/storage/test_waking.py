"""Whoever waits for the end of a job is told of it, whatever ends or removes the job."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg2
import pytest

import procrastinate
from procrastinate import Status, drive, json_codec
from procrastinate.connector import Query, Rows
from procrastinate.drive import Flow
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, Finished
from procrastinate.model.endings.results import RETURNED_NOTHING
from procrastinate.model.job import Job
from procrastinate.model.partitions import Partitions
from procrastinate.storage import finish, handing_over, jobs, workers
from procrastinate.storage.finish import Ended
from procrastinate.storage.statements import Statements

pytestmark = pytest.mark.one_partition("it says itself in which partition it is")

T = TypeVar("T")

WORKER = 1
PAYLOAD = 7_000  # bytes at most of one notification
LARGE_IDS = 2**63 - 10_000


@dataclass
class Ends:
    """Jobs of one partition, those who wait for their ends, and what these hear."""

    app: procrastinate.App
    connection: Any
    statements: Statements
    sent: list[str] = field(default_factory=list)

    def sql(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    def jobs(self, count: int, *, status: str = "doing", lock: str | None = None) -> list[Job]:
        """Insert jobs. Those that run are held by a worker, and the first holds the lock."""
        made = self.sql(
            "insert into procrastinate_jobs"
            " (partition, task_name, queue_name, status, worker_id, attempts, lease, lock)"
            " select %s, 'task', 'default', %s::procrastinate_job_status, %s, 1, 1, %s"
            " from generate_series(1, %s) returning id",
            self.statements.partition,
            status,
            WORKER if status == "doing" else None,
            lock,
            count,
        )
        ids = [row[0] for row in made]
        if lock is not None and status == "doing":
            sql = "insert into procrastinate_locks (partition, lock, job_id) values (%s, %s, %s)"
            self.sql(sql, self.statements.partition, lock, ids[0])
        return [
            Job(n, Status(status), "default", "task", {}, lock=lock, attempts=1, lease=1)
            for n in ids
        ]

    def wait(self, waiter: int, *awaited: Job) -> None:
        self.sql(
            "insert into procrastinate_waits (job_id, partition, waiter, expires_at)"
            " select id, %s, %s, now() + interval '1 hour' from unnest(%s) as awaited(id)",
            self.statements.partition,
            waiter,
            [job.id for job in awaited],
        )
        self.sql(f"listen procrastinate_ends_{waiter}")

    def heard(self) -> list[tuple[int, list[int]]]:
        """Return (waiter, ids) of each notification so far, in order."""
        self.sql("listen procrastinate_ends_so_far")
        self.sql("notify procrastinate_ends_so_far")
        found: list[tuple[int, list[int]]] = []
        while True:
            while self.connection.notifies:
                notify = self.connection.notifies.pop(0)
                _, _, waiter = notify.channel.rpartition("_")
                if waiter == "far":
                    return sorted(found)
                assert len(notify.payload.encode()) <= PAYLOAD
                found.append((int(waiter), [int(each) for each in notify.payload.split(" ")]))
            assert select.select([self.connection], [], [], 30.0)[0], "it hears nothing"
            self.connection.poll()

    def run(self, flow: Flow[T], *, transaction: bool = False, commit: bool = True) -> T:
        connector: Any = self.app.connector
        try:
            with connector.session(transaction=transaction) as executor:
                value = drive.run(flow, self._noting(executor), self.statements)
                if not commit:
                    raise _RolledBack
        except _RolledBack:
            pass
        return value

    def _noting(self, executor: Any) -> Any:
        ends = self

        class Noting:
            def execute(self, query: Query, /) -> Rows:
                ends.sent.append(query.name)
                rows: Rows = executor.execute(query)
                return rows

        return Noting()

    def row(self, job: Job) -> Job:
        found = self.run(jobs.get_job(job.id, json_codec.loads))
        assert found is not None
        return found


class _RolledBack(Exception):
    pass


@pytest.fixture(params=[(1, 0), (64, 7)], ids=["one", "of 64"])
def ends(request: pytest.FixtureRequest, sync_app: procrastinate.App, dsn: str) -> Iterator[Ends]:
    count, partition = request.param
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    yield Ends(sync_app, connection, Statements(None, Partitions(count)).at(partition))
    connection.close()


def settle(outcome: Any, **options: Any) -> Callable[[Ends, Sequence[Job]], Flow[Any]]:
    return lambda ends, given: finish.settle(
        [Ended(job, outcome) for job in given],
        now=0.0,
        worker_id=WORKER,
        dumps=json_codec.dumps,
        **options,
    )


def delete_finished(ends: Ends, given: Sequence[Job]) -> Flow[Any]:
    return finish.delete_finished([Ended(job, SUCCEEDED) for job in given], worker_id=WORKER)


def recover(ends: Ends, given: Sequence[Job]) -> Flow[Any]:
    return workers.recover_jobs(timeout_us=-3_600_000_000, crash_limit=1, most_crashes=1)


def fail_unknown(ends: Ends, given: Sequence[Job]) -> Flow[Any]:
    ends.sql(
        "update procrastinate_jobs set unknown_since = now() - interval '1 hour'"
        " where id = any(%s)",
        [job.id for job in given],
    )
    return workers.fail_unknown(patience_us=1, timeout_us=1)


def by_hand(*, delete: bool) -> Callable[[Ends, Sequence[Job]], Flow[Any]]:
    return lambda ends, given: jobs.cancel_jobs(
        [job.id for job in given], abort=False, delete=delete
    )


FAILED = Finished(Status.FAILED, {"message": "m", "attempt": 1})
RETURNED = Finished(Status.SUCCEEDED, result="1")
#: The flows that end jobs, whether they take a transaction, and what the jobs are before.
ENDINGS: dict[str, tuple[Any, bool, str]] = {
    "succeeded": (settle(SUCCEEDED), False, "doing"),
    "with a result": (settle(RETURNED), False, "doing"),
    "with the result None": (settle(RETURNED_NOTHING), False, "doing"),
    "failed": (settle(FAILED), False, "doing"),
    "failed and deleted": (settle(FAILED, delete_ended=True), True, "doing"),
    "deleted": (delete_finished, False, "doing"),
    "lost their worker": (recover, True, "doing"),
    "unknown": (fail_unknown, True, "todo"),
    "cancelled": (by_hand(delete=False), True, "todo"),
    "deleted by hand": (by_hand(delete=True), True, "todo"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_each_waiter_is_told_once_of_the_jobs_that_it_waits_for(ends: Ends, how: str) -> None:
    end, transaction, status = ENDINGS[how]
    other = ends.jobs(1, status="succeeded")[0]
    a, b, c = ends.jobs(3, status=status)
    ends.wait(7, a, c, other)
    ends.wait(8, a)
    ends.wait(9, other)
    ends.run(end(ends, [a, b, c]), transaction=transaction)
    assert ends.heard() == [(7, [a.id, c.id]), (8, [a.id])]


@pytest.mark.parametrize("how", ENDINGS)
def test_nobody_is_told_of_what_was_rolled_back(ends: Ends, how: str) -> None:
    end, _, status = ENDINGS[how]
    given = ends.jobs(2, status=status)
    ends.wait(7, *given)
    ends.run(end(ends, given), transaction=True, commit=False)
    assert [ends.row(job).status for job in given] == [Status(status)] * 2
    assert ends.heard() == []


@pytest.mark.parametrize("result", [None, "1"])
def test_a_line_that_goes_on_wakes_who_waits_for_what_has_ended(
    ends: Ends, result: str | None
) -> None:
    (first,), (second,) = ends.jobs(1, lock="l"), ends.jobs(1, status="todo", lock="l")
    ends.wait(7, first, second)
    outcome = SUCCEEDED if result is None else Finished(Status.SUCCEEDED, result=result)
    done = ends.run(
        handing_over.hand_over(
            [Ended(first, outcome)],
            now=0.0,
            worker_id=WORKER,
            limit=1,
            loads=json_codec.loads,
            served=None,
        )
    )
    assert [job.id for job in done.claim.jobs] == [second.id]
    assert (ends.row(first).has_result, ends.row(first).result) == (
        (False, None) if result is None else (True, 1)
    )
    assert ends.heard() == [(7, [first.id])]


def test_a_job_that_is_tried_again_keeps_its_waiters_waiting(ends: Ends) -> None:
    given = ends.jobs(2)
    ends.wait(7, *given)
    ends.run(settle(INTERRUPTED)(ends, given))
    assert ends.heard() == []


def test_nobody_is_told_by_a_worker_that_has_lost_the_job(ends: Ends) -> None:
    given = ends.jobs(1)
    ends.wait(7, *given)
    ends.sql("update procrastinate_jobs set lease = 2")
    ends.run(settle(SUCCEEDED)(ends, given))
    assert ends.heard() == []


def test_nothing_more_is_sent_if_nobody_waits(ends: Ends) -> None:
    before, given, after = ends.jobs(1), ends.jobs(3), ends.jobs(1)
    ends.wait(7, *before, *after)
    for end in (settle(SUCCEEDED), settle(FAILED), delete_finished):
        ends.run(end(ends, [given.pop()]))
    assert ends.sent == ["finish_jobs", "settle_jobs", "delete_finished"]
    assert ends.heard() == []


def test_many_ids_are_told_in_notifications_that_are_not_too_long(ends: Ends) -> None:
    given = ends.jobs(2_000, status="todo")
    ends.sql("update procrastinate_jobs set id = %s + id", LARGE_IDS)
    for job in given:
        object.__setattr__(job, "id", LARGE_IDS + job.id)
    ends.wait(7, *given)
    ends.wait(8, *given[:351])
    ends.run(by_hand(delete=False)(ends, given), transaction=True)
    heard = ends.heard()
    assert [len(ids) for waiter, ids in heard if waiter == 7] == [350] * 5 + [250]
    assert [len(ids) for waiter, ids in heard if waiter == 8] == [350, 1]
    assert [each for waiter, ids in heard if waiter == 7 for each in ids] == [
        job.id for job in given
    ]


def test_the_end_of_a_job_writes_nothing_where_the_waits_are(ends: Ends) -> None:
    given = ends.jobs(2)
    ends.wait(7, *given)
    before = ends.sql("select ctid, xmin, * from procrastinate_waits order by job_id")
    ends.run(settle(SUCCEEDED)(ends, given))
    assert ends.sql("select ctid, xmin, * from procrastinate_waits order by job_id") == before
