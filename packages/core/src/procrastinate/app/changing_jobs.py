"""The part of the job manager that cancels and retries jobs, singly or by filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias, Unpack

from procrastinate.app.batches import Batches, run_batches, run_batches_async
from procrastinate.app.job_filters import (
    JobFilters,
    checked_filter,
    checked_id,
    checked_limit,
    name_or_none,
)
from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow, at
from procrastinate.errors import InvalidOption
from procrastinate.former.arguments import former_arguments
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.partitions import Partitions
from procrastinate.observing.changing import Changes, What
from procrastinate.storage import bulk
from procrastinate.storage import jobs as flows
from procrastinate.storage.bulk import BATCH
from procrastinate.storage.jobs import ENDED_BADLY, ByHand, JobFilter
from procrastinate.storage.places import Change, changed, grouped, staying

_by_id = former_arguments(job_id="id")

#: What does a change by filter, for the partitions of a database.
MakeBatches: TypeAlias = Callable[[Partitions], Batches[list[int]]]


class ChangingJobs:
    """Cancelling and retrying jobs.

    Changes by filter work in batches of up to `BATCH` jobs, each a transaction of its own (with
    ``connection=`` all of them are part of the caller's). A batch passes over jobs that another
    session has in hand, and so holds up no other; it waits for those at the end, one by one.
    """

    _gateway: Gateway

    @_by_id
    def cancel_job_by_id(
        self,
        id: int,
        abort: bool = False,
        delete_job: bool = False,
        *,
        connection: CallerConnection | None = None,
    ) -> bool:
        """Cancel a waiting job; with ``abort``, ask a running one to end.

        ``delete_job`` removes the waiting job altogether. Returns whether there was anything to
        do: False for a job that is unknown, has ended, or runs (without ``abort``). A running
        job ends when its task obeys.
        """
        changes = self._changes(_undoing(delete_job), connection)
        make = self._cancel([id], abort, delete_job, changes)
        changed = self._gateway.run_by_hand(make, connection=connection, transaction=True)
        changes.made(changed)
        return bool(changed)

    @_by_id
    async def cancel_job_by_id_async(
        self,
        id: int,
        abort: bool = False,
        delete_job: bool = False,
        *,
        connection: CallerConnection | None = None,
    ) -> bool:
        """Cancel a waiting job; see `cancel_job_by_id`."""
        changes = await self._changes_async(_undoing(delete_job), connection)
        make = self._cancel([id], abort, delete_job, changes)
        changed = await self._gateway.run_by_hand_async(
            make, connection=connection, transaction=True
        )
        changes.made(changed)
        return bool(changed)

    @_by_id
    def retry_job_by_id(
        self,
        id: int,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
        *,
        connection: CallerConnection | None = None,
    ) -> bool:
        """Make a failed, cancelled, aborted or waiting job due at ``retry_at`` (aware), or now.

        A job that had ended gets as many attempts as a new one: its ``attempts`` start at 0 again.
        Its ``errors`` stay. Its ``scheduled_at`` says since when it is due.
        ``priority``, ``queue`` and ``lock`` change it; None leaves them. Returns False for a job
        that is unknown, runs, or has succeeded. Raises `AlreadyEnqueued` when a job with the
        same queueing lock is waiting.
        """
        make = self._retry(id, _by_hand(retry_at, priority, queue, lock), connection)
        changed = self._gateway.run_by_hand(make, connection=connection, transaction=True)
        self._changes("retried", connection).made(changed)
        return bool(changed)

    @_by_id
    async def retry_job_by_id_async(
        self,
        id: int,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
        *,
        connection: CallerConnection | None = None,
    ) -> bool:
        """Make a job due again; see `retry_job_by_id`."""
        make = self._retry(id, _by_hand(retry_at, priority, queue, lock), connection)
        changed = await self._gateway.run_by_hand_async(
            make, connection=connection, transaction=True
        )
        changes = await self._changes_async("retried", connection)
        changes.made(changed)
        return bool(changed)

    def cancel_jobs(
        self,
        *,
        abort: bool = False,
        delete_job: bool = False,
        limit: int | None = None,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[int]:
        """Cancel the waiting jobs that match the `JobFilters`; return the ids of those changed.

        With ``abort``, running jobs that match are asked to end. ``delete_job`` removes the waiting
        ones altogether. ``limit`` bounds how many are changed, lowest ids first. At least one
        filter is needed. Raises `InvalidOption` without one, and for a status that cannot be
        cancelled.
        """
        changes = self._changes(_undoing(delete_job), connection)
        batches = self._cancelling(filters, abort, delete_job, limit, changes)
        return run_batches(self._gateway, batches, connection=connection)

    async def cancel_jobs_async(
        self,
        *,
        abort: bool = False,
        delete_job: bool = False,
        limit: int | None = None,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[int]:
        """Cancel the waiting jobs that match; see `cancel_jobs`."""
        changes = await self._changes_async(_undoing(delete_job), connection)
        batches = self._cancelling(filters, abort, delete_job, limit, changes)
        return await run_batches_async(self._gateway, batches, connection=connection)

    def retry_jobs(
        self,
        *,
        retry_at: datetime | None = None,
        to_priority: int | None = None,
        to_queue: str | None = None,
        to_lock: str | None = None,
        limit: int | None = None,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[int]:
        """Make the jobs that match due at ``retry_at`` (aware), or now; return the ids of those.

        Which jobs, the `JobFilters` say; without ``status`` those that failed, were cancelled or
        aborted. ``to_priority``, ``to_queue`` and ``to_lock`` change them. ``limit`` bounds how
        many are changed, lowest ids first. A job stays as it is if one with its queueing lock
        waits already; of several with one queueing lock the first by (priority, id) of a batch is
        retried. At least one filter is needed. Raises `InvalidOption` without one, and for a
        status that cannot be retried. Otherwise as `retry_job_by_id`.
        """
        change = _by_hand(retry_at, to_priority, to_queue, to_lock, prefix="to_")
        changes = self._changes("retried", connection)
        batches = self._retrying(filters, change, limit, changes)
        return run_batches(self._gateway, batches, connection=connection)

    async def retry_jobs_async(
        self,
        *,
        retry_at: datetime | None = None,
        to_priority: int | None = None,
        to_queue: str | None = None,
        to_lock: str | None = None,
        limit: int | None = None,
        connection: CallerConnection | None = None,
        **filters: Unpack[JobFilters],
    ) -> list[int]:
        """Make the jobs that match due again; see `retry_jobs`."""
        change = _by_hand(retry_at, to_priority, to_queue, to_lock, prefix="to_")
        changes = await self._changes_async("retried", connection)
        batches = self._retrying(filters, change, limit, changes)
        return await run_batches_async(self._gateway, batches, connection=connection)

    def _changes(self, what: What, connection: Any) -> Changes:
        in_transaction = self._gateway.is_in_transaction(connection)
        return Changes(self._gateway.observers, what, in_transaction=in_transaction)

    async def _changes_async(self, what: What, connection: Any) -> Changes:
        observers, in_transaction = self._gateway.observers, False
        if observers.sees("on_changed"):  # to ask takes a switch to a thread
            in_transaction = await self._gateway.is_in_transaction_async(connection)
        return Changes(observers, what, in_transaction=in_transaction)

    # The flows

    def _cancel(
        self, ids: list[int], abort: bool, delete: bool, changes: Changes
    ) -> Callable[[Partitions], Flow[set[int]]]:
        change = partial(
            flows.cancel_jobs,
            abort=checks.check_flag("abort", abort),
            delete=checks.check_flag("delete_job", delete),
            noting=changes.asked,
        )
        return partial(changed, [checked_id(each) for each in ids], change=change)

    def _retry(
        self, id: int, by_hand: ByHand, connection: Any
    ) -> Callable[[Partitions], Flow[set[int]]]:
        retry = flows.retry_by_hand if connection is None else flows.retry_by_hand_for_caller
        change = partial(retry, change=by_hand)
        return partial(changed, [checked_id(id)], change=change, lock=by_hand.lock)

    def _cancelling(
        self,
        filters: JobFilters,
        abort: bool,
        delete: bool,
        limit: int | None,
        changes: Changes,
    ) -> MakeBatches:
        checks.check_flag("abort", abort)
        checks.check_flag("delete_job", delete)
        possible = (Status.TODO, Status.DOING) if abort else (Status.TODO,)
        which = _chosen(filters, possible, possible, "cancelled" + " or aborted" * abort)
        change = partial(flows.cancel_jobs, abort=abort, delete=delete, noting=changes.asked)
        return self._changing(which, change, None, limit, changes)

    def _retrying(
        self, filters: JobFilters, by_hand: ByHand, limit: int | None, changes: Changes
    ) -> MakeBatches:
        possible = (Status.TODO, *ENDED_BADLY)
        which = _chosen(filters, ENDED_BADLY, possible, "retried")
        change = partial(flows.retry_unless_twin_waits, change=by_hand)
        return self._changing(which, change, by_hand.lock, limit, changes)

    def _changing(
        self,
        which: JobFilter,
        change: Change,
        lock: str | None,
        limit: int | None,
        changes: Changes,
    ) -> MakeBatches:
        room = None if limit is None else checked_limit(limit)
        return partial(_in_batches, which, change, lock, room, changes)


def _undoing(delete: bool) -> What:
    return "deleted" if delete else "cancelled"


def _in_batches(
    which: JobFilter,
    change: Change,
    lock: str | None,
    limit: int | None,
    changes: Changes,
    partitions: Partitions,
) -> Batches[list[int]]:
    """First all jobs that no other session has in hand, then the others, waiting for each."""
    done = set[int]()
    busy: list[tuple[int, int]] = []  # with their partitions

    def room() -> int:
        return BATCH if limit is None else min(BATCH, limit - len(done))

    for partition, part in (yield from _parts(which, partitions)):
        here = staying(partition, change, lock, partitions)
        after_id: int | None = 0
        while after_id is not None and room():
            batch: bulk.Batch = yield partial(
                _at, partition, bulk.change_batch, part, here, after_id=after_id, limit=room()
            )
            done |= batch.changed
            changes.made(batch.changed)
            busy += [(partition, job_id) for job_id in batch.busy]
            after_id = batch.last_id
    for partition, job_id in busy:
        if room():
            one = replace(which, ids=[job_id])
            here = staying(partition, change, lock, partitions)
            batch = yield partial(_at, partition, bulk.change_when_free, one, here)
            done |= batch.changed
            changes.made(batch.changed)
    return sorted(done)


def _parts(which: JobFilter, partitions: Partitions) -> Batches[list[tuple[int, JobFilter]]]:
    """Return the filter for each partition in which there may be jobs, split if it is long."""
    if which.ids is None or not partitions.are_many:
        return [(each, part) for each in partitions.values for part in bulk.parts(which)]
    places = yield partial(grouped, which.ids, partitions)
    return [
        (partition, part)
        for partition, ids in places.items()
        for part in bulk.parts(replace(which, ids=ids))
    ]


def _at(
    partition: int, make: Callable[..., Flow[bulk.Batch]], *args: Any, **options: Any
) -> Flow[bulk.Batch]:
    return at(partition, make(*args, **options))


def _chosen(
    filters: JobFilters, default: Sequence[Status], possible: Sequence[Status], what: str
) -> JobFilter:
    """Return the filter of a change, which needs one, and statuses that the change starts from."""
    which = checked_filter(filters)
    if which == JobFilter():
        raise InvalidOption(
            "a change by filter needs at least one filter, or it would be for all jobs: give a"
            " status, a queue, ..."
        )
    if which.statuses is None:
        return replace(which, statuses=default)
    for status in which.statuses:
        if status not in possible:
            raise InvalidOption(
                f"status {status} cannot be {what}, only {', '.join(possible)}"
                + (": running jobs end with abort=True" if status is Status.DOING else "")
            )
    return which


def _by_hand(
    retry_at: datetime | None,
    priority: int | None,
    queue: str | None,
    lock: str | None,
    *,
    prefix: str = "",
) -> ByHand:
    return ByHand(
        retry_at=None if retry_at is None else checks.check_aware("retry_at", retry_at),
        priority=None if priority is None else checks.check_priority(priority),
        queue=name_or_none(f"{prefix}queue", queue),
        lock=checks.check_lock(f"{prefix}lock", lock),
    )
