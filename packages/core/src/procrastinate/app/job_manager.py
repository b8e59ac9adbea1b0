"""Listing, cancelling and retrying jobs.

Each method is a pair: ``x`` for synchronous code, ``x_async`` for coroutines. Filters left at None
match everything, and a filter that matches nothing gives an empty list. ``connection`` runs the
operation inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from procrastinate.drive import Flow
from procrastinate.errors import InvalidArguments, InvalidOption, JobNotFound
from procrastinate.gateway import Gateway
from procrastinate.model import limits
from procrastinate.model.job import Job, Status
from procrastinate.storage import jobs as flows
from procrastinate.storage.jobs import ByHand, Counts, JobFilter

PAGE = 1_000  # jobs


class JobManager:
    """The jobs of one app's database.

    Filters left at None match everything, and one that matches nothing gives an empty list.
    ``connection=`` runs the operation inside the caller's transaction. Every method raises
    `InvalidOption` for a value that cannot be, `AppNotOpen`, and `ConnectorException` where the
    database fails.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    # Reading

    def get_job(self, id: int, *, connection: Any = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        return _found(id, self._gateway.run(self._get(id), connection=connection))

    async def get_job_async(self, id: int, *, connection: Any = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        flow = self._get(id)
        return _found(id, await self._gateway.run_async(flow, connection=connection))

    def get_job_status(self, id: int, *, connection: Any = None) -> Status:
        """Return one job's status. Raises `JobNotFound`."""
        return self.get_job(id, connection=connection).status

    async def get_job_status_async(self, id: int, *, connection: Any = None) -> Status:
        """Return one job's status. Raises `JobNotFound`."""
        return (await self.get_job_async(id, connection=connection)).status

    def list_jobs(
        self,
        *,
        id: int | Iterable[int] | None = None,
        queue: str | None = None,
        task: str | None = None,
        status: Status | str | Iterable[Status | str] | None = None,
        lock: str | None = None,
        queueing_lock: str | None = None,
        worker_id: int | None = None,
        after_id: int = 0,
        limit: int = PAGE,
        connection: Any = None,
    ) -> list[Job]:
        """Return up to ``limit`` jobs with ids above ``after_id``, in order of id.

        The next page starts after the last id of this one. Raises `InvalidArguments` where the
        connector's ``json_loads`` refuses the arguments of one of them.
        """
        which = _filter(id, queue, task, status, lock, queueing_lock, worker_id)
        return self._gateway.run(self._list(which, after_id, limit), connection=connection)

    async def list_jobs_async(
        self,
        *,
        id: int | Iterable[int] | None = None,
        queue: str | None = None,
        task: str | None = None,
        status: Status | str | Iterable[Status | str] | None = None,
        lock: str | None = None,
        queueing_lock: str | None = None,
        worker_id: int | None = None,
        after_id: int = 0,
        limit: int = PAGE,
        connection: Any = None,
    ) -> list[Job]:
        """Return a page of jobs; see `list_jobs`."""
        which = _filter(id, queue, task, status, lock, queueing_lock, worker_id)
        flow = self._list(which, after_id, limit)
        return await self._gateway.run_async(flow, connection=connection)

    def list_queues(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each queue's number of jobs, in all and by status, in order of name."""
        flow = self._counts("list_queues", queue, task, lock)
        return self._gateway.run(flow, connection=connection)

    async def list_queues_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each queue's number of jobs; see `list_queues`."""
        flow = self._counts("list_queues", queue, task, lock)
        return await self._gateway.run_async(flow, connection=connection)

    def list_tasks(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each task's number of jobs, in all and by status, in order of name."""
        flow = self._counts("list_tasks", queue, task, lock)
        return self._gateway.run(flow, connection=connection)

    async def list_tasks_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each task's number of jobs; see `list_tasks`."""
        flow = self._counts("list_tasks", queue, task, lock)
        return await self._gateway.run_async(flow, connection=connection)

    def list_locks(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each lock's number of jobs, in all and by status, in order of lock."""
        flow = self._counts("list_locks", queue, task, lock)
        return self._gateway.run(flow, connection=connection)

    async def list_locks_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> list[Counts]:
        """Return each lock's number of jobs; see `list_locks`."""
        flow = self._counts("list_locks", queue, task, lock)
        return await self._gateway.run_async(flow, connection=connection)

    def get_stalled_jobs(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        seconds_since_heartbeat: float = 30,
        connection: Any = None,
    ) -> list[Job]:
        """Return the running jobs whose worker has not been heard of for so many seconds.

        Workers recover such jobs by themselves; this shows those that none has recovered yet.
        """
        flow = self._stalled(queue, task, seconds_since_heartbeat)
        return self._gateway.run(flow, connection=connection)

    async def get_stalled_jobs_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        seconds_since_heartbeat: float = 30,
        connection: Any = None,
    ) -> list[Job]:
        """Return the running jobs whose worker is silent; see `get_stalled_jobs`."""
        flow = self._stalled(queue, task, seconds_since_heartbeat)
        return await self._gateway.run_async(flow, connection=connection)

    # Changing

    def cancel_job_by_id(
        self, id: int, abort: bool = False, delete_job: bool = False, *, connection: Any = None
    ) -> bool:
        """Cancel a waiting job; with ``abort``, ask a running one to end.

        ``delete_job`` removes the waiting job altogether. Returns whether there was anything to
        do: False for a job that is unknown, has ended, or runs (without ``abort``). A running
        job ends when its task obeys.
        """
        return bool(
            self._gateway.run(
                self._cancel([id], abort, delete_job), connection=connection, transaction=True
            )
        )

    async def cancel_job_by_id_async(
        self, id: int, abort: bool = False, delete_job: bool = False, *, connection: Any = None
    ) -> bool:
        """Cancel a waiting job; see `cancel_job_by_id`."""
        flow = self._cancel([id], abort, delete_job)
        return bool(await self._gateway.run_async(flow, connection=connection, transaction=True))

    def retry_job_by_id(
        self,
        id: int,
        *,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> bool:
        """Make a failed, cancelled, aborted or waiting job due at ``retry_at`` (aware), or now.

        ``priority``, ``queue`` and ``lock`` change it; None leaves them. Returns False for a job
        that is unknown, runs, or has succeeded. Raises `AlreadyEnqueued` when a job with the
        same queueing lock is waiting.
        """
        flow = self._retry([id], retry_at, priority, queue, lock)
        return bool(self._gateway.run(flow, connection=connection, transaction=True))

    async def retry_job_by_id_async(
        self,
        id: int,
        *,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
        connection: Any = None,
    ) -> bool:
        """Make a job due again; see `retry_job_by_id`."""
        flow = self._retry([id], retry_at, priority, queue, lock)
        return bool(await self._gateway.run_async(flow, connection=connection, transaction=True))

    def delete_old_jobs(
        self,
        *,
        older_than: timedelta,
        statuses: Iterable[Status | str] = (Status.SUCCEEDED,),
        queue: str | None = None,
    ) -> int:
        """Delete jobs that ended with these statuses longer ago than that; return how many.

        ``older_than`` is counted from the end of the job, by the server's clock. Works in batches,
        each a transaction of its own, so that it never holds up the workers. Raises
        `InvalidOption` for a status that is not final.
        """
        deleted = 0
        while True:
            batch = self._gateway.run(self._delete_old(older_than, statuses, queue))
            deleted += batch
            if batch < flows.DELETED_AT_ONCE:
                return deleted

    async def delete_old_jobs_async(
        self,
        *,
        older_than: timedelta,
        statuses: Iterable[Status | str] = (Status.SUCCEEDED,),
        queue: str | None = None,
    ) -> int:
        """Delete jobs that ended long ago; see `delete_old_jobs`."""
        deleted = 0
        while True:
            batch = await self._gateway.run_async(self._delete_old(older_than, statuses, queue))
            deleted += batch
            if batch < flows.DELETED_AT_ONCE:
                return deleted

    # The flows

    def _get(self, job_id: int) -> Flow[Job | None]:
        return flows.get_job(self._gateway.sql, _checked_id(job_id), self._loads)

    def _list(self, which: JobFilter, after_id: int, limit: int) -> Flow[list[Job]]:
        if not isinstance(limit, int) or not 1 <= limit <= 2**31 - 1:
            raise InvalidOption(f"limit must be a number of jobs from 1, not {limit!r}")
        return flows.list_jobs(
            self._gateway.sql,
            which,
            after_id=_checked_id(after_id, "after_id"),
            limit=limit,
            loads=self._loads,
        )

    def _counts(
        self,
        by: Literal["list_queues", "list_tasks", "list_locks"],
        queue: str | None,
        task: str | None,
        lock: str | None,
    ) -> Flow[list[Counts]]:
        return flows.list_counts(
            self._gateway.sql,
            by,
            queue=_name_or_none("queue", queue),
            task=_name_or_none("task", task),
            lock=limits.check_lock("lock", lock),
        )

    def _stalled(self, queue: str | None, task: str | None, seconds: float) -> Flow[list[Job]]:
        return flows.stalled_jobs(
            self._gateway.sql,
            timeout_us=limits.microseconds(
                limits.check_delay("seconds_since_heartbeat", {"seconds": seconds})
            ),
            queue=_name_or_none("queue", queue),
            task=_name_or_none("task", task),
            loads=self._loads,
        )

    def _cancel(self, ids: list[int], abort: bool, delete: bool) -> Flow[set[int]]:
        checked = [_checked_id(each) for each in ids]
        return flows.cancel_jobs(self._gateway.sql, checked, abort=abort, delete=delete)

    def _retry(
        self,
        ids: list[int],
        retry_at: datetime | None,
        priority: int | None,
        queue: str | None,
        lock: str | None,
    ) -> Flow[set[int]]:
        change = ByHand(
            retry_at=None if retry_at is None else limits.check_aware("retry_at", retry_at),
            priority=None if priority is None else limits.check_priority(priority),
            queue=_name_or_none("queue", queue),
            lock=limits.check_lock("lock", lock),
        )
        return flows.retry_by_hand(self._gateway.sql, [_checked_id(each) for each in ids], change)

    def _delete_old(
        self, older_than: timedelta, statuses: Iterable[Status | str], queue: str | None
    ) -> Flow[int]:
        chosen = _statuses(statuses)
        if not all(status.is_final for status in chosen):
            raise InvalidOption("only jobs that ended can be deleted by age, not todo or doing")
        age_us = limits.microseconds(limits.check_delay("older_than", older_than))
        return flows.delete_old_jobs(
            self._gateway.sql, chosen, age_us=age_us, queue=_name_or_none("queue", queue)
        )

    def _loads(self, text: str) -> Any:
        try:
            return self._gateway.connector.json_loads(text)
        except Exception as exc:  # a json_loads of the user's own may raise anything
            raise InvalidArguments(
                f"the arguments of a job cannot be decoded by json_loads: {exc}: {text[:80]}"
            ) from exc


def _found(job_id: int, job: Job | None) -> Job:
    if job is None:
        raise JobNotFound(f"there is no job {job_id}")
    return job


def _checked_id(value: Any, what: str = "a job id") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidOption(f"{what} must be a positive int, not {value!r}")
    return value


def _name_or_none(option: str, value: Any) -> str | None:
    return None if value is None else limits.check_name(option, value)


def _filter(
    id: int | Iterable[int] | None,
    queue: str | None,
    task: str | None,
    status: Status | str | Iterable[Status | str] | None,
    lock: str | None,
    queueing_lock: str | None,
    worker_id: int | None,
) -> JobFilter:
    ids = [id] if isinstance(id, int) else id
    return JobFilter(
        ids=None if ids is None else [_checked_id(each) for each in ids],
        queue=_name_or_none("queue", queue),
        task=_name_or_none("task", task),
        statuses=None if status is None else _statuses(status),
        lock=limits.check_lock("lock", lock),
        queueing_lock=limits.check_lock("queueing_lock", queueing_lock),
        worker_id=None if worker_id is None else _checked_id(worker_id, "worker_id"),
    )


def _statuses(status: Status | str | Iterable[Status | str]) -> list[Status]:
    given = [status] if isinstance(status, str) else list(status)
    try:
        return [Status(each) for each in given]
    except ValueError as exc:
        raise InvalidOption(f"status must be one of {', '.join(Status)}, not {status!r}") from exc
