"""Listeners hear the same of a statement on a distributed database, by a call of its own.

There they hear the partition of the jobs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg2
import pytest

from procrastinate import drive, json_codec
from procrastinate.drive import Flow
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import SUCCEEDED, Requeued
from procrastinate.model.job import Job, NewJob
from procrastinate.model.partitions import Partitions
from procrastinate.storage import claim, defer, finish, jobs, locks, workers
from procrastinate.storage.news import tell
from procrastinate.storage.statements import Statements
from procrastinate_psycopg2 import Psycopg2Connector

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

T = TypeVar("T")

CHANNELS = ("procrastinate_jobs", "procrastinate_schedule", "procrastinate_aborts")
QUEUES = ("a", "b")
NOW = datetime.now(UTC)


class Side:
    """A database that is spoken to with one kind of texts, and a listener."""

    def __init__(self, dsn: str, *, distributed: bool) -> None:
        self.sql = Statements(partitions=Partitions(64 if distributed else 1))
        self.connector = Psycopg2Connector(dsn=dsn)
        self.connector.open()
        self.listener = psycopg2.connect(dsn)
        self.listener.autocommit = True
        for channel in CHANNELS:
            self.change(f"listen {channel}")
        self.worker_id = self.run(workers.register_worker("w"))

    def change(self, text: str) -> None:
        with self.listener.cursor() as cursor:
            cursor.execute(text)

    def heard(self) -> list[tuple[str, str]]:
        self.change("select 1")
        heard = sorted((each.channel, each.payload) for each in self.listener.notifies)
        self.listener.notifies.clear()
        return heard

    def heard_of_queues(self) -> list[tuple[str, str]]:
        """What is heard, without the partition that a distributed database adds."""
        if not self.sql.distributed:
            return self.heard()
        news = [(channel, payload.rpartition("@")) for channel, payload in self.heard()]
        assert all(said[1:] == ("@", "0") for _, said in news)
        return [(channel, said[0]) for channel, said in news]

    def run(self, flow: Flow[T]) -> T:
        with self.connector.session(transaction=True) as executor:
            return drive.run(flow, executor, self.sql)

    def claimed(self) -> list[Job]:
        scan = Scan(Kind.FULL, 10, QUEUES, with_locks=True)
        flow = claim.claim(
            scan,
            worker_id=self.worker_id,
            loads=json_codec.loads,
            makes_slots=self.sql.distributed,
        )
        return self.run(flow).jobs

    def settle(self, *ended: finish.Ended) -> None:
        dumps = json_codec.dumps
        self.run(finish.settle(ended, now=0.0, worker_id=self.worker_id, dumps=dumps))

    def close(self) -> None:
        self.connector.close()
        self.listener.close()


@pytest.fixture(params=[False, True], ids=["plain", "distributed"])
def side(request: pytest.FixtureRequest, dsn: str) -> Iterator[Side]:
    side = Side(dsn, distributed=request.param)
    yield side
    side.close()


def ready(*queues: str) -> list[tuple[str, str]]:
    return [("procrastinate_jobs", queue) for queue in queues]


@pytest.fixture
def line(side: Side) -> list[Job]:
    """Two running jobs, the first of them before two that are parked in two queues."""
    side.run(defer.defer_jobs([NewJob("t", queue=name, lock="k") for name in "aab"]))
    side.run(defer.defer_jobs([NewJob("t", queue="b")]))
    running = side.claimed()
    assert len(running) == 2
    side.heard()
    return running


def test_a_finish_wakes_whom_a_lock_is_passed_on_to(side: Side, line: list[Job]) -> None:
    side.settle(finish.Ended(line[0], SUCCEEDED))
    assert side.heard_of_queues() == ready("a", "b")
    assert [job.lock for job in side.claimed()] == ["k"]


@pytest.mark.parametrize(
    "when, channel",
    [
        (None, "procrastinate_jobs"),
        (timedelta(seconds=5), "procrastinate_schedule"),
        (timedelta(hours=1), None),
    ],
)
def test_a_retry_wakes_its_queue_if_it_is_due_soon(
    side: Side, line: list[Job], when: timedelta | None, channel: str | None
) -> None:
    side.settle(finish.Ended(line[1], Requeued(when)))
    assert side.heard_of_queues() == ([] if channel is None else [(channel, "b")])


def test_two_retries_to_one_queue_are_told_once(side: Side) -> None:
    side.run(defer.defer_jobs([NewJob("t", queue="a") for _ in range(2)]))
    running = side.claimed()
    side.heard()
    side.settle(*[finish.Ended(job, Requeued(None)) for job in running])
    assert side.heard_of_queues() == ready("a")


def test_promoted_jobs_wake_their_queues(side: Side) -> None:
    assert side.run(claim.promote_due()).count == 0
    assert side.heard_of_queues() == []
    later = NOW + timedelta(hours=1)
    side.run(defer.defer_jobs([NewJob("t", queue=name, scheduled_at=later) for name in "aab"]))
    side.change("update procrastinate_jobs set scheduled_at = now() - interval '1 second'")
    side.heard()
    promotion = side.run(claim.promote_due())
    assert (promotion.count, promotion.seconds_to_next) == (3, None)
    assert side.heard_of_queues() == ready("a", "b")


def test_recovered_jobs_wake_their_queues(side: Side, line: list[Job]) -> None:
    side.change("update procrastinate_workers set last_heartbeat = now() - interval '1 hour'")
    assert len(side.run(workers.recover_jobs(timeout_us=1_000_000))) == 2
    assert side.heard_of_queues() == ready("a", "b")


def test_an_abort_request_is_told_to_the_worker(side: Side, line: list[Job]) -> None:
    ids = [job.id for job in line]
    assert side.run(jobs.cancel_jobs(ids, abort=True, delete=False)) == set(ids)
    assert side.heard() == sorted(("procrastinate_aborts", str(job_id)) for job_id in ids)


@pytest.mark.parametrize("retry", [jobs.retry_by_hand, jobs.retry_unless_twin_waits])
def test_a_retry_by_hand_wakes_its_queue(
    side: Side, line: list[Job], retry: Callable[..., Flow[Any]]
) -> None:
    side.change("update procrastinate_jobs set status = 'failed' where queue_name = 'b' and id > 3")
    assert side.run(retry([4], jobs.ByHand())) == {4}
    assert side.heard_of_queues() == ready("b")
    at = jobs.ByHand(retry_at=NOW + timedelta(hours=1))
    assert side.run(retry([4], at)) == {4}
    assert side.heard_of_queues() == []


def test_mending_wakes_the_line(side: Side, line: list[Job]) -> None:
    side.change(f"delete from procrastinate_jobs where id = {line[0].id}")
    side.run(locks.mend())
    assert side.heard_of_queues() == ready("a", "b")


def test_rows_without_news_send_nothing() -> None:
    assert list(tell([(1, "a"), (2, "b")], 2)) == []
    assert list(tell([(1, None, "x")], 1)) == []
    (request,) = tell([(1, "c", "q"), (2, None, "r"), (3, "c", "q"), (4, "c", "p")], 1)
    assert (request.name, request.params) == (
        "notify",
        {"channels": ["c", "c"], "payloads": ["p", "q"]},
    )
