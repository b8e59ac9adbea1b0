"""The part of the job manager that searches, counts, groups and explains, with bounded effort."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Unpack

from procrastinate.app.job_filters import (
    JobFilters,
    checked_filter,
    checked_id,
    checked_limit,
    name_or_none,
)
from procrastinate.app.reading_jobs import ReadingJobs
from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.search import Count, JobPage
from procrastinate.model.monitoring.why import WaitReason
from procrastinate.model.partitions import Partitions
from procrastinate.storage import failures, progress, search, why
from procrastinate.storage.jobs import JobFilter
from procrastinate.storage.rows import Loads
from procrastinate.storage.search import BUDGET

PAGE = 50  # jobs
FAILED = 5_000  # failed jobs that are grouped: to read an error takes ten times a row's time
MOST = 10_000  # jobs on a page, at most


class SearchingJobs(ReadingJobs):
    """Searching jobs without reading the whole table, however large it is."""

    def search_jobs(
        self,
        *,
        cursor: str | None = None,
        limit: int = PAGE,
        budget: int = BUDGET,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> JobPage:
        """Return a page of up to ``limit`` jobs that match the `JobFilters`.

        What has ended comes with the newest first, by id. If a status or state is asked for in
        which jobs run or wait, these come before, in the order in which they began or will begin:
        ready ones and those behind locks are in order of their queues or locks. Without one, all
        jobs come, the newest first.

        It looks at no more than ``budget`` jobs. If that is not enough for a page,
        ``is_complete`` is False, and the page has what was found. The next page begins behind it:
        give its ``cursor`` with the same filters. Raises `InvalidOption` for any other cursor.
        """
        make = self._search(filters, cursor, limit, budget)
        return self._gateway.run_by_hand(make, connection=connection)

    async def search_jobs_async(
        self,
        *,
        cursor: str | None = None,
        limit: int = PAGE,
        budget: int = BUDGET,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> JobPage:
        """Return a page of jobs; see `search_jobs`."""
        make = self._search(filters, cursor, limit, budget)
        return await self._gateway.run_by_hand_async(make, connection=connection)

    def count_jobs(
        self,
        *,
        budget: int = BUDGET,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> Count:
        """Return how many jobs match the `JobFilters`; ``budget`` is how many are read at most.

        If the count is not complete there are at least as many.
        """
        make = _count(filters, budget)
        return self._gateway.run_by_hand(make, connection=connection)

    async def count_jobs_async(
        self,
        *,
        budget: int = BUDGET,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> Count:
        """Return how many jobs match; see `count_jobs`."""
        make = _count(filters, budget)
        return await self._gateway.run_by_hand_async(make, connection=connection)

    def why_waiting(
        self, id: int, *, connection: CallerConnection | None = None
    ) -> list[WaitReason]:
        """Return why a job waits: what has to end first comes first. Raises `JobNotFound`.

        A job that runs or has ended gets a reason that says so; one that waits for nothing but its
        turn gets one that says how many come before it. Workers that were not heard of for 30
        seconds count as dead.
        """
        return self._gateway.run_by_hand(_why(id), connection=connection)

    async def why_waiting_async(
        self, id: int, *, connection: CallerConnection | None = None
    ) -> list[WaitReason]:
        """Return why a job waits; see `why_waiting`."""
        return await self._gateway.run_by_hand_async(_why(id), connection=connection)

    def list_failures(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        queue: str | None = None,
        task: str | None = None,
        budget: int = FAILED,
        connection: CallerConnection | None = None,
    ) -> list[FailureGroup]:
        """Return the jobs that failed in groups by task, error type and text, the latest first.

        ``since`` and ``until`` (aware) are about when they failed. It looks at the newest
        ``budget`` failed jobs; if there are more, the counts are not complete.
        """
        make = _failures(since, until, queue, task, budget)
        return self._gateway.run_by_hand(make, connection=connection)

    async def list_failures_async(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        queue: str | None = None,
        task: str | None = None,
        budget: int = FAILED,
        connection: CallerConnection | None = None,
    ) -> list[FailureGroup]:
        """Return the jobs that failed in groups; see `list_failures`."""
        make = _failures(since, until, queue, task, budget)
        return await self._gateway.run_by_hand_async(make, connection=connection)

    def _search(
        self, filters: JobFilters, cursor: str | None, limit: int, budget: int
    ) -> Callable[[Partitions], Flow[JobPage]]:
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidOption(f"cursor must be a str, not {type(cursor).__name__}")
        return partial(
            _page,
            checked_filter(filters),
            cursor,
            checks.check_int("limit", limit, 1, MOST),
            checked_limit(budget),
            self._loads_as_it_can,
        )


def _page(
    which: JobFilter,
    cursor: str | None,
    limit: int,
    budget: int,
    loads: Loads,
    partitions: Partitions,
) -> Flow[JobPage]:
    page = yield from search.search_jobs(
        which, cursor, limit=limit, budget=budget, partitions=partitions, loads=loads
    )
    yield from progress.read(page.jobs, loads)
    return page


def _count(filters: JobFilters, budget: int) -> Callable[[Partitions], Flow[Count]]:
    which, most = checked_filter(filters), checked_limit(budget)
    return lambda partitions: search.count_jobs(which, budget=most, partitions=partitions)


def _why(job_id: int) -> Callable[[Partitions], Flow[list[WaitReason]]]:
    return partial(why.why_waiting, checked_id(job_id))


def _failures(
    since: datetime | None,
    until: datetime | None,
    queue: str | None,
    task: str | None,
    budget: int,
) -> Callable[[Partitions], Flow[list[FailureGroup]]]:
    which = checked_filter(
        {"since": since, "until": until, "status": Status.FAILED}
        | {"queue": name_or_none("queue", queue), "task": name_or_none("task", task)}
    )
    most = checked_limit(budget)
    return lambda partitions: failures.list_failures(which, budget=most, partitions=partitions)
