"""The queue in few words: storage flows, each in the session that it needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from procrastinate import drive
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, UNSTARTED, Outcome, retried
from procrastinate.model.endings.retry import RetryDecision
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.partitions import Partitions
from procrastinate.model.queues import NO_PAUSES, Pause, Pauses
from procrastinate.storage import (
    bulk,
    claim,
    defer,
    finish,
    handing_over,
    jobs,
    locks,
    migrating,
    workers,
)
from procrastinate.storage import queues as pausing
from procrastinate.storage.claim import Claim, Promotion
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.places import Change
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Session, Subject

T = TypeVar("T")

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
#: A timeout (microseconds) at which every worker counts as dead, however lately it was heard of.
AT_ONCE_US = -HOUR_US


class Queue:
    """What an app and its workers do with the database, through the connector under test.

    ``key`` is the partition key of all jobs that have no other, if there are many partitions.
    """

    def __init__(self, db: Subject, *, key: str | None = None) -> None:
        self.db = db
        self.key = key
        self.statements = db.statements
        self.loads = db.connector.json_loads
        self.dumps = db.connector.json_dumps

    async def run(self, flow: drive.Flow[T], *, transaction: bool = False) -> T:
        """Run a storage flow in a session of its own."""
        async with entered(self.db.session(transaction=transaction)) as session:
            return await session.flow(flow)

    # The schema

    async def migrate(self, *, create: bool = True) -> list[int]:
        """Run the migrations that are missing, and return their versions."""
        while True:
            async with entered(self.db.session(transaction=True)) as holder:
                begin = migrating.begin(schema=self.db.connector.schema, create=create)
                begun = await holder.flow(begin)
                done = begun.created
                if begun.is_locked and done is None:
                    done = await self.run_steps(migrating.migrate())
                if done is not None:
                    return [migration.version for migration in done]
            await self.db.sleep(0.01)

    async def run_steps(self, steps: drive.Steps[T]) -> T:
        """Run flows one after the other, each in a session of its own."""
        return await drive.run_steps_async(steps, self._step)

    async def _step(self, step: drive.Step) -> Any:
        return await self.run(step.flow, transaction=step.transaction)

    async def spread(self) -> Partitions:
        """Let jobs lie in many partitions from now on."""
        return await self.run(into_partitions(), transaction=True)

    async def empty(self) -> None:
        tables = ", ".join(
            self.statements.render("{schema}.") + f"procrastinate_{name}"
            for name in ("jobs", "locks", "workers", "periodic", "waits", "progress", "queues")
        )
        await self.db.sql(f"truncate {tables}")

    # Deferring

    async def defer(self, task: str = "task", /, **options: Any) -> int:
        return await self.run(self.defer_flow(task, **options))

    def defer_flow(self, task: str = "task", /, **options: Any) -> drive.Flow[int]:
        return defer.defer_job(self.placed(NewJob(task, **options)))

    def placed(self, job: NewJob) -> NewJob:
        """Return a job as one of this queue's partition, unless it says another."""
        if self.key is None or job.partition_key is not None:
            return job
        return dataclasses.replace(job, partition_key=self.key)

    async def defer_all(self, *new: NewJob) -> list[int]:
        flow = defer.defer_jobs(list(map(self.placed, new)))
        return await self.run(flow, transaction=len(new) > defer.ROWS_PER_STATEMENT)

    async def defer_each(self, *new: NewJob) -> list[int]:
        """Defer jobs one by one: none of them is parked."""
        return [await self.run(defer.defer_job(self.placed(each))) for each in new]

    def defer_all_flow(self, *new: NewJob) -> drive.Flow[list[int]]:
        """The flow that defers a batch in a transaction of the caller's."""
        return defer.defer_jobs_for_caller(list(map(self.placed, new)))

    # Working

    async def worker(self, name: str = "worker", *, host: str | None = None) -> int:
        about = workers.About(host, 1, ("task",))
        return await self.run(workers.register_worker(name, about))

    async def claim(
        self,
        worker: int,
        *queues: str,
        limit: int = 100,
        session: Session | None = None,
        paused: Pauses = NO_PAUSES,
    ) -> Claim:
        served = queues or ("default",)
        scan = Scan(Kind.FULL, limit, served, with_locks=True).without(paused)
        if not scan.queues:
            return Claim([])
        flow = self._claim(scan, worker, served=served, paused=paused)
        return await (self.run(flow) if session is None else session.flow(flow))

    def _claim(self, scan: Scan, worker: int, **which: Any) -> drive.Flow[Claim]:
        slots = self.statements.distributed
        return claim.claim(scan, worker_id=worker, loads=self.loads, makes_slots=slots, **which)

    async def claim_known(
        self, worker: int, *unknown_names: str, limit: int = 100, with_locks: bool = True
    ) -> list[int]:
        """Claim jobs of the default queue, but none of these tasks."""
        scan = Scan(Kind.FULL, limit, ("default",), with_locks=with_locks)
        flow = self._claim(scan, worker, unknown_names=unknown_names)
        return [job.id for job in (await self.run(flow)).jobs]

    async def fail_unknown(self, *, patience_us: int = 0, delete_ended: bool = False) -> list[int]:
        flow = workers.fail_unknown(
            patience_us=patience_us,
            timeout_us=HOUR_US,
            delete_ended=delete_ended,
        )
        return [each.job_id for each in await self.run(flow, transaction=True)]

    async def claimed_ids(self, worker: int, *queues: str, limit: int = 100) -> list[int]:
        return [job.id for job in (await self.claim(worker, *queues, limit=limit)).jobs]

    async def claim_jobs(self, worker: int, *queues: str) -> list[Job]:
        """Claim what is ready; again while a claim has only parked jobs."""
        while True:
            found = await self.claim(worker, *queues)
            if found.jobs or not found.parked:
                return list(found.jobs)

    async def claim_one(self, worker: int, *queues: str) -> Job:
        """Claim one job, which must be there."""
        claimed = (await self.claim(worker, *queues, limit=1)).jobs
        assert len(claimed) == 1, "a job is ready, and the claim brought none"
        return claimed[0]

    async def claim_level(
        self, worker: int, lows: dict[str, int], *, priority: int = 0, limit: int = 100
    ) -> list[int]:
        """Claim jobs of one priority, those of each queue above its low-water mark."""
        queues, marks = tuple(lows), tuple(lows.values())
        scan = Scan(Kind.LEVEL, limit, queues, priority=priority, lows=marks, with_locks=True)
        flow = self._claim(scan, worker, served=queues)
        return [job.id for job in (await self.run(flow)).jobs]

    async def ready_queues(self) -> list[str]:
        return await self.run(claim.ready_queues())

    async def promote(self) -> Promotion:
        return await self.run(claim.promote_due())

    # Pausing

    async def pause(
        self,
        name: str,
        *,
        until: datetime | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> Pause:
        flow = pausing.pause_queue(name, until=until, by=by, reason=reason)
        return await self.run(flow, transaction=True)

    async def resume(self, name: str) -> bool:
        return await self.run(pausing.resume_queue(name), transaction=True)

    # Ending attempts

    async def settle(
        self, worker: int, *given: tuple[Job, Outcome], delete_ended: bool = False
    ) -> finish.Settled:
        """Write what became of attempts: each took a second, and ended a second ago."""
        flow = finish.settle(
            [finish.Ended(job, outcome, began=-2.0, ended=-1.0) for job, outcome in given],
            now=0.0,
            worker_id=worker,
            dumps=self.dumps,
            delete_ended=delete_ended,
        )
        several = delete_ended or finish.needs_transaction([job for job, _ in given])
        return await self.run(flow, transaction=several)

    async def finish(self, worker: int, *ended: Job, ending: Outcome = SUCCEEDED) -> set[int]:
        return set((await self.settle(worker, *((job, ending) for job in ended))).changed)

    async def hand_over(
        self,
        worker: int,
        *ended: Job,
        queues: Sequence[str] = (),
        paused: Pauses = NO_PAUSES,
    ) -> list[Job]:
        """End jobs whose lines go on with what may be taken, and take that; return what was taken.

        The jobs are taken from these queues, or from all if none is named.
        """
        flow = handing_over.hand_over(
            [finish.Ended(job, SUCCEEDED) for job in ended],
            now=0.0,
            worker_id=worker,
            limit=100,
            loads=self.loads,
            served=tuple(queues) or None,
            paused=paused,
        )
        return list((await self.run(flow)).claim.jobs)

    async def delete_finished(self, worker: int, *ended: Job) -> set[int]:
        flow = finish.delete_finished(
            [finish.Ended(job, SUCCEEDED) for job in ended],
            worker_id=worker,
        )
        several = finish.needs_transaction(ended)
        return set((await self.run(flow, transaction=several)).changed)

    async def retry(
        self,
        worker: int,
        job: Job,
        error: dict[str, Any] | None = None,
        /,
        *,
        delete_ended: bool = False,
        **changes: Any,
    ) -> set[int]:
        outcome = retried(RetryDecision(**changes), error)
        settled = await self.settle(worker, (job, outcome), delete_ended=delete_ended)
        return set(settled.changed)

    async def hand_back(
        self, worker: int, *unstarted: Job, begun: bool = False, delete_ended: bool = False
    ) -> set[int]:
        outcome = INTERRUPTED if begun else UNSTARTED
        given = ((job, outcome) for job in unstarted)
        return set((await self.settle(worker, *given, delete_ended=delete_ended)).changed)

    # Workers

    async def heartbeat(self, worker: int, name: str = "worker") -> bool:
        """Say that a worker is alive, and return whether it had been taken for dead."""
        flow = workers.heartbeat(worker, name, timeout_us=30_000_000)
        return (await self.run(flow)).reborn

    async def unregister(self, worker: int) -> None:
        await self.run(workers.unregister_worker(worker))

    async def recover(
        self,
        *,
        timeout_us: int = AT_ONCE_US,
        crash_limit: int = 3,
        most_crashes: int = 15,
        moment_us: int = 0,
        ids: Sequence[int] | None = None,
        delete_ended: bool = False,
    ) -> list[workers.Recovered]:
        flow = workers.recover_jobs(
            timeout_us=timeout_us,
            crash_limit=crash_limit,
            most_crashes=most_crashes,
            moment_us=moment_us,
            ids=ids,
            delete_ended=delete_ended,
        )
        return await self.run(flow, transaction=True)

    async def stalled_ids(self) -> list[int]:
        return await self.run(workers.stalled_ids(timeout_us=AT_ONCE_US))

    async def prune(self, *, timeout_us: int = AT_ONCE_US) -> None:
        await self.run(workers.prune_workers(timeout_us=timeout_us))

    async def mend(self) -> None:
        await self.run(locks.mend(), transaction=True)

    async def abort_requests(self, worker: int) -> set[int]:
        return await self.run(workers.abort_requests(worker))

    # By hand

    async def job(self, job_id: int) -> Job:
        """Return a job, which must be there."""
        job = await self.find(job_id)
        assert job is not None, f"job {job_id} is gone"
        return job

    async def find(self, job_id: int) -> Job | None:
        return await self.run(jobs.get_job(job_id, self.loads))

    async def ids(self, *, after_id: int = 0, limit: int = 1000, **filters: Any) -> list[int]:
        flow = jobs.list_jobs(
            jobs.JobFilter(**filters),
            after_id=after_id,
            limit=limit,
            loads=self.loads,
        )
        return [job.id for job in await self.run(flow)]

    async def task_names(self) -> list[str]:
        """Return the task of every job, in order of id."""
        return [(await self.job(job_id)).task_name for job_id in await self.ids()]

    async def statuses(self) -> dict[int, str]:
        """Return the status of every job, by id."""
        flow = jobs.list_jobs(jobs.JobFilter(), after_id=0, limit=100_000, loads=self.loads)
        return {job.id: job.status.value for job in await self.run(flow)}

    async def counts(
        self, by: Literal["list_queues", "list_tasks", "list_locks"], **filters: str
    ) -> dict[str, dict[str, int]]:
        """Return the counts that are not zero, by name."""
        wanted = {"queue": None, "task": None, "lock": None} | filters
        found = await self.run(jobs.list_counts(by, **wanted))
        return {each.name: _nonzero(each) for each in found}

    async def cancel(self, *ids: int, abort: bool = False, delete: bool = False) -> set[int]:
        flow = jobs.cancel_jobs(ids, abort=abort, delete=delete)
        return await self.run(flow, transaction=True)

    async def retry_by_hand(self, *ids: int, **changes: Any) -> set[int]:
        flow = jobs.retry_by_hand(ids, jobs.ByHand(**changes))
        return await self.run(flow, transaction=True)

    async def cancel_batch(
        self, *, after_id: int = 0, limit: int = 100, abort: bool = False, **filters: Any
    ) -> bulk.Batch:
        """Cancel the next of those that match."""
        statuses = [Status.TODO, Status.DOING] if abort else [Status.TODO]
        which = jobs.JobFilter(**{"statuses": statuses, **filters})
        change = functools.partial(jobs.cancel_jobs, abort=abort, delete=False)
        return await self._batch(which, change, after_id, limit)

    async def retry_batch(
        self, *, after_id: int = 0, limit: int = 100, priority: int | None = None, **filters: Any
    ) -> bulk.Batch:
        """Retry the next of those that match."""
        which = jobs.JobFilter(**{"statuses": jobs.ENDED_BADLY, **filters})
        by_hand = jobs.ByHand(priority=priority)
        change = functools.partial(jobs.retry_unless_twin_waits, change=by_hand)
        return await self._batch(which, change, after_id, limit)

    async def _batch(
        self, which: jobs.JobFilter, change: Change, after_id: int, limit: int
    ) -> bulk.Batch:
        flow = bulk.change_batch(which, change, after_id=after_id, limit=limit)
        return await self.run(flow, transaction=True)

    async def delete_old(self, *statuses: Status, age_us: int = 0, queue: str | None = None) -> int:
        flow = bulk.delete_old(dict.fromkeys(statuses, age_us), queue=queue, after_id=0)
        return (await self.run(flow)).count

    async def stalled(self, *, timeout_us: int = AT_ONCE_US, **filters: Any) -> list[int]:
        wanted = {"queue": None, "task": None} | filters
        flow = jobs.stalled_jobs(timeout_us=timeout_us, loads=self.loads, **wanted)
        return [job.id for job in await self.run(flow)]


def _nonzero(counts: jobs.Counts) -> dict[str, int]:
    fields = dataclasses.asdict(counts)
    fields.pop("name")
    return {name: count for name, count in fields.items() if count}


def error(message: str, attempt: int = 1) -> dict[str, Any]:
    """Return what the worker stores about a failed attempt."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat()
    return {
        "attempt": attempt,
        "at": at,
        "type": "builtins.ValueError",
        "message": message,
        "traceback": "Traceback …",
    }
