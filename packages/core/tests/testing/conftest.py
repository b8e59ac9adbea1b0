"""A queue in memory, driven by the flows that the job manager and the worker use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from procrastinate import drive, json_codec
from procrastinate.drive import Flow
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import INTERRUPTED, UNSTARTED, Finished, Outcome, retried
from procrastinate.model.endings.retry import RetryDecision
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.storage import claim, defer, finish, jobs, workers
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector

T = TypeVar("T")

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class MemoryQueue:
    """Flows, run in sessions of their own on one in-memory connector."""

    def __init__(self) -> None:
        self.sql = Statements()
        self.connector = InMemoryConnector()
        self.sync = self.connector.sync_connector()

    def run(self, flow: Flow[T]) -> T:
        with self.sync.session(transaction=True) as executor:
            return drive.run(flow, executor, self.sql)

    def defer(self, **options: Any) -> int:
        return self.run(defer.defer_job(NewJob("task", **options)))

    def defer_all(self, *batch: NewJob) -> list[int]:
        return self.run(defer.defer_jobs(batch))

    def claim(
        self, queues: Sequence[str] = ("default",), limit: int = 10, worker_id: int = 1
    ) -> claim.Claim:
        return self.run(
            claim.claim(
                Scan(Kind.FULL, limit, tuple(queues), with_locks=True),
                served=queues,
                worker_id=worker_id,
                loads=json_codec.loads,
            )
        )

    def claimed(self, *args: Any, **options: Any) -> list[int]:
        return [job.id for job in self.claim(*args, **options).jobs]

    def finish(
        self,
        job: Job,
        status: Status = Status.SUCCEEDED,
        *,
        error: dict[str, Any] | None = None,
        worker_id: int = 1,
    ) -> set[int]:
        return self.settle(job, Finished(status, error), worker_id)

    def settle(self, job: Job, outcome: Outcome, worker_id: int = 1) -> set[int]:
        ended = finish.Ended(job, outcome, began=-2.0, ended=0.0)
        flow = finish.settle([ended], now=0.0, worker_id=worker_id, dumps=json_codec.dumps)
        return set(self.run(flow).changed)

    def retry(self, job: Job, *, worker_id: int = 1, **decision: Any) -> set[int]:
        outcome = retried(RetryDecision(**decision), {"message": "boom"})
        return self.settle(job, outcome, worker_id)

    def hand_back(self, job: Job, *, begun: bool) -> set[int]:
        return self.settle(job, INTERRUPTED if begun else UNSTARTED)

    def cancel(self, *ids: int, abort: bool = False, delete: bool = False) -> set[int]:
        return self.run(jobs.cancel_jobs(ids, abort=abort, delete=delete))

    def promote(self) -> claim.Promotion:
        return self.run(claim.promote_due())

    def register(self) -> int:
        return self.run(workers.register_worker("worker"))

    def recover(self, *, seconds: int = 30, crash_limit: int = 3) -> list[workers.Recovered]:
        return self.run(
            workers.recover_jobs(timeout_us=seconds * 1_000_000, crash_limit=crash_limit)
        )

    def job(self, job_id: int) -> Job:
        return next(job for job in self.connector.jobs if job.id == job_id)

    def statuses(self) -> dict[int, str]:
        return {job.id: job.status.value for job in self.connector.jobs}


@pytest.fixture
def queue() -> MemoryQueue:
    """A queue whose clock stands at noon."""
    queue = MemoryQueue()
    queue.connector.clock.freeze(NOON)
    return queue
