"""Flows that insert jobs."""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate.connector import Value
from procrastinate.drive import Flow, Request
from procrastinate.errors import AlreadyEnqueued, InvalidArguments, InvalidData, UniqueViolation
from procrastinate.model.job import NewJob
from procrastinate.storage.savepoints import undoable

#: Jobs in one INSERT at the most: above it a batch is sent in several statements.
ROWS_PER_STATEMENT = 5_000


def defer_job(job: NewJob) -> Flow[int]:
    """Insert one job and return its id. Raises `AlreadyEnqueued`; the transaction stays usable."""
    try:
        rows = yield Request("defer_job", queueing_lock=job.queueing_lock, **_columns(job))
    except InvalidData as exc:
        raise _unacceptable(exc, [job]) from exc
    job_id = rows[0][0]
    if job_id is None:
        raise _already_enqueued(job.queueing_lock)
    return int(job_id)


def defer_alike(jobs: NewJob) -> Flow[list[int]]:
    """Insert jobs that differ in their arguments alone, and return their ids in the order given.

    ``args`` is the JSON array of their arguments; a queueing lock is not for several.
    """
    try:
        rows = yield Request("defer_alike", **_columns(jobs))
    except InvalidData as exc:
        raise _unacceptable(exc, [jobs]) from exc
    return sorted(int(row[0]) for row in rows)  # they were drawn in the order given


def _columns(job: NewJob) -> dict[str, Value]:
    """All but the queueing lock."""
    return {
        "queue_name": job.queue,
        "task_name": job.task_name,
        "priority": job.priority,
        "lock": job.lock,
        "args": job.args,
        "scheduled_at": job.scheduled_at,
        "schedule_in_us": job.schedule_in_us,
    }


def defer_jobs(jobs: Sequence[NewJob]) -> Flow[list[int]]:
    """Insert jobs, all or none, and return their ids in the order given.

    Needs a transaction where it takes more than `ROWS_PER_STATEMENT` jobs.
    """
    if not jobs:
        return []
    if len(jobs) <= ROWS_PER_STATEMENT:
        return (yield from _defer_some(jobs, [None] * len(jobs)))
    rows = yield Request("draw_job_ids", count=len(jobs))
    ids = sorted(int(row[0]) for row in rows)
    # In the order of their queueing locks over all statements, as within each.
    numbered = sorted(zip(jobs, ids, strict=True), key=_queueing_lock_first)
    for start in range(0, len(numbered), ROWS_PER_STATEMENT):
        some = numbered[start : start + ROWS_PER_STATEMENT]
        yield from _defer_some([job for job, _ in some], [job_id for _, job_id in some])
    return ids


def defer_jobs_for_caller(jobs: Sequence[NewJob]) -> Flow[list[int]]:
    """Insert jobs, all or none, in the caller's transaction; return their ids in the order given.

    What takes several statements has a savepoint around it: the caller's transaction lives on
    after `AlreadyEnqueued`, and must not keep what the statements before the clash inserted. Where
    the caller has no transaction (autocommit), one statement of any size is all or none as well.
    """
    if len(jobs) <= ROWS_PER_STATEMENT:
        return (yield from defer_jobs(jobs))
    return (
        yield from undoable(
            lambda: defer_jobs(jobs),
            autocommit=lambda: _defer_some(jobs, [None] * len(jobs)),
        )
    )


def _queueing_lock_first(numbered: tuple[NewJob, int]) -> tuple[str, int]:
    job, job_id = numbered
    return (job.queueing_lock or "", job_id)


def _defer_some(jobs: Sequence[NewJob], ids: Sequence[int | None]) -> Flow[list[int]]:
    params: dict[str, Value] = {
        "queue_names": [job.queue for job in jobs],
        "task_names": [job.task_name for job in jobs],
        "priorities": [job.priority for job in jobs],
        "locks": [job.lock for job in jobs],
        "queueing_locks": [job.queueing_lock for job in jobs],
        "args": [job.args for job in jobs],
        "scheduled_ats": [
            None if job.scheduled_at is None else job.scheduled_at.isoformat() for job in jobs
        ],
        "schedule_in_us": [job.schedule_in_us for job in jobs],
        "ids": list(ids),
    }
    try:
        rows = yield Request("defer_jobs", **params)
    except InvalidData as exc:
        raise _unacceptable(exc, jobs) from exc
    except UniqueViolation as exc:
        # A twin that was committed while this statement ran.
        if exc.constraint != "procrastinate_jobs_queueing_lock_key":
            raise
        raise _already_enqueued(None) from exc
    if rows[0][0] is None:
        raise _already_enqueued(rows[0][1])
    return sorted(int(row[0]) for row in rows)  # they were drawn in the order given


def _already_enqueued(queueing_lock: str | None) -> AlreadyEnqueued:
    which = "" if queueing_lock is None else f" {queueing_lock!r}"
    return AlreadyEnqueued(
        f"a job with the queueing lock{which} is waiting already; nothing was deferred"
    )


def _unacceptable(exc: InvalidData, jobs: Sequence[NewJob]) -> InvalidArguments:
    names = ", ".join(sorted({job.task_name for job in jobs}))
    return InvalidArguments(f"the database refused the arguments of {names}: {exc}")
