"""The rows of the in-memory tables, and values as PostgreSQL would accept, store and return them.

Rows are immutable, so that an older version of one can be kept while a transaction is open.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from procrastinate.connector import Query, Row
from procrastinate.errors import ConnectorException, database_error
from procrastinate.model import checks
from procrastinate.model.job import Status

T = TypeVar("T")

_CAST = re.compile(r"%\((\w+)\)s::(\w+)(\[\])?")
_INTEGER_LIMITS = {"integer": 2**31, "bigint": 2**63}
_NUMERIC_DIGITS = (131_072, 16_383)  # of jsonb's numbers: before and after the decimal point
ACTIVE = (Status.TODO, Status.DOING)
MAX_ERRORS = 20  # in a job's list of errors
WITH_TRACEBACK = 3  # of the last ones


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of procrastinate_jobs; ``args`` and each of ``errors`` are the text of a jsonb."""

    id: int
    queue_name: str
    task_name: str
    args: str
    deferred_at: datetime
    priority: int = 0
    attempts: int = 0
    crashes: int = 0
    status: Status = Status.TODO
    hold: str | None = None
    abort_requested: bool = False
    worker_id: int | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lock: str | None = None
    queueing_lock: str | None = None
    errors: tuple[str, ...] | None = None
    lease: int = 0
    unknown_since: datetime | None = None
    bounces: int | None = None
    first_started_at: datetime | None = None
    meta: str | None = None
    result: str | None = None
    result_error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A row of procrastinate_workers."""

    id: int
    name: str
    started_at: datetime
    last_heartbeat: datetime
    host: str | None = None
    concurrency: int | None = None
    task_names: list[str] | None = None
    alone: bool | None = None
    pid: int | None = None
    version: str | None = None
    queues: list[str] | None = None
    busy: int | None = None
    blocked_since: datetime | None = None
    trusted: bool | None = None


@dataclass(frozen=True, slots=True)
class PeriodicRow:
    """A row of procrastinate_periodic."""

    task_name: str
    periodic_id: str
    done_until: datetime
    seen_at: datetime
    last_tick: datetime | None = None
    job_id: int | None = None
    cron: str | None = None
    timezone: str | None = None
    queue_name: str | None = None


@dataclass(frozen=True, slots=True)
class PauseRow:
    """A row of procrastinate_queues."""

    queue_name: str
    paused_at: datetime
    paused_until: datetime | None
    paused_by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """A row of procrastinate_progress."""

    job_id: int
    lease: int
    millionths: int
    message: str | None
    data: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MinuteRow:
    """A row of procrastinate_minutes; ``run`` and ``waited`` are seconds."""

    begins_at: datetime
    seconds: int
    queue_name: str
    task_name: str
    counts: tuple[int, ...]  # succeeded, failed, cancelled, aborted, retried
    run: float
    waited: float
    run_buckets: tuple[int, ...]
    waited_buckets: tuple[int, ...]

    @property
    def key(self) -> tuple[datetime, int, str, str]:
        """The primary key, but for the partition."""
        return self.begins_at, self.seconds, self.queue_name, self.task_name


def job_columns(job: JobRow) -> Row:
    """Return what the SQL fragment of the same name selects."""
    others = (job.status.value, job.started_at, job.finished_at, job.worker_id)
    results = (job.result, job.result_error)
    first = job.first_started_at or job.started_at
    return (*claimed_columns(job), errors_column(job), *others, *results, job.hold, first)


def errors_column(job: JobRow) -> str | None:
    """Return the errors as the text of a jsonb."""
    return None if job.errors is None else f"[{', '.join(job.errors)}]"


def last_error(job: JobRow) -> tuple[str | None, str | None]:
    """Return the type and the message of a job's last error."""
    entry = json.loads(job.errors[-1]) if job.errors else None
    if not isinstance(entry, dict):
        return None, None
    return entry.get("type"), entry.get("message")


def job_moment(job: JobRow) -> datetime:
    """Return when a job ended, or started if it runs, or was deferred if it waits."""
    moments = {Status.TODO: None, Status.DOING: job.started_at}
    return moments.get(job.status, job.finished_at) or job.deferred_at


def claimed_columns(job: JobRow) -> Row:
    """Return what the SQL fragment of the same name selects."""
    return (
        job.id,
        job.queue_name,
        job.task_name,
        job.args,
        job.priority,
        job.lock,
        job.queueing_lock,
        job.attempts,
        job.deferred_at,
        job.scheduled_at,
        job.lease,
        job.crashes or None,
        job.meta,
    )


def check_job(job: JobRow) -> JobRow:
    """Return a job, or raise what the columns' types and the table's constraints raise."""
    for name in (job.queue_name, job.task_name):
        if name is None:
            raise _refused("a queue or task name is null", "23502")
        if not 1 <= len(name) <= checks.NAME_LENGTH:
            raise _violated("procrastinate_jobs_names_check")
    if not job.args.startswith("{"):
        raise _violated("procrastinate_jobs_args_check")
    if job.scheduled_at and not checks.EARLIEST <= job.scheduled_at <= checks.LATEST:
        raise _violated("procrastinate_jobs_scheduled_at_check")
    if any(len(lock or "") > checks.LOCK_LENGTH for lock in (job.lock, job.queueing_lock)):
        raise _violated("procrastinate_jobs_locks_check")
    return job


def _violated(constraint: str) -> ConnectorException:
    return database_error(
        f'new row violates check constraint "{constraint}"',
        sqlstate="23514",
        constraint=constraint,
    )


def _refused(message: str, sqlstate: str) -> ConnectorException:
    return database_error(message, sqlstate=sqlstate)


# --- parameters ----------------------------------------------------------------------------------


def parameters_of(query: Query) -> dict[str, Any]:
    """Return a named statement's parameters, converted to the types that its SQL casts them to."""
    return {
        name: _converted(query.params[name], kind, is_array)
        for name, (kind, is_array) in _casts(query.sql).items()
    }


@functools.cache
def _casts(text: str) -> Mapping[str, tuple[str, bool]]:
    return {match[1]: (match[2], match[3] is not None) for match in _CAST.finditer(text)}


def _converted(value: Any, kind: str, is_array: bool) -> Any:
    if value is None:
        return None
    if is_array:
        return [_converted(item, kind, False) for item in value]
    if kind == "timestamptz":
        return value.astimezone(UTC)
    if kind in _INTEGER_LIMITS:
        return _integer(value, kind)
    text = _text(value)
    return jsonb(text) if kind == "jsonb" else text


def _integer(value: Any, kind: str) -> int:
    number = int(value)
    limit = _INTEGER_LIMITS[kind]
    if not -limit <= number < limit:
        raise _refused(f"{number} is out of range for type {kind}", "22003")
    return number


def _text(value: Any) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise _refused("invalid byte sequence for encoding UTF8", "22021") from exc
    if "\0" in text:
        raise _refused("a text cannot hold the character NUL", "22021")
    return text


def status(value: str) -> Status:
    """Return the status of this name, or raise as a cast to the enum does."""
    try:
        return Status(value)
    except ValueError as exc:
        raise _refused(f"invalid input value for enum: {value!r}", "22P02") from exc


def timestamp(text: str) -> datetime:
    """Return the moment that an ISO 8601 text names, in UTC."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as exc:
        raise _refused(f"invalid input for timestamp: {text!r}", "22007") from exc


def interval(microseconds: int) -> timedelta:
    """Return a number of microseconds as a duration."""
    return timedelta(microseconds=microseconds)


# --- JSON ----------------------------------------------------------------------------------------


def jsonb(text: str) -> str:
    """Return JSON as jsonb gives it back: keys ordered, numbers exact and without exponents.

    So a float like 1e22 comes back as an integer, here as there.
    """
    return _as_jsonb(text, _jsonb_text)


def new_jobs_of(array: str) -> list[dict[str, Any]]:
    """Return the objects of a jsonb array of new jobs, their JSON as jsonb gives it back."""

    def new_jobs(value: Any) -> list[dict[str, Any]]:
        return [
            {
                name: _jsonb_text(found) if name in ("args", "meta") else _plain(found)
                for name, found in each.items()
            }
            for each in value
        ]

    return _as_jsonb(array, new_jobs)


def jsonb_texts(array: str) -> list[str]:
    """Return the elements of a jsonb array, as jsonb gives them back."""
    return _as_jsonb(array, lambda value: [_jsonb_text(each) for each in value])


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def _as_jsonb(text: str, use: Callable[[Any], T]) -> T:
    try:
        value = json.loads(
            text, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant
        )
        return use(value)
    except (ValueError, RecursionError) as exc:
        raise _refused(f"invalid input for type json: {exc}", "22P02") from exc


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _jsonb_text(value: Any) -> str:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        pairs = (f"{_jsonb_string(key)}: {_jsonb_text(value[key])}" for key in keys)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_jsonb_text, value))}]"
    if isinstance(value, Decimal):
        return _jsonb_number(value)
    return _jsonb_string(value) if isinstance(value, str) else json.dumps(value)


def _jsonb_number(value: Decimal) -> str:
    exponent = value.as_tuple().exponent
    before, after = _NUMERIC_DIGITS
    if value.adjusted() >= before or (isinstance(exponent, int) and exponent < -after):
        raise _refused("value overflows numeric format", "22003")
    return format(abs(value) if value == 0 else value, "f")


def _jsonb_string(value: str) -> str:
    if "\0" in value:
        raise _refused("\\u0000 cannot be converted to text", "22P05")
    value.encode()  # raises a ValueError for half a surrogate pair
    return json.dumps(value, ensure_ascii=False)


def errors_after(errors: Sequence[str] | None, *added: str) -> tuple[str, ...] | None:
    """Return a job's errors with these at the end, as JSON: see the fragment in shared.sql."""
    if not added:
        return None if errors is None else tuple(errors)
    whole = [*(errors or ()), *map(jsonb, added)]
    beyond = len(whole) - MAX_ERRORS
    listed: list[str] = []
    for place, text in enumerate(whole):
        if beyond > 0 and 0 < place <= beyond:
            continue
        entry = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        if isinstance(entry, dict) and 0 < place < len(whole) - WITH_TRACEBACK:
            entry.pop("retry_error", None)
            entry["traceback"] = ""
            if place == beyond + 1 and beyond > 0:
                entry["omitted"] = beyond + sum(map(_omitted, whole))
        listed.append(_jsonb_text(entry))
    return tuple(listed)


def _omitted(text: str) -> Decimal:
    entry = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    omitted = entry.get("omitted") if isinstance(entry, dict) else None
    return omitted if isinstance(omitted, Decimal) else Decimal()
