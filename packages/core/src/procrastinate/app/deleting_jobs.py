"""The part of the job manager that deletes what ended long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from procrastinate.app.batches import Batches, run_batches, run_batches_async
from procrastinate.app.job_filters import age_us, ages_us, name_or_none, statuses
from procrastinate.drive import Flow, at
from procrastinate.errors import InvalidOption
from procrastinate.former.arguments import former_arguments
from procrastinate.gateway import Gateway
from procrastinate.model.job import Status
from procrastinate.model.partitions import Partitions
from procrastinate.storage import bulk

Age = timedelta | Mapping[str, Any]
Policy = Mapping[str, Age]

_STATUSES = 'write statuses=["succeeded", "failed"], for instance'
_older_than = former_arguments(
    gone={
        "nb_hours": "write older_than=timedelta(hours=72), for instance, and in a coroutine"
        " `await delete_old_jobs_async(...)`",
        "include_error": _STATUSES,
        "include_failed": _STATUSES,
        "include_cancelled": _STATUSES,
        "include_aborted": _STATUSES,
    }
)


class DeletingJobs:
    """Deleting jobs by age, in batches that never hold up the workers."""

    _gateway: Gateway

    @_older_than
    def delete_old_jobs(
        self,
        older_than: timedelta,
        *,
        statuses: Iterable[Status | str] = (Status.SUCCEEDED,),
        queue: str | None = None,
    ) -> int:
        """Delete jobs that ended with these statuses longer ago than that; return how many.

        ``older_than`` is counted from the end of the job, by the server's clock. Works in batches,
        each a transaction of its own, so that it never holds up the workers. Raises
        `InvalidOption` for a status that is not final.
        """
        return run_batches(self._gateway, self._delete(_same_age(older_than, statuses), queue))

    @_older_than
    async def delete_old_jobs_async(
        self,
        older_than: timedelta,
        *,
        statuses: Iterable[Status | str] = (Status.SUCCEEDED,),
        queue: str | None = None,
    ) -> int:
        """Delete jobs that ended long ago; see `delete_old_jobs`."""
        batches = self._delete(_same_age(older_than, statuses), queue)
        return await run_batches_async(self._gateway, batches)

    def apply_retention(
        self,
        policy: Policy,
        *,
        queue: str | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> int:
        """Delete the jobs that ended longer ago than a policy keeps those of their status.

        ``{"succeeded": timedelta(days=7), "failed": {"days": 90}}``: ages are timedeltas or dicts
        of their arguments, counted from the end of the job by the server's clock. Jobs of a status
        that is not named are kept. Returns how many were deleted. ``should_stop`` is asked before
        each batch. Works in batches as `delete_old_jobs` does.
        """
        return run_batches(self._gateway, self._delete(ages_us(policy), queue, should_stop))

    async def apply_retention_async(
        self,
        policy: Policy,
        *,
        queue: str | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> int:
        """Delete the jobs that a policy keeps no longer; see `apply_retention`."""
        batches = self._delete(ages_us(policy), queue, should_stop)
        return await run_batches_async(self._gateway, batches)

    def _delete(
        self,
        ages: Mapping[Status, int],
        queue: str | None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Callable[[Partitions], Batches[int]]:
        return partial(_until_stopped, ages, name_or_none("queue", queue), should_stop or _never)


def _until_stopped(
    ages: Mapping[Status, int],
    queue: str | None,
    should_stop: Callable[[], bool],
    partitions: Partitions,
) -> Batches[int]:
    deleted = 0
    for partition in partitions.values:
        after_id: int | None = 0
        while after_id is not None:
            if should_stop():
                return deleted
            batch: bulk.Deleted = yield partial(_batch, partition, ages, queue, after_id)
            deleted += batch.count
            after_id = batch.last_id
    return deleted


def _batch(
    partition: int, ages: Mapping[Status, int], queue: str | None, after_id: int
) -> Flow[bulk.Deleted]:
    return at(partition, bulk.delete_old(ages, queue=queue, after_id=after_id))


def _never() -> bool:
    return False


def _same_age(older_than: timedelta, chosen: Iterable[Status | str]) -> dict[Status, int]:
    age = age_us("older_than", older_than)
    ages = dict.fromkeys(statuses(chosen), age)
    if not all(status.is_final for status in ages):
        raise InvalidOption("only jobs that ended can be deleted by age, not todo or doing")
    return ages
