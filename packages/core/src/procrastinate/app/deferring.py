"""From a task and its options to jobs in the database.

Everything that can be wrong with a job is found here, before the database is asked: the
arguments against the function's signature, their JSON, the options, the time.

`JobDeferrer` makes each call a `NewJob` (`new_job`). It gives the flow that inserts the job
(`procrastinate.storage.defer`) to the app's gateway, which runs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypedDict, TypeVar

from procrastinate import json_codec
from procrastinate.app.calling import Calling
from procrastinate.app.statement import Statement
from procrastinate.connector import CallerConnection, Connector
from procrastinate.drive import Flow
from procrastinate.errors import InvalidArguments, InvalidOption
from procrastinate.former import HasFormerNames
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.job import NewJob
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.model.task import TaskDefinition
from procrastinate.model.text.printable import shown
from procrastinate.observing.deferring import Watched, is_watched
from procrastinate.storage import defer as flows

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

#: The arguments of a batch that are sent as one text have at most this number of bytes.
ARRAY_BYTES = 16 * 1024 * 1024

_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class JobOptions:
    """The options of jobs about to be deferred, checked."""

    task_name: str
    definition: TaskDefinition | None
    queue: str = "default"
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    partition_key: str | None = None
    task_kwargs: dict[str, Any] = field(default_factory=dict)
    schedule_at: datetime | None = None
    schedule_in: timedelta | None = None
    connection: CallerConnection | None = None

    @property
    def contradicts_itself(self) -> bool:
        """Whether a distributed database refuses it: its two locks belong to two partitions."""
        if self.partition_key is not None or self.lock is None or self.queueing_lock is None:
            return False
        partitions = Partitions(MANY)
        return partitions.of_key(self.lock) != partitions.of_key(self.queueing_lock)


class ConfigureOptions(TypedDict, total=False):
    """The options of `Task.configure`, for type checkers; all but ``task_kwargs``."""

    queue: str | None
    priority: int | None
    lock: str | None
    queueing_lock: str | None
    partition_key: str | None
    schedule_at: datetime | None
    schedule_in: timedelta | Mapping[str, Any] | None
    connection: CallerConnection | None


_UNSET: Any = object()


def options_of(definition: TaskDefinition) -> JobOptions:
    """Return the options that a task's jobs have by default."""
    return JobOptions(
        task_name=definition.name,
        definition=definition,
        queue=definition.queue,
        priority=definition.priority,
        lock=definition.lock,
        queueing_lock=definition.queueing_lock,
        partition_key=definition.partition_key,
    )


def configured(
    options: JobOptions,
    *,
    queue: str | None = None,
    priority: int | None = None,
    lock: str | None = _UNSET,
    queueing_lock: str | None = _UNSET,
    partition_key: str | None = _UNSET,
    task_kwargs: Mapping[str, Any] | None = None,
    schedule_at: datetime | None = None,
    schedule_in: timedelta | Mapping[str, Any] | None = None,
    connection: CallerConnection | None = None,
) -> JobOptions:
    """Return the options with some of them replaced; None (and absent) leaves a value.

    A ``lock``, ``queueing_lock`` or ``partition_key`` of None takes the task's own away.
    Raises `InvalidOption` or `InvalidTimestamp`, naming the option and the value.
    """
    if schedule_at is not None and schedule_in is not None:
        raise InvalidOption("schedule_at and schedule_in exclude each other; give one of them")
    changes: dict[str, Any] = {"connection": connection}
    if queue is not None:
        changes["queue"] = checks.check_name("queue", queue)
    if priority is not None:
        changes["priority"] = checks.check_priority(priority)
    if lock is not _UNSET:
        changes["lock"] = checks.check_lock("lock", lock)
    if queueing_lock is not _UNSET:
        changes["queueing_lock"] = checks.check_lock("queueing_lock", queueing_lock)
    if partition_key is not _UNSET:
        changes["partition_key"] = checks.check_lock("partition_key", partition_key)
    if task_kwargs is not None:
        changes["task_kwargs"] = {**options.task_kwargs, **_names_checked(task_kwargs)}
    if schedule_at is not None:
        changes["schedule_at"] = checks.check_aware("schedule_at", schedule_at)
        changes["schedule_in"] = None
    if schedule_in is not None:
        delta = dict(schedule_in) if isinstance(schedule_in, Mapping) else schedule_in
        changes["schedule_in"] = checks.check_delay("schedule_in", delta)
        changes["schedule_at"] = None
    return replace(options, **changes)


_TEXT = frozenset({str})


def _names_checked(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    if type(kwargs) is dict and _TEXT.issuperset(map(type, kwargs)):  # nearly always
        return kwargs
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise InvalidArguments(
            f"a task's arguments are a mapping of names to values, not {shown(kwargs)}"
        )
    return kwargs


def new_job(options: JobOptions, kwargs: Mapping[str, Any], connector: Connector) -> NewJob:
    """Return the job to insert for one call. Raises `InvalidArguments`."""
    return _job(options, _json_text(options.task_name, _arguments(options, kwargs), connector))


def _arguments(options: JobOptions, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {**options.task_kwargs, **_names_checked(kwargs)}
    if options.definition is not None:
        options.definition.check_arguments(arguments)
    return arguments


def _job(options: JobOptions, args: str) -> NewJob:
    return NewJob(
        task_name=options.task_name,
        queue=options.queue,
        priority=options.priority,
        lock=options.lock,
        queueing_lock=options.queueing_lock,
        partition_key=options.partition_key,
        args=args,
        scheduled_at=options.schedule_at,
        schedule_in_us=(
            None if options.schedule_in is None else checks.microseconds(options.schedule_in)
        ),
    )


def _json_text(task_name: str, arguments: dict[str, Any], connector: Connector) -> str:
    try:
        text = connector.json_dumps(arguments)
        size = len(text.encode())
    except Exception as exc:  # a json_dumps of the user's own may raise anything
        raise InvalidArguments(
            f"the argument {_culprit(arguments, connector)} of task {task_name} is not JSON: {exc}"
        ) from exc
    if "\\u0000" in text and _NUL_ESCAPE.search(text):
        raise InvalidArguments(
            f"the argument {_culprit(arguments, connector)} of task {task_name} contains a NUL"
            " character, which PostgreSQL cannot store"
        )
    if size > checks.ARGS_BYTES:
        raise InvalidArguments(
            f"the arguments of task {task_name} take {size} bytes of JSON, and {checks.ARGS_BYTES}"
            " is the limit"
        )
    return text


def _json_array(arguments: Sequence[dict[str, Any]], connector: Connector) -> str | None:
    """Return the arguments of several jobs as one text, for `defer_alike`.

    This takes a tenth of the time of one text after the other. Returns None if each job needs a
    text of its own: because the encoder is the user's, because the jobs are too many for one
    statement, or because one of them may have to be refused, by name.
    """
    if connector.json_dumps is not json_codec.dumps or len(arguments) > flows.ROWS_PER_STATEMENT:
        return None
    try:
        text = json_codec.dumps(arguments)
        size = len(text.encode())
    except Exception:
        return None
    return None if size > ARRAY_BYTES or "\\u0000" in text else text


def _culprit(arguments: dict[str, Any], connector: Connector) -> str:
    """Return the names of the arguments that cannot be stored, or of all if each one could."""
    return ", ".join(
        repr(name) for name, value in arguments.items() if not _storable(value, connector)
    ) or ", ".join(map(repr, arguments))


def _storable(value: Any, connector: Connector) -> bool:
    try:
        text = connector.json_dumps(value)
        text.encode()
    except Exception:
        return False
    return _NUL_ESCAPE.search(text) is None


class JobDeferrer(HasFormerNames, Calling[P, R]):
    """A task with its options: ``defer`` inserts jobs of it through one app's connector."""

    def __init__(self, options: JobOptions, gateway: Gateway) -> None:
        self.options = options
        self._gateway = gateway

    def defer(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Defer one job and return its id.

        The job is committed when this returns; with ``connection=`` it is part of the caller's
        transaction instead. Raises `InvalidArguments` before the database is asked, and
        `AlreadyEnqueued`.
        """
        job = self._job_of_call(args, kwargs)
        run, connection = self._gateway.run, self.options.connection
        if not is_watched(self._gateway.observers):
            return run(flows.defer_job(job), connection=connection)
        with self._watched([job]) as watched:
            job_id = run(flows.defer_job(job), connection=connection)
            watched.inserted([job_id])
            return job_id

    async def defer_async(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Defer one job and return its id; see `defer`."""
        job = self._job_of_call(args, kwargs)
        run, connection = self._gateway.run_async, self.options.connection
        if not is_watched(self._gateway.observers):
            return await run(flows.defer_job(job), connection=connection)
        with await self._watched_async([job]) as watched:
            job_id = await run(flows.defer_job(job), connection=connection)
            watched.inserted([job_id])
            return job_id

    def batch_defer(self, *task_kwargs: Mapping[str, Any]) -> list[int]:
        """Defer one job for each mapping of arguments, all or none; return the ids in their order.

        Raises as `defer` does.
        """
        run, connection = self._gateway.run, self.options.connection
        if not is_watched(self._gateway.observers):
            flow, transaction = self._batch(task_kwargs)
            return run(flow, connection=connection, transaction=transaction)
        jobs = self._jobs([_arguments(self.options, each) for each in task_kwargs])
        with self._watched(jobs) as watched:
            flow, transaction = self._batch_of(jobs)
            ids = run(flow, connection=connection, transaction=transaction)
            watched.inserted(ids)
            return ids

    async def batch_defer_async(self, *task_kwargs: Mapping[str, Any]) -> list[int]:
        """Defer one job for each mapping of arguments; see `batch_defer`."""
        run, connection = self._gateway.run_async, self.options.connection
        if not is_watched(self._gateway.observers):
            flow, transaction = self._batch(task_kwargs)
            return await run(flow, connection=connection, transaction=transaction)
        jobs = self._jobs([_arguments(self.options, each) for each in task_kwargs])
        with await self._watched_async(jobs) as watched:
            flow, transaction = self._batch_of(jobs)
            ids = await run(flow, connection=connection, transaction=transaction)
            watched.inserted(ids)
            return ids

    def statement(self, *args: P.args, **kwargs: P.kwargs) -> Statement:
        """Return the SQL that defers one job, for a driver that ``connection=`` does not take.

        Nothing is sent. Raises `InvalidArguments` as `defer` does, and `InvalidOption` if the
        options have a ``connection``.
        """
        if self.options.connection is not None:
            raise InvalidOption("statement() executes nothing: leave connection= out")
        job = self._job_of_call(args, kwargs)
        return Statement(self._gateway.statements(flows.request_for(job)))

    def _watched(self, jobs: Sequence[NewJob]) -> Watched:
        in_transaction = self._gateway.is_in_transaction(self.options.connection)
        return Watched(self._gateway.observers, jobs, in_transaction=in_transaction)

    async def _watched_async(self, jobs: Sequence[NewJob]) -> Watched:
        in_transaction = await self._gateway.is_in_transaction_async(self.options.connection)
        return Watched(self._gateway.observers, jobs, in_transaction=in_transaction)

    def _deferrer(self) -> JobDeferrer[P, R]:
        return self

    def _job_of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        options = self.options
        arguments = self._by_name(args, kwargs) if args else kwargs
        if options.task_kwargs:
            arguments = {**options.task_kwargs, **arguments}
        if options.definition is not None:
            options.definition.check_arguments(arguments)
        return _job(options, _json_text(options.task_name, arguments, self._gateway.connector))

    def _batch(self, task_kwargs: Sequence[Mapping[str, Any]]) -> tuple[Flow[list[int]], bool]:
        """Return the flow that inserts a batch, and whether it needs a transaction."""
        options, connector = self.options, self._gateway.connector
        arguments = [_arguments(options, kwargs) for kwargs in task_kwargs]
        if arguments and options.queueing_lock is None:
            array = _json_array(arguments, connector)
            if array is not None:
                return flows.defer_alike(_job(options, "{}"), array), False
        return self._batch_of(self._jobs(arguments))

    def _jobs(self, arguments: Sequence[dict[str, Any]]) -> list[NewJob]:
        options, connector = self.options, self._gateway.connector
        texts = [_json_text(options.task_name, each, connector) for each in arguments]
        return [_job(options, text) for text in texts]

    def _batch_of(self, jobs: Sequence[NewJob]) -> tuple[Flow[list[int]], bool]:
        if self.options.connection is None:
            return flows.defer_jobs(jobs), flows.takes_several_statements(jobs)
        return flows.defer_jobs_for_caller(jobs), False

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.options.definition is None:
            raise InvalidArguments(
                f"task {self.options.task_name!r} is not known here: give its arguments by name"
            )
        return self.options.definition.bound_arguments(args, kwargs)
