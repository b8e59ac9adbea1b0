"""Flows that insert jobs. `procrastinate.drive` says what a flow is, and runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from procrastinate import json_codec
from procrastinate.connector import Rows, Value
from procrastinate.drive import Flow, Request
from procrastinate.errors import (
    AlreadyEnqueued,
    ConnectorException,
    InvalidArguments,
    InvalidData,
    InvalidOption,
    UniqueViolation,
)
from procrastinate.model.job import NewJob
from procrastinate.storage.savepoints import undoable

#: A batch of more jobs is sent in several statements.
ROWS_PER_STATEMENT = 5_000
#: The SQLSTATE of storage/functions.distributed.sql if a job's locks belong to two partitions.
CONTRADICTION = "PQS02"
#: At most one waiting job has a queueing lock.
QUEUEING_LOCK_KEY = "procrastinate_jobs_queueing_lock_key"
PRIMARY_KEY = "procrastinate_jobs_pkey"
#: On a distributed database: a new job is in the partition that its id says.
PARTITION_CHECK = "procrastinate_jobs_partition_check"
TEXT_PER_STATEMENT = 64 * 1024 * 1024  # characters of arguments: a jsonb may have 256 MiB


def defer_job(job: NewJob) -> Flow[int]:
    """Insert one job and return its id. Raises `AlreadyEnqueued`; the transaction stays usable."""
    request = request_for(job)
    try:
        rows = yield request
    except ConnectorException as exc:
        rows = yield from _resend(request, exc, [job])
    job_id = rows[0][0]
    if job_id is None:
        raise _already_enqueued(job.queueing_lock)
    return int(job_id)


def request_for(job: NewJob) -> Request:
    """Return the request that inserts one job: its one row has the id, or null for a twin."""
    params: dict[str, Value] = {
        "queue_name": job.queue,
        "task_name": job.task_name,
        "priority": job.priority,
        "lock": job.lock,
        "queueing_lock": job.queueing_lock,
        "args": job.args,
        "scheduled_at": job.scheduled_at,
        "meta": None if job.meta is None else _meta_text(job),
    }
    if job.partition_key is not None:
        request = Request("defer_job_with_key")
        params |= {"schedule_in_us": job.schedule_in_us, "partition_key": job.partition_key}
    elif job.schedule_in_us is not None:
        request = Request("defer_job_in")
        params["schedule_in_us"] = job.schedule_in_us
    else:
        request = Request("defer_job")
    request.params = params
    return request


def defer_alike(alike: NewJob, all_args: str) -> Flow[list[int]]:
    """Insert jobs that differ in their arguments alone, and return their ids in the order given.

    ``all_args`` is a JSON array with an object for each of them. They have no queueing lock,
    because only one waiting job may have it.
    """
    common = _common(_all_but_arguments(alike, _meta_text(alike)))
    request = Request("defer_alike", all_args=all_args, common=common)
    try:
        rows = yield request
    except ConnectorException as exc:
        rows = yield from _resend(request, exc, [alike])
    return sorted(_ids(rows[0][0]))  # they were drawn in the order given


def _ids(array: str | None) -> list[int]:
    return [int(each) for each in array[1:-1].split(",")] if array is not None else []


def _meta_text(job: NewJob) -> str | None:
    return None if job.meta is None else json_codec.dumps(job.meta)


def takes_several_statements(jobs: Sequence[NewJob]) -> bool:
    """Whether a batch is sent in several statements, so that it needs a transaction.

    Jobs with queueing locks go together: in the order of these in all of the batch, while their ids
    are in the order given.
    """
    return (
        len(jobs) > ROWS_PER_STATEMENT or sum(len(job.args) for job in jobs) > TEXT_PER_STATEMENT
    ) and all(job.queueing_lock is None for job in jobs)


def defer_jobs(jobs: Sequence[NewJob]) -> Flow[list[int]]:
    """Insert jobs, all or none, and return their ids in the order given.

    Needs a transaction if it `takes_several_statements`.
    """
    if not jobs:
        return []
    if not takes_several_statements(jobs):
        return (yield from _defer_some(jobs))
    ids: list[int] = []
    for some in _chunks(jobs):
        ids += yield from _defer_some(some)
    return ids


def defer_jobs_for_caller(jobs: Sequence[NewJob]) -> Flow[list[int]]:
    """Insert jobs, all or none, in the caller's transaction; return their ids in the order given.

    A batch of several statements has a savepoint around it: the caller's transaction may live on
    after `InvalidArguments`, and must not keep what earlier statements inserted. If the caller has
    no transaction (autocommit), all goes in one statement of any size: all or none as well.
    """
    if not takes_several_statements(jobs):
        return (yield from defer_jobs(jobs))
    return (yield from undoable(lambda: defer_jobs(jobs), autocommit=lambda: _defer_some(jobs)))


def _chunks(jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
    some: list[NewJob] = []
    size = 0
    for job in jobs:
        size += len(job.args)
        if some and (len(some) == ROWS_PER_STATEMENT or size > TEXT_PER_STATEMENT):
            yield some
            some, size = [], len(job.args)
        some.append(job)
    yield some


def _defer_some(jobs: Sequence[NewJob]) -> Flow[list[int]]:
    kinds = list(map(_all_but_arguments, jobs, _meta_texts(jobs)))
    if jobs[0].queueing_lock is None and kinds.count(kinds[0]) == len(kinds):
        return (yield from defer_alike(jobs[0], f"[{','.join(job.args for job in jobs)}]"))
    # What follows the arguments is mostly the same.
    tails = {kind: _common(kind)[1:] for kind in set(kinds)}
    texts = [f'{{"args":{job.args},{tails[kind]}' for job, kind in zip(jobs, kinds, strict=True)]
    return (yield from _insert(f"[{','.join(texts)}]", jobs))


def _meta_texts(jobs: Sequence[NewJob]) -> list[str | None]:
    """Return the JSON of the ``meta`` of each. Most often all have the same object."""
    different = {id(job.meta): job for job in jobs}
    texts = {key: _meta_text(job) for key, job in different.items()}
    return [texts[id(job.meta)] for job in jobs]


def _all_but_arguments(job: NewJob, meta: str | None) -> tuple[Value, ...]:
    at = None if job.scheduled_at is None else job.scheduled_at.isoformat()
    return (
        *(job.task_name, job.queue, job.priority, job.lock, job.queueing_lock),
        *(at, job.schedule_in_us, job.partition_key, meta),
    )


def _common(kind: tuple[Value, ...]) -> str:
    """All but the arguments as JSON, with the names that the functions in SQL know."""
    *columns, meta = zip(_COMMON, kind, strict=True)
    text = json_codec.dumps({name: value for name, value in columns if value is not None})
    return text if meta[1] is None else f'{text[:-1]},"meta":{meta[1]}}}'


_COMMON = (
    *("task_name", "queue_name", "priority", "lock", "queueing_lock"),
    *("scheduled_at", "schedule_in_us", "partition_key", "meta"),
)


def _insert(array: str, jobs: Sequence[NewJob]) -> Flow[list[int]]:
    request = Request("defer_jobs", jobs=array, common="{}")
    try:
        rows = yield request
    except ConnectorException as exc:
        rows = yield from _resend(request, exc, jobs)
    if rows and rows[0][0] is None:
        raise _already_enqueued(rows[0][1])
    return sorted(int(row[0]) for row in rows)  # they were drawn in the order given


def _already_enqueued(queueing_lock: str | None) -> AlreadyEnqueued:
    which = "" if queueing_lock is None else f" {queueing_lock!r}"
    return AlreadyEnqueued(
        f"a job with the queueing lock{which} is waiting already; nothing was deferred"
    )


def _resend(request: Request, exc: ConnectorException, jobs: Sequence[NewJob]) -> Flow[Rows]:
    """Send a request again if `schema --distribute` held it up; else raise what the error means.

    The function in the database had begun when there was one partition. It has been replaced since.
    """
    if exc.constraint != PARTITION_CHECK:
        _raise_meaning(exc, jobs)
    try:
        return (yield request)
    except ConnectorException:  # the caller's transaction has failed with the first one
        _raise_meaning(exc, jobs)


def _raise_meaning(exc: ConnectorException, jobs: Sequence[NewJob]) -> NoReturn:
    """Raise what an error says of these jobs; the error itself if it says nothing of them."""
    if isinstance(exc, UniqueViolation) and exc.constraint == QUEUEING_LOCK_KEY:
        # A twin that was committed while the statement ran.
        queueing_locks = {job.queueing_lock for job in jobs if job.queueing_lock is not None}
        which = queueing_locks.pop() if len(queueing_locks) == 1 else None
        raise _already_enqueued(which) from exc
    if isinstance(exc, UniqueViolation) and exc.constraint == PRIMARY_KEY:
        raise UniqueViolation(
            "the database drew the id of another job for a new one: `procrastinate schema --check`"
            " says what to do. Nothing was deferred",
            sqlstate=exc.sqlstate,
            constraint=exc.constraint,
        ) from exc
    if exc.sqlstate == CONTRADICTION:
        raise InvalidOption(f"{exc}: give all jobs that share them the same partition_key") from exc
    if isinstance(exc, InvalidData):
        names = ", ".join(sorted({job.task_name for job in jobs}))
        suspects = " or ".join(("the arguments", *_odd_texts(jobs)))
        raise InvalidArguments(f"the database refused {suspects} of {names}: {exc}") from exc
    raise exc


def _odd_texts(jobs: Sequence[NewJob]) -> list[str]:
    """Return which texts beside the arguments a database in another encoding may refuse."""
    named = (
        ("the name", [job.task_name for job in jobs]),
        ("the queue", [job.queue for job in jobs]),
        ("the lock", [job.lock for job in jobs]),
        ("the queueing lock", [job.queueing_lock for job in jobs]),
        ("the partition key", [job.partition_key for job in jobs]),
    )
    return [
        words for words, texts in named if not all(text is None or text.isascii() for text in texts)
    ]
