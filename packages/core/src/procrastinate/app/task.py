"""A task in the hands of its users: still the function, and the way to defer jobs of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from procrastinate.app.deferring import (
    _UNSET,
    ConfigureOptions,
    JobDeferrer,
    configured,
    options_of,
)
from procrastinate.connector import CallerConnection
from procrastinate.gateway import Gateway
from procrastinate.model.task import TaskDefinition

Call = ParamSpec("Call")
Args = ParamSpec("Args")
R = TypeVar("R", covariant=True)


class Owner(Protocol):
    """What a task needs of the App or Blueprint that it is registered on."""

    def name_of(self, definition: TaskDefinition, /) -> str: ...

    def way_out(self, definition: TaskDefinition, /) -> tuple[Gateway, TaskDefinition]: ...


class Task(Generic[Call, Args, R]):
    """A function registered on an App or a Blueprint.

    Calling it calls the function, here and now. ``defer`` and its relatives insert jobs through
    the app that it belongs to.
    """

    def __init__(self, definition: TaskDefinition, owner: Owner) -> None:
        self.definition = definition
        self.owner = owner
        self._known_deferrer: JobDeferrer[Args] | None = None
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

    # With arguments given beforehand, a checker cannot know which ones are still missing.
    @overload
    def configure(self, **options: Unpack[ConfigureOptions]) -> JobDeferrer[Args]: ...

    @overload
    def configure(
        self, *, task_kwargs: Mapping[str, Any] | None, **options: Unpack[ConfigureOptions]
    ) -> JobDeferrer[...]: ...

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
    ) -> JobDeferrer[Any]:
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

    def _deferrer(self) -> JobDeferrer[Args]:
        gateway, definition = self.owner.way_out(self.definition)
        known = self._known_deferrer
        if known is None or not known.is_for(definition, gateway):
            known = self._known_deferrer = JobDeferrer(options_of(definition), gateway)
        return known
