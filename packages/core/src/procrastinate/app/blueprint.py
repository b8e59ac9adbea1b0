"""Blueprints: groups of tasks, defined apart from the app that will run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Unpack,
    overload,
)

from procrastinate.app.periodic_registry import PeriodicRegistry
from procrastinate.app.task import Task
from procrastinate.errors import ConfigurationError, InvalidOption, UnboundTaskError
from procrastinate.former import HasFormerNames
from procrastinate.former.arguments import former_arguments
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.endings.retry import BaseRetryStrategy, strategy_from
from procrastinate.model.middleware import middlewares
from procrastinate.model.task import TaskDefinition, TaskRegistry
from procrastinate.model.text.printable import shown

if TYPE_CHECKING:
    from procrastinate.app.periodic import PeriodicOptions
    from procrastinate.worker.context import AsyncMiddleware, JobContext, Middleware

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
AnyTask = TypeVar("AnyTask", bound=Task[..., ..., Any])

Retry = bool | int | BaseRetryStrategy
SomeMiddleware: TypeAlias = (
    "Middleware | AsyncMiddleware | Sequence[Middleware] | Sequence[AsyncMiddleware] | None"
)


class Blueprint(HasFormerNames):
    """A group of tasks. An App takes them up with ``add_tasks_from(blueprint, namespace=...)``."""

    def __init__(self) -> None:
        self._registry = TaskRegistry()
        self._periodics = PeriodicRegistry()
        self._taken_up_by: tuple[Blueprint, str] | None = None

    @property
    def tasks(self) -> Mapping[str, Task[..., ..., Any]]:
        """The registered tasks by name and alias; deferring them goes through this app."""
        return _Tasks(self._registry, self)

    @overload
    def task(self, func: Callable[P, R]) -> Task[P, P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = ...,
        aliases: Iterable[str] | None = ...,
        retry: Retry = ...,
        pass_context: Literal[False] = ...,
        queue: str = ...,
        priority: int = ...,
        lock: str | None = ...,
        queueing_lock: str | None = ...,
        partition_key: str | None = ...,
        timeout: float | timedelta | None = ...,
        middleware: SomeMiddleware = ...,
        result: bool | Literal["strict"] = ...,
    ) -> Callable[[Callable[P, R]], Task[P, P, R]]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = ...,
        aliases: Iterable[str] | None = ...,
        retry: Retry = ...,
        pass_context: Literal[True],
        queue: str = ...,
        priority: int = ...,
        lock: str | None = ...,
        queueing_lock: str | None = ...,
        partition_key: str | None = ...,
        timeout: float | timedelta | None = ...,
        middleware: SomeMiddleware = ...,
        result: bool | Literal["strict"] = ...,
    ) -> Callable[
        [Callable[Concatenate[JobContext, P], R]], Task[Concatenate[JobContext, P], P, R]
    ]: ...

    @former_arguments(task_middleware="middleware")
    def task(
        self,
        func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        aliases: Iterable[str] | None = None,
        retry: Retry = False,
        pass_context: bool = False,
        queue: str = "default",
        priority: int = 0,
        lock: str | None = None,
        queueing_lock: str | None = None,
        partition_key: str | None = None,
        timeout: float | timedelta | None = None,
        middleware: SomeMiddleware = None,
        result: bool | Literal["strict"] = False,
    ) -> Any:
        """Register a function, plain or ``async def``, as a task; with or without parentheses.

        ``name`` is by default the function's module and qualified name. ``retry``: False, True
        (without end), a number of retries, or a strategy. ``pass_context`` gives the function a
        `JobContext` as its first argument. ``timeout`` (seconds, or a timedelta) is for one
        attempt. ``middleware`` wraps each attempt: one function or a list of them, the outermost
        first, ``async def`` if the task is. ``result`` keeps what the function returns as JSON, up
        to 256 KiB; the job is then not deleted at its end by ``delete_jobs``. If it cannot be kept,
        the job has succeeded and its ``result_error`` says why; with ``result="strict"`` the
        attempt has failed. The rest are the defaults of the task's jobs; a job of larger
        ``priority`` runs first. Raises `TaskAlreadyRegistered` and `InvalidOption`.
        """

        def register(function: Callable[..., Any]) -> Task[..., ..., Any]:
            definition = TaskDefinition(
                func=_checked_function(function),
                name=default_name(function) if name is None else name,
                aliases=_alias_names(aliases),
                retry=strategy_from(retry),
                pass_context=pass_context,
                queue=queue,
                priority=priority,
                lock=lock,
                queueing_lock=queueing_lock,
                partition_key=partition_key,
                timeout=checks.check_limit("timeout", timeout),
                middleware=middlewares(middleware),
                result=result,
            )
            self._registry.add(definition)
            return Task(definition, self)

        return register if func is None else register(func)

    def periodic(
        self,
        *,
        cron: str,
        periodic_id: str = "",
        timezone: str = "UTC",
        seconds: Literal["first", "last"] | None = None,
        max_delay: float | None = None,
        **options: Unpack[PeriodicOptions],
    ) -> Callable[[AnyTask], AnyTask]:
        """Let workers defer a task on a schedule, once per tick; stands above ``@task``.

        ``cron`` has five fields, six with seconds, or is a name such as ``@daily``; it is read in
        ``timezone``. The seconds stand first. An expression that means something else with the
        seconds last, as releases up to 3.x read it, needs ``seconds="first"`` or ``"last"``.
        The task gets ``timestamp``, the tick in seconds since the epoch, as an int. Several
        schedules of one task need a ``periodic_id`` each. Ticks that were missed are made up for
        when they are not older than ``max_delay`` seconds (by default ``periodic_defaults`` of the
        app, else 600). The other options are those of `Task.configure` that concern every job:
        ``queue, priority, lock, queueing_lock, partition_key, task_kwargs``. Raises
        `InvalidOption`, `InvalidArguments` for a task that cannot be called so, and `TaskNotFound`.
        """

        when = {
            "cron": cron,
            "periodic_id": periodic_id,
            "timezone": timezone,
            "seconds": seconds,
            "max_delay": max_delay,
        }

        def register(task: AnyTask) -> AnyTask:
            self._add_periodic(task, when, options)
            return task

        return register

    def _add_periodic(self, task: Any, when: dict[str, Any], options: Any) -> None:
        from procrastinate.app.periodic import periodic_task, task_to_repeat  # seldom needed

        if not isinstance(task, Task):
            raise InvalidOption(f"@periodic stands above @task, and not above {shown(task)}")
        if self._taken_up_by is not None and self._gateway_if_any() is None:
            raise ConfigurationError(
                f"the task {task.name} becomes periodic after an app has taken up its blueprint,"
                " and would never be deferred: call add_tasks_from later"
            )
        self._periodics.add(
            periodic_task(
                task_to_repeat(self._registry, task.name),
                **when,
                options=options,
            )
        )

    def add_task_alias(self, task: Task[..., ..., Any], alias: str) -> None:
        """Let a registered task be found under one more name, for jobs deferred under it.

        A blueprint that was taken up passes the alias on to what took it up, which knows it as
        ``namespace:alias``. Raises `TaskAlreadyRegistered` for a name that is taken,
        `TaskNotFound`, `InvalidOption`.
        """
        if not isinstance(task, Task):
            raise InvalidOption(f"the task of an alias must be a task, not {shown(task)}")
        if self._taken_up_by is None or self._gateway_if_any() is not None:
            self._registry.add_alias(self._name_here(task), alias)
            return
        checks.check_name("alias", alias)
        owner, namespace = self._taken_up_by
        owner.add_task_alias(task, f"{namespace}:{alias}" if namespace else alias)

    def _name_here(self, task: Task[..., ..., Any]) -> str:
        """Return the name of a task in this registry: it may have come with a blueprint."""
        name = task.definition.name
        return name if self._registry.get(name) is task.definition else task.name

    def add_tasks_from(self, blueprint: Blueprint, *, namespace: str) -> None:
        """Take up a blueprint's tasks as ``namespace:name``, all or none, with their schedules.

        From then on the blueprint's own task objects defer through this app; when several apps
        take one blueprint up, through the first. Raises `TaskAlreadyRegistered`, and
        `InvalidOption` for a name that becomes too long.
        """
        if not isinstance(blueprint, Blueprint):
            raise InvalidOption(f"tasks are taken up from a Blueprint, not from {shown(blueprint)}")
        if namespace != "":  # which leaves the names as they are
            checks.check_name("namespace", namespace)
        self._registry.add_all(blueprint._registry, namespace=namespace)
        self._periodics.add_all(blueprint._periodics, namespace=namespace, tasks=self._registry)
        if blueprint._taken_up_by is None:
            blueprint._taken_up_by = (self, namespace)

    def name_of(self, definition: TaskDefinition) -> str:
        """Return the name that this task's jobs carry once deferred through here."""
        if self._taken_up_by is None or self._gateway_if_any() is not None:
            return definition.name
        owner, namespace = self._taken_up_by
        prefixed = f"{namespace}:{definition.name}" if namespace else definition.name
        return owner.name_of(owner._registry.get(prefixed) or definition)

    def way_out(self, definition: TaskDefinition) -> tuple[Gateway, TaskDefinition]:
        """Return the gateway to defer through, and the definition under its final name."""
        gateway = self._gateway_if_any()
        if gateway is not None:
            return gateway, definition
        if self._taken_up_by is None:
            raise UnboundTaskError(
                f"task {definition.name!r} belongs to a blueprint that no app has taken up:"
                " call app.add_tasks_from(blueprint, namespace=...) first"
            )
        owner, namespace = self._taken_up_by
        name = f"{namespace}:{definition.name}" if namespace else definition.name
        return owner.way_out(owner._registry[name])

    def has_task(self, name: str, definition: TaskDefinition) -> bool:
        """Whether jobs of this name are jobs of this task, in the app that defers it."""
        if self._gateway_if_any() is None and self._taken_up_by is not None:
            return self._taken_up_by[0].has_task(name, definition)
        return self._registry.get(name) is definition or definition.name == name

    def _gateway_if_any(self) -> Gateway | None:
        """A blueprint has no way to a database of its own; an App does."""
        return None


class _Tasks(Mapping[str, Task[..., ..., Any]]):
    """A registry's tasks, bound to one app."""

    def __init__(self, registry: TaskRegistry, owner: Blueprint) -> None:
        self._registry = registry
        self._owner = owner

    def __getitem__(self, name: str) -> Task[..., ..., Any]:
        return Task(self._registry[name], self._owner)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._registry.get(name) is not None

    @overload
    def get(self, name: str) -> Task[..., ..., Any] | None: ...

    @overload
    def get(self, name: str, default: T) -> Task[..., ..., Any] | T: ...

    def get(self, name: str, default: Any = None) -> Any:
        definition = self._registry.get(name) if isinstance(name, str) else None
        return default if definition is None else Task(definition, self._owner)

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)


def default_name(function: Callable[..., Any]) -> str:
    """Return ``module.qualname``, by which a task is known unless it is named.

    For a script that is run directly the module is the one that a worker imports: a job called
    ``__main__.task`` would be unknown to it.
    """
    module = getattr(function, "__module__", None)
    if module == "__main__":
        module = _main_module()
    qualname = getattr(function, "__qualname__", None)
    if not module or not qualname:
        raise InvalidOption(f"{shown(function)} has no name of its own: give the task a `name=`")
    return f"{module}.{qualname}"


def _main_module() -> str:
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name).removesuffix(".__main__")
    return "__main__" if file is None else os.path.splitext(os.path.basename(file))[0]


def _checked_function(function: Any) -> Callable[..., Any]:
    if isinstance(function, Task):
        raise InvalidOption(f"{shown(function)} is a task already: register its function, `.func`")
    if not callable(function):
        raise InvalidOption(f"a task is made from a function, not from {shown(function)}")
    checked: Callable[..., Any] = function
    return checked


def _alias_names(aliases: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(aliases, str) or not isinstance(aliases, Iterable | None):
        raise InvalidOption(f"aliases must be a list of names, not {shown(aliases)}")
    return tuple(aliases or ())
