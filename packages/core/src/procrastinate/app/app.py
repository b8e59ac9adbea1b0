"""The App: tasks, and the connector that leads to their jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from procrastinate import connectors
from procrastinate.app import loading
from procrastinate.app.deferring import (
    _UNSET,
    ConfigureOptions,
    JobDeferrer,
    JobOptions,
    configured,
    options_of,
)
from procrastinate.app.opening import OpenedAsync
from procrastinate.app.task import Task
from procrastinate.app.waiting import WaitingApp
from procrastinate.app.working import WorkingApp, checked_periodic_defaults, checked_worker_defaults
from procrastinate.builtin_tasks import BUILTIN_TASKS, know_app
from procrastinate.connector import CallerConnection, Connector
from procrastinate.errors import InvalidOption
from procrastinate.former.arguments import former_arguments
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.task import TaskDefinition, TaskRegistry
from procrastinate.observing.observer import Observer
from procrastinate.observing.observers import observers_of
from procrastinate.worker.process import inside

if TYPE_CHECKING:
    from procrastinate.app.job_manager import JobManager
    from procrastinate.app.queue_manager import QueueManager
    from procrastinate.app.schema_manager import SchemaManager

Args = ParamSpec("Args")
R = TypeVar("R")


class App(WaitingApp, WorkingApp):
    """A set of tasks and the way to the database where their jobs are.

    ``connector`` is a connector, the name of one (``"psycopg2"``) or a URL
    (``"aiopg://user@host/database"``). ``import_paths`` names the modules that define tasks; a
    worker imports them before it starts. ``worker_defaults`` are options for `run_worker`, and
    ``periodic_defaults`` those for all periodic tasks: ``{"max_delay": seconds}``.
    ``observers`` see what happens to jobs: instances of `Observer`, or names of installed ones.

    Raises `InvalidOption` for a value that cannot be, `ConnectorNotInstalled` for a connector's
    name or URL that no package provides, and `ConfigurationError` for a malformed URL.
    """

    def __init__(
        self,
        *,
        connector: Connector | str,
        import_paths: Iterable[str] | None = None,
        worker_defaults: Mapping[str, Any] | None = None,
        periodic_defaults: Mapping[str, Any] | None = None,
        observers: Iterable[Observer | str] | None = None,
    ) -> None:
        super().__init__()
        self._registry = TaskRegistry(BUILTIN_TASKS)
        self._gateway = Gateway(connectors.resolve(connector), observers_of(observers), app=self)
        self.import_paths = loading.checked_paths(import_paths)
        self.worker_defaults = checked_worker_defaults(worker_defaults)
        self.periodic_defaults = checked_periodic_defaults(periodic_defaults)
        know_app(self)

    @classmethod
    @former_arguments(dotted_path="path")
    def from_path(cls, path: str) -> App:
        """Return the app at a dotted path, such as ``"package.module.app"``.

        Raises `LoadFromPathError` if there is none.
        """
        return loading.app_at(path, App)

    @property
    def connector(self) -> Connector:
        """The connector that this app defers through."""
        return self._gateway.connector

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What watches this app's jobs, as it was given."""
        return self._gateway.observers.given

    @property
    def job_manager(self) -> JobManager:
        """Listing, cancelling and retrying jobs."""
        from procrastinate.app.job_manager import JobManager  # who only defers does without

        return JobManager(self._gateway)

    @property
    def queue_manager(self) -> QueueManager:
        """Pausing queues and resuming them."""
        from procrastinate.app.queue_manager import QueueManager

        return QueueManager(self._gateway)

    @property
    def schema_manager(self) -> SchemaManager:
        """Creating, migrating and checking procrastinate's tables."""
        from procrastinate.app.schema_manager import SchemaManager

        return SchemaManager(self._gateway)

    # Opening and closing

    def open(self, pool_or_engine: Any = None) -> Self:
        """Open the app for synchronous calls, and return it; ``with app.open():`` closes it again.

        A pool or engine given here is used, and never closed. Raises `ConnectionFailed`.
        """
        self._gateway.open(pool_or_engine)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what `open` opened. An app that is not open is left as it is."""
        self._gateway.close()

    def open_async(self, pool: Any = None) -> OpenedAsync[App]:
        """Open the app: ``await app.open_async()`` or ``async with app.open_async():``.

        Asynchronous calls then run on the connector, and synchronous ones on its synchronous
        counterpart. A pool given here is used, and never closed. Raises `ConnectionFailed`.
        """
        return OpenedAsync(self, lambda: self._gateway.open_async(pool), self.close_async)

    async def close_async(self) -> None:
        """Close what `open_async` opened. In a task of a worker that runs on it, it stays open."""
        around = inside.current()
        if around is None or around.connector is not self.connector:
            await self._gateway.close_async()

    def check_connection(self) -> bool:
        """Ask the database whether procrastinate's tables are there, and fit.

        Returns False where there are none; raises `SchemaError` where they do not fit this code,
        and `ConnectorException` where the database cannot be asked.
        """
        return self.schema_manager.check_connection()

    async def check_connection_async(self) -> bool:
        """Ask the database whether procrastinate's tables are there; see `check_connection`."""
        return await self.schema_manager.check_connection_async()

    # Tasks

    @overload
    def configure_task(
        self,
        name_or_task: Task[..., Args, R],
        *,
        allow_unknown: bool = ...,
        **options: Unpack[ConfigureOptions],
    ) -> JobDeferrer[Args, R]: ...

    @overload
    def configure_task(
        self,
        name_or_task: Task[..., ..., R],
        *,
        allow_unknown: bool = ...,
        task_kwargs: Mapping[str, Any] | None,
        **options: Unpack[ConfigureOptions],
    ) -> JobDeferrer[..., R]: ...

    @overload
    def configure_task(
        self,
        name_or_task: str,
        *,
        allow_unknown: bool = ...,
        task_kwargs: Mapping[str, Any] | None = ...,
        **options: Unpack[ConfigureOptions],
    ) -> JobDeferrer[..., Any]: ...

    @overload
    def configure_task(
        self,
        *,
        name: str,
        allow_unknown: bool = ...,
        task_kwargs: Mapping[str, Any] | None = ...,
        **options: Unpack[ConfigureOptions],
    ) -> JobDeferrer[..., Any]: ...

    def configure_task(
        self,
        name_or_task: str | Task[..., ..., Any] | None = None,
        *,
        name: str | None = None,
        allow_unknown: bool = True,
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
        """Return a deferrer for a task, by name or as such, through this app's connector.

        A name may also be given as ``name=``. One that is not registered here may be a task of
        another program; with ``allow_unknown=False`` it raises `TaskNotFound`. The options are
        those of `Task.configure`.
        """
        if name is not None and name_or_task is not None:
            raise InvalidOption("configure_task() takes one task: a task or its name, or name=")
        known_only = not checks.check_flag("allow_unknown", allow_unknown)
        options = configured(
            self._options_for(name if name_or_task is None else name_or_task, known_only),
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
        return JobDeferrer(options, self._gateway)

    def _options_for(
        self, name_or_task: str | Task[..., ..., Any] | None, known_only: bool
    ) -> JobOptions:
        given = name_or_task.name if isinstance(name_or_task, Task) else name_or_task
        name = checks.check_name("task name", given)
        definition = self._registry.get(name)
        if definition is not None:
            return options_of(definition)
        if isinstance(name_or_task, Task):
            return options_of(name_or_task.definition)
        if known_only:
            self.perform_import_paths()
            return options_of(self._registry[name])
        return JobOptions(task_name=name, definition=None)

    # Other connectors

    def with_connector(
        self, connector: Connector | str, *, observers: Iterable[Observer | str] = ()
    ) -> App:
        """Return another app on the same tasks, with another connector.

        A task or schedule registered on either is known to both, before or after this call.
        Deferring through an app always uses that app's connector. Each is opened and closed by
        itself. Both have the same observers; ``observers`` are further ones of the new app. Raises
        as `App` does for its connector and observers.
        """
        other = App(
            connector=connector,
            import_paths=self.import_paths,
            worker_defaults=self.worker_defaults,
            periodic_defaults=self.periodic_defaults,
            observers=[*self.observers, *observers],
        )
        other._registry = self._registry
        other._periodics = self._periodics
        return other

    def replace_connector(self, connector: Connector | str) -> AbstractContextManager[App]:
        """Use another connector for the length of a ``with`` block: for tests.

        Tasks registered on this app defer through it meanwhile. It is not opened or closed.
        """
        found = connectors.resolve(connector)
        return self._replaced(Gateway(found, self._gateway.observers, app=self))

    @contextmanager
    def _replaced(self, gateway: Gateway) -> Iterator[App]:
        original, self._gateway = self._gateway, gateway
        try:
            yield self
        finally:
            self._gateway = original

    def way_out(self, definition: TaskDefinition) -> tuple[Gateway, TaskDefinition]:
        """Return the gateway to defer through, and the definition under its final name."""
        return self._gateway, definition

    def _gateway_if_any(self) -> Gateway:
        return self._gateway

    def _refused_if_distributed(self) -> list[str]:
        """Name the tasks and schedules whose jobs a distributed database would refuse."""
        declared = [options_of(self._registry[name]) for name in self._registry]
        declared += [each.options for each in self._periodics]
        return sorted({each.task_name for each in declared if each.contradicts_itself})

    def _to_drain_before_distribution(self) -> dict[str, int]:
        """Count, by task, the jobs with locks whose partition key was not stored.

        They must have ended before the database is distributed.
        """
        from procrastinate.storage.distributing import to_drain

        keyed = {name for name in self._registry if self._registry[name].partition_key is not None}
        declared = [each.options for each in self._periodics]
        keyed |= {each.task_name for each in declared if each.partition_key is not None}
        counts = self._gateway.run(to_drain())
        return {name: count for name, count in sorted(counts.items()) if name in keyed}
