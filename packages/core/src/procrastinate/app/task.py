"""A task in the hands of its users: still the function, and the way to defer jobs of it."""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from procrastinate.app.calling import Calling, check_keeps_results
from procrastinate.app.deferring import (
    _UNSET,
    ConfigureOptions,
    JobDeferrer,
    configured,
    options_of,
)
from procrastinate.app.waiting import Timeout, Wait, until_ended, until_ended_async
from procrastinate.connector import CallerConnection
from procrastinate.former import HasFormerNames
from procrastinate.gateway import Gateway
from procrastinate.model.endings import ended
from procrastinate.model.endings.retry import BaseRetryStrategy
from procrastinate.model.job import Job
from procrastinate.model.task import TaskDefinition

Call = ParamSpec("Call")
Args = ParamSpec("Args")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Owner(Protocol):
    """What a task needs of the App or Blueprint that it is registered on."""

    def name_of(self, definition: TaskDefinition, /) -> str:
        """Return the name that jobs of a task carry."""

    def way_out(self, definition: TaskDefinition, /) -> tuple[Gateway, TaskDefinition]:
        """Return the gateway to the database, and the definition under its final name."""

    def has_task(self, name: str, definition: TaskDefinition, /) -> bool:
        """Whether a name, which may be an alias, leads to this task."""


class Task(HasFormerNames, Calling[Args, R], Generic[Call, Args, R]):
    """A function registered on an App or a Blueprint.

    Calling it calls the function, here and now. ``defer`` and its relatives insert jobs through
    the app that it belongs to.
    """

    def __init__(self, definition: TaskDefinition, owner: Owner) -> None:
        self.definition = definition
        self.owner = owner
        self._known_deferrer: JobDeferrer[Args, R] | None = None
        functools.update_wrapper(self, definition.func)

    def __call__(self, *args: Call.args, **kwargs: Call.kwargs) -> R:
        result: R = self.definition.func(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    @property
    def name(self) -> str:
        """The name that jobs carry: with the namespaces of the blueprints it came through."""
        return self.owner.name_of(self.definition)

    @property
    def func(self) -> Any:
        """The plain function."""
        return self.definition.func

    @property
    def aliases(self) -> tuple[str, ...]:
        """The further names that it was registered with."""
        return self.definition.aliases

    @property
    def queue(self) -> str:
        """The queue of its jobs, unless `configure` names another."""
        return self.definition.queue

    @property
    def priority(self) -> int:
        """The priority of its jobs, unless `configure` gives another."""
        return self.definition.priority

    @property
    def lock(self) -> str | None:
        """The lock of its jobs, unless `configure` gives another."""
        return self.definition.lock

    @property
    def queueing_lock(self) -> str | None:
        """The queueing lock of its jobs, unless `configure` gives another."""
        return self.definition.queueing_lock

    @property
    def retry_strategy(self) -> BaseRetryStrategy | None:
        """What decides whether a failed attempt is tried again; None: it is not."""
        return self.definition.retry

    @property
    def pass_context(self) -> bool:
        """Whether the function gets a `JobContext` as its first argument."""
        return self.definition.pass_context

    def defer(self, *args: Args.args, **kwargs: Args.kwargs) -> int:
        """Defer one job with the task's own options and return its id; see `JobDeferrer.defer`."""
        return self._deferrer().defer(*args, **kwargs)

    async def defer_async(self, *args: Args.args, **kwargs: Args.kwargs) -> int:
        """Defer one job with the task's own options and return its id; see `JobDeferrer.defer`."""
        return await self._deferrer().defer_async(*args, **kwargs)

    def batch_defer(self, *task_kwargs: Mapping[str, Any]) -> list[int]:
        """Defer one job for each mapping, all or none; see `JobDeferrer.batch_defer`."""
        return self._deferrer().batch_defer(*task_kwargs)

    async def batch_defer_async(self, *task_kwargs: Mapping[str, Any]) -> list[int]:
        """Defer one job for each mapping, all or none; see `JobDeferrer.batch_defer`."""
        return await self._deferrer().batch_defer_async(*task_kwargs)

    # The first of each pair is for `async def` tasks: their result is what the coroutine returns.
    @overload
    def wait_for(
        self: Task[..., ..., Coroutine[Any, Any, T]],
        id: int,
        *,
        timeout: Timeout = ...,
        allow_in_worker: bool = ...,
    ) -> T: ...

    @overload
    def wait_for(self, id: int, *, timeout: Timeout = ..., allow_in_worker: bool = ...) -> R: ...

    def wait_for(self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False) -> Any:
        """Wait until a job of this task has ended, and return its result.

        The result is what the connector's ``json_loads`` makes of the JSON. ``timeout`` is in
        seconds, or a timedelta; None waits as long as it takes, 0 looks once. Retries in between do
        not end the wait. In memory, waiting runs what is due.

        Raises TimeoutError; `JobFailed`, `JobWasCancelled` or `JobWasAborted` if the job has not
        succeeded; `ResultNotKept`, at once if the task was registered without ``result=``;
        `JobNotFound` if there is no such job when the wait begins, and `ResultLost` if it is
        removed meanwhile. Raises `InvalidOption` for a job of another task; inside of a task whose
        worker serves the job's queue, unless ``allow_in_worker`` is true; and in a coroutine, which
        has to await `wait_for_async`.
        """
        gateway, definition = self._checked_way_out()
        job = until_ended(gateway, id, Wait.of(timeout, allow_in_worker))
        return self._value_of(job, definition)

    @overload
    async def wait_for_async(
        self: Task[..., ..., Coroutine[Any, Any, T]],
        id: int,
        *,
        timeout: Timeout = ...,
        allow_in_worker: bool = ...,
    ) -> T: ...

    @overload
    async def wait_for_async(
        self, id: int, *, timeout: Timeout = ..., allow_in_worker: bool = ...
    ) -> R: ...

    async def wait_for_async(
        self, id: int, *, timeout: Timeout = None, allow_in_worker: bool = False
    ) -> Any:
        """Wait until a job of this task has ended, and return its result; see `wait_for`."""
        gateway, definition = self._checked_way_out()
        job = await until_ended_async(gateway, id, Wait.of(timeout, allow_in_worker))
        return self._value_of(job, definition)

    def _checked_way_out(self) -> tuple[Gateway, TaskDefinition]:
        gateway, definition = self.owner.way_out(self.definition)
        check_keeps_results(definition)
        return gateway, definition

    def _value_of(self, job: Job, definition: TaskDefinition) -> Any:
        if not self.owner.has_task(job.task_name, definition):
            raise ended.of_another_task(job, definition.name)
        return ended.value_of(job)

    # With arguments given beforehand, a checker cannot know which ones are still missing.
    @overload
    def configure(self, **options: Unpack[ConfigureOptions]) -> JobDeferrer[Args, R]: ...

    @overload
    def configure(
        self, *, task_kwargs: Mapping[str, Any] | None, **options: Unpack[ConfigureOptions]
    ) -> JobDeferrer[..., R]: ...

    def configure(
        self,
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
    ) -> JobDeferrer[..., Any]:
        """Return a deferrer with some options replaced; those left out stay the task's own.

        ``schedule_at`` is an aware datetime, ``schedule_in`` a timedelta or a dict of its
        arguments; both together are an error. ``task_kwargs`` are arguments given beforehand. On a
        distributed database, jobs with one ``partition_key`` are kept together, and so in order.
        It decides before the locks do, so jobs that share one of these must share it too. A plain
        server ignores it. ``connection`` defers inside the caller's transaction: on a connection or
        session of any kind that an installed package binds, whatever the app's own connector is
        (`procrastinate.binders.available`).
        Raises `InvalidOption` or `InvalidTimestamp`.
        """
        deferrer = self._deferrer()
        options = configured(
            deferrer.options,
            queue=queue,
            priority=priority,
            lock=lock,
            queueing_lock=queueing_lock,
            partition_key=partition_key,
            task_kwargs=task_kwargs,
            schedule_at=schedule_at,
            schedule_in=schedule_in,
            connection=connection,
        )
        return JobDeferrer(options, deferrer._gateway)

    def _deferrer(self) -> JobDeferrer[Args, R]:
        gateway, definition = self.owner.way_out(self.definition)
        known = self._known_deferrer
        if (
            known is None
            or known.options.definition is not definition
            or known._gateway is not gateway
        ):
            known = self._known_deferrer = JobDeferrer(options_of(definition), gateway)
        return known
