"""``procrastinate workers``, ``tasks``, ``schedules``: who works on what, and what comes when."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from procrastinate.cli import records, tables
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.tables import MEDIUM, WIDE, Heading
from procrastinate.model.job import Status
from procrastinate.model.monitoring.fleet import ScheduleInfo, WorkerInfo

_JSON = Option(["--json"], is_flag=True, help="Print one JSON object a line.")


@click.command("workers", params=[_JSON])
@click.pass_context
def workers(ctx: click.Context, /, json: bool) -> None:
    """Show the workers: where they run, what they serve, and when they were heard of.

    A worker that has died is shown until another one has recovered its jobs.
    """
    with settings_of(ctx).open_app() as app:
        found = app.job_manager.list_workers()
    _show(found, json, "no workers run", _WORKER_HEADINGS, _worker_row)


@click.command("schedules", params=[_JSON])
@click.pass_context
def schedules(ctx: click.Context, /, json: bool) -> None:
    """Show the schedules of periodic tasks: when each was last due, and when it is next.

    They are those that workers have seen, also if their code is not here. One is late if its next
    time has passed and no worker has deferred its job: none that runs has it in its code.
    """
    with settings_of(ctx).open_app() as app:
        found = app.job_manager.list_schedules()
    _show(found, json, "there are no schedules", _SCHEDULE_HEADINGS, _schedule_row)


@click.command("tasks", params=[_JSON])
@click.pass_context
def tasks(ctx: click.Context, /, json: bool) -> None:
    """Show the tasks: how many jobs each has, and how many live workers know it.

    All jobs are counted, which takes a while where there are millions.
    """
    with settings_of(ctx).open_app() as app:
        found = _tasks(app)
    _show(found, json, "there are no tasks", _TASK_HEADINGS, _task_row)


@dataclass(frozen=True)
class TaskInfo:
    """A task that has jobs, or that a live worker knows."""

    name: str
    workers: int  # live ones that know it
    jobs_count: int = 0
    todo: int = 0
    doing: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    aborted: int = 0


def _tasks(app: Any) -> list[TaskInfo]:
    manager = app.job_manager
    known = Counter(
        name
        for worker in manager.list_workers()
        if worker.is_alive
        for name in worker.task_names or ()
    )
    counts = {each.name: dataclasses.asdict(each) for each in manager.list_tasks()}
    return [
        TaskInfo(**{"name": name, "workers": known[name], **counts.get(name, {})})
        for name in sorted({*known, *counts})
    ]


def _show(
    found: Sequence[Any],
    as_json: bool,
    nothing: str,
    headings: Sequence[Heading],
    row: Callable[[Any], Sequence[str]],
) -> None:
    """Print rows as JSON, as a table for a terminal, or as fields separated by tabs."""
    if as_json:
        sys.stdout.write(records.lines([_json_line(each) for each in found]))
    elif not found:
        click.echo(nothing, err=True)
    elif sys.stdout.isatty():
        tables.print_rows(headings, map(row, found))
    else:
        values = [_values(each) for each in found]
        lines = [records.tabbed(map(_field, each.values())) for each in values]
        sys.stdout.write(records.lines(["\t".join(values[0]), *lines]))


def _values(each: Any) -> dict[str, Any]:
    values = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
    if isinstance(each, ScheduleInfo):
        values |= {"next_tick": each.next_tick, "is_late": each.is_late(datetime.now(UTC))}
    if isinstance(each, WorkerInfo):
        values["state"] = each.state
    return values


def _json_line(each: Any) -> str:
    values = {
        name: records.iso(value) if isinstance(value, datetime) else value
        for name, value in _values(each).items()
    }
    return json.dumps(values, separators=(",", ":"))


def _field(value: Any) -> Any:
    if isinstance(value, datetime):
        return records.iso(value)
    return ",".join(value) if isinstance(value, tuple) else value


# --- For people -----------------------------------------------------------------------------------

_WORKER_HEADINGS = [
    Heading("id", right=True),
    Heading("name", shrinks=True),
    Heading("host", WIDE, shrinks=True),
    Heading("pid", WIDE, right=True),
    Heading("queues", MEDIUM, shrinks=True),
    Heading("busy", right=True),
    Heading("version", WIDE, shrinks=True),
    Heading("heard of", MEDIUM, right=True),
    Heading("state"),
]


def _worker_row(worker: WorkerInfo) -> list[str]:
    return [
        str(worker.id),
        worker.name,
        worker.host or "?",
        _number(worker.pid),
        "all" if worker.queues is None else ", ".join(worker.queues),
        f"{_number(worker.busy)}/{_number(worker.concurrency)}",
        worker.version or "?",
        f"{duration(worker.seconds_since_heartbeat)} ago",
        _state(worker),
    ]


def _state(worker: WorkerInfo) -> str:
    if worker.state == "blocked" and worker.blocked_since is not None:
        blocked = (worker.last_heartbeat - worker.blocked_since).total_seconds()
        return f"blocked for {duration(blocked + worker.seconds_since_heartbeat)}"
    return "claims nothing" if worker.state == "untrusted" else worker.state


_SCHEDULE_HEADINGS = [
    Heading("task", shrinks=True),
    Heading("id", WIDE, shrinks=True),
    Heading("cron"),
    Heading("zone", MEDIUM, shrinks=True),
    Heading("queue", WIDE, shrinks=True),
    Heading("last"),
    Heading("job", MEDIUM, right=True),
    Heading("next"),
]


def _schedule_row(schedule: ScheduleInfo) -> list[str]:
    zone = tables.local_zone()
    late = " (late)" if schedule.is_late(datetime.now(UTC)) else ""
    return [
        schedule.task_name,
        schedule.periodic_id,
        schedule.cron or "?",
        schedule.timezone or "?",
        schedule.queue or "?",
        _time(schedule.last_tick, zone),
        "" if schedule.job_id is None else str(schedule.job_id),
        _time(schedule.next_tick, zone) + late,
    ]


_TASK_HEADINGS = [
    Heading("task", shrinks=True),
    Heading("workers", right=True),
    Heading("jobs", right=True),
    *(Heading(status.value, WIDE, right=True) for status in Status),
]


def _task_row(task: TaskInfo) -> list[str]:
    numbers = [task.workers, task.jobs_count, *(getattr(task, each.value) for each in Status)]
    return [task.name, *(f"{number:,}" for number in numbers)]


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _time(moment: datetime | None, zone: Any) -> str:
    return "" if moment is None else f"{moment.astimezone(zone):%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Return a time as people say it: 4 s, 12 min, 3 h, 5 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
