"""Periodic tasks as they are declared: checked at once, and taken along by namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from procrastinate.app.deferring import JobOptions, configured, new_job, options_of
from procrastinate.connector import Connector
from procrastinate.errors import InvalidArguments, InvalidOption, TaskNotFound
from procrastinate.model import checks
from procrastinate.model.job import NewJob
from procrastinate.model.periodic import Key, Periodic, Schedule, schedule_from
from procrastinate.model.task import TaskDefinition, TaskRegistry
from procrastinate.model.text.printable import shown

MAX_DELAY = 600.0  # seconds, if neither the schedule nor the app says otherwise
SHORTEST_MAX_DELAY = 1.0  # seconds: a tick is always found a little late

OPTIONS = ("queue", "priority", "lock", "queueing_lock", "partition_key", "task_kwargs")


class PeriodicOptions(TypedDict, total=False):
    """The options of the jobs of a periodic task, for type checkers."""

    queue: str | None
    priority: int | None
    lock: str | None
    queueing_lock: str | None
    partition_key: str | None
    task_kwargs: Mapping[str, Any] | None


@dataclass(frozen=True)
class PeriodicTask:
    """One ``@periodic``: when jobs of a task are deferred, and how. ``max_delay`` is in seconds."""

    periodic_id: str
    schedule: Schedule
    options: JobOptions
    max_delay: float | None = None

    @property
    def key(self) -> Key:
        return self.options.task_name, self.periodic_id

    def moved_to(self, definition: TaskDefinition) -> PeriodicTask:
        """Return the same for a task that was renamed by a namespace."""
        options = replace(self.options, task_name=definition.name, definition=definition)
        return replace(self, options=options)


def periodic_task(
    definition: TaskDefinition,
    *,
    cron: Any,
    periodic_id: Any,
    timezone: Any,
    seconds: Any,
    max_delay: Any,
    options: Mapping[str, Any],
) -> PeriodicTask:
    """Return a periodic task. Raises `InvalidOption`, naming the option, and `InvalidArguments`."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise InvalidOption(
                f"a periodic task has no option {shown(name)} (given: {shown(value)}; known: cron,"
                f" periodic_id, timezone, seconds, max_delay, {', '.join(OPTIONS)})"
            )
    job_options = configured(options_of(definition), **options)
    _check_arguments(definition, job_options.task_kwargs)
    return PeriodicTask(
        periodic_id=periodic_id if periodic_id == "" else _checked_id(periodic_id),
        schedule=schedule_from(cron, timezone, seconds),
        options=job_options,
        max_delay=None if max_delay is None else checked_max_delay(max_delay),
    )


def _checked_id(periodic_id: Any) -> str:
    return checks.check_name("periodic_id", periodic_id)


def _check_arguments(definition: TaskDefinition, task_kwargs: dict[str, Any]) -> None:
    if "timestamp" in task_kwargs:
        raise InvalidOption(
            "task_kwargs must not contain 'timestamp', which a periodic task gets from its"
            f" schedule, and it is {shown(task_kwargs['timestamp'])}"
        )
    try:
        definition.check_arguments({**task_kwargs, "timestamp": 0})
    except InvalidArguments as exc:
        raise InvalidArguments(
            f"a periodic task is called with timestamp (an int) and its task_kwargs: {exc}"
        ) from exc


def checked_max_delay(value: Any) -> float:
    """Return a ``max_delay`` in seconds, or raise."""
    longest = checks.LONGEST_DELAY.total_seconds()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not SHORTEST_MAX_DELAY <= value <= longest:  # also for one that is no number
        raise InvalidOption(
            f"max_delay must be a number of seconds, at least {SHORTEST_MAX_DELAY:g} and at most"
            f" 1000 years, not {shown(value)}"
        )
    return float(value)


def periodic_defaults(defaults: Any) -> dict[str, float]:
    """Return an app's checked ``periodic_defaults``. Raises `InvalidOption`."""
    if not isinstance(defaults, Mapping | None):
        raise InvalidOption(f"periodic_defaults must be a dict, not {shown(defaults)}")
    given = dict(defaults or {})
    for name, value in given.items():
        if name != "max_delay":
            raise InvalidOption(
                f"periodic_defaults has no option {shown(name)} (given: {shown(value)};"
                " known: max_delay)"
            )
    return {name: checked_max_delay(value) for name, value in given.items()}


def task_to_repeat(tasks: TaskRegistry, name: str) -> TaskDefinition:
    """Return the task that a decorator stands above. Raises `TaskNotFound`."""
    definition = tasks.get(name)
    if definition is None:
        raise TaskNotFound(
            f"the task {name} cannot be periodic here, where it is not registered: put @periodic"
            " above the @task of the same app or blueprint"
        )
    return definition


def for_worker(
    periodic: PeriodicTask, connector: Connector, defaults: Mapping[str, float]
) -> Periodic:
    """Return what a worker needs of a periodic task.

    Raises `InvalidArguments` for arguments that are not JSON to this connector.
    """

    def job_at(tick: datetime) -> NewJob:
        return new_job(periodic.options, {"timestamp": int(tick.timestamp())}, connector)

    job_at(datetime.now(UTC))
    task_name, periodic_id = periodic.key
    max_delay = periodic.max_delay or defaults.get("max_delay", MAX_DELAY)
    return Periodic(
        task_name,
        periodic_id,
        periodic.schedule,
        timedelta(seconds=max_delay),
        job_at,
        periodic.options.queue,
    )
