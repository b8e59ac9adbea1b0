"""The half of the job manager that reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack

from procrastinate.app.job_filters import (
    JobFilters,
    checked_filter,
    checked_id,
    checked_limit,
    name_or_none,
)
from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.errors import InvalidArguments, JobNotFound
from procrastinate.former.arguments import former_arguments
from procrastinate.former.awaited import AwaitedList
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import Partitions
from procrastinate.model.text.failure import message_of
from procrastinate.storage import jobs as flows
from procrastinate.storage import progress
from procrastinate.storage.jobs import Counts, Page
from procrastinate.storage.places import found
from procrastinate.storage.readable import as_it_can
from procrastinate.storage.rows import Loads

PAGE = 1_000  # jobs

_by_id = former_arguments(job_id="id")
_without_status = former_arguments(
    gone={"status": "each count has them all, such as .todo and .failed"}
)
_stalled_arguments = former_arguments(
    task_name="task",
    gone={
        "nb_seconds": "a job that runs long is not stalled. Leave it out: those are meant whose"
        " worker is silent. To end long ones, give their task a timeout="
    },
)


class ReadingJobs:
    """Looking at jobs, one or a page of them, and counting them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def get_job(self, id: int, *, connection: CallerConnection | None = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        flow = self._get_whole(id)
        return _found(id, self._gateway.run_by_hand(flow, connection=connection))

    async def get_job_async(self, id: int, *, connection: CallerConnection | None = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        flow = self._get_whole(id)
        return _found(id, await self._gateway.run_by_hand_async(flow, connection=connection))

    @_by_id
    def get_job_status(self, id: int, *, connection: CallerConnection | None = None) -> Status:
        """Return one job's status. Raises `JobNotFound`."""
        flow = self._get(id, lambda text: {})
        return _found(id, self._gateway.run_by_hand(flow, connection=connection)).status

    @_by_id
    async def get_job_status_async(
        self, id: int, *, connection: CallerConnection | None = None
    ) -> Status:
        """Return one job's status. Raises `JobNotFound`."""
        flow = self._get(id, lambda text: {})
        job = await self._gateway.run_by_hand_async(flow, connection=connection)
        return _found(id, job).status

    def list_jobs(
        self,
        *,
        after_id: int = 0,
        before_id: int | None = None,
        newest_first: bool = False,
        limit: int = PAGE,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[Job]:
        """Return up to ``limit`` jobs that match the `JobFilters`, in order of id.

        The next page starts with ``after_id``, the last id of this one. With ``newest_first`` the
        order is the other way round, and the next page ends with ``before_id``. Arguments that the
        connector's ``json_loads`` refuses are shown as the JSON that they are. If Python cannot
        decode them at all, ``task_kwargs`` is an empty dict with the JSON as its ``text``.
        `get_job` raises `InvalidArguments` for them.
        """
        flow = self._list(filters, after_id, before_id, newest_first, limit)
        return self._gateway.run_by_hand(lambda _: flow, connection=connection)

    async def list_jobs_async(
        self,
        *,
        after_id: int = 0,
        before_id: int | None = None,
        newest_first: bool = False,
        limit: int = PAGE,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[Job]:
        """Return a page of jobs; see `list_jobs`."""
        flow = self._list(filters, after_id, before_id, newest_first, limit)
        return await self._gateway.run_by_hand_async(lambda _: flow, connection=connection)

    @_without_status
    def list_queues(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each queue's number of jobs, in all and by status, in order of name.

        Reads the whole table: 0.2 to 0.7 seconds for a million jobs.
        """
        flow = self._counts("list_queues", queue, task, lock)
        return self._gateway.run_by_hand(lambda _: flow, connection=connection)

    @_without_status
    async def list_queues_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each queue's number of jobs; see `list_queues`."""
        flow = self._counts("list_queues", queue, task, lock)
        return await self._gateway.run_by_hand_async(lambda _: flow, connection=connection)

    @_without_status
    def list_tasks(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each task's number of jobs, in all and by status, in order of name.

        Reads the whole table: 0.2 to 0.7 seconds for a million jobs.
        """
        flow = self._counts("list_tasks", queue, task, lock)
        return self._gateway.run_by_hand(lambda _: flow, connection=connection)

    @_without_status
    async def list_tasks_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each task's number of jobs; see `list_tasks`."""
        flow = self._counts("list_tasks", queue, task, lock)
        return await self._gateway.run_by_hand_async(lambda _: flow, connection=connection)

    @_without_status
    def list_locks(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each lock's number of jobs, in all and by status, in order of lock.

        Reads the whole table: 0.2 to 0.7 seconds for a million jobs.
        """
        flow = self._counts("list_locks", queue, task, lock)
        return self._gateway.run_by_hand(lambda _: flow, connection=connection)

    @_without_status
    async def list_locks_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        lock: str | None = None,
        connection: CallerConnection | None = None,
    ) -> list[Counts]:
        """Return each lock's number of jobs; see `list_locks`."""
        flow = self._counts("list_locks", queue, task, lock)
        return await self._gateway.run_by_hand_async(lambda _: flow, connection=connection)

    @_stalled_arguments
    def get_stalled_jobs(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        seconds_since_heartbeat: float = 30,
        connection: CallerConnection | None = None,
    ) -> list[Job]:
        """Return the running jobs of workers silent for ``seconds_since_heartbeat``, in seconds.

        Workers recover such jobs by themselves; this shows those that none has recovered yet.
        """
        flow = self._stalled(queue, task, seconds_since_heartbeat)
        return AwaitedList(self._gateway.run_by_hand(lambda _: flow, connection=connection))

    @_stalled_arguments
    async def get_stalled_jobs_async(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        seconds_since_heartbeat: float = 30,
        connection: CallerConnection | None = None,
    ) -> list[Job]:
        """Return the running jobs whose worker is silent; see `get_stalled_jobs`."""
        flow = self._stalled(queue, task, seconds_since_heartbeat)
        return await self._gateway.run_by_hand_async(lambda _: flow, connection=connection)

    # The flows

    def _get(self, job_id: int, loads: Loads) -> Callable[[Partitions], Flow[Job | None]]:
        flow = flows.get_job(checked_id(job_id), loads)
        return lambda partitions: found(job_id, partitions, flow)

    def _get_whole(self, job_id: int) -> Callable[[Partitions], Flow[Job | None]]:
        flow = flows.get_job(checked_id(job_id), self._loads)
        whole = progress.with_progress_of_one(flow, self._loads_as_it_can)
        return lambda partitions: found(job_id, partitions, whole)

    def _list(
        self,
        filters: JobFilters,
        after_id: int,
        before_id: int | None,
        newest_first: bool,
        limit: int,
    ) -> Flow[list[Job]]:
        page = Page(
            after_id=checked_id(after_id, "after_id"),
            before_id=None if before_id is None else checked_id(before_id, "before_id"),
            newest_first=checks.check_flag("newest_first", newest_first),
            limit=checked_limit(limit),
        )
        loads = self._loads_as_it_can
        return progress.with_progress(flows.list_page(checked_filter(filters), page, loads), loads)

    def _counts(
        self,
        by: Literal["list_queues", "list_tasks", "list_locks"],
        queue: str | None,
        task: str | None,
        lock: str | None,
    ) -> Flow[list[Counts]]:
        return flows.list_counts(
            by,
            queue=name_or_none("queue", queue),
            task=name_or_none("task", task),
            lock=checks.check_lock("lock", lock),
        )

    def _stalled(self, queue: str | None, task: str | None, seconds: float) -> Flow[list[Job]]:
        return flows.stalled_jobs(
            timeout_us=checks.microseconds(
                checks.check_delay("seconds_since_heartbeat", {"seconds": seconds})
            ),
            queue=name_or_none("queue", queue),
            task=name_or_none("task", task),
            loads=self._loads_as_it_can,
        )

    def _loads(self, text: str) -> Any:
        try:
            return self._gateway.connector.json_loads(text)
        except Exception as exc:  # a json_loads of the user's own may raise anything
            raise InvalidArguments(
                f"the arguments of a job cannot be decoded by json_loads: {message_of(exc)}"
            ) from exc

    @property
    def _loads_as_it_can(self) -> Loads:
        return as_it_can(self._gateway.connector.json_loads)


def _found(job_id: int, job: Job | None) -> Job:
    if job is None:
        raise JobNotFound(f"there is no job {job_id}")
    return job
