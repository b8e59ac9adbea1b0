"""The options that say which jobs: the same for listing, cancelling, aborting and retrying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from procrastinate.cli import completing
from procrastinate.cli.values import Id, Name
from procrastinate.model import checks
from procrastinate.model.job import Status

#: The job manager's names for them.
_NAMES = {
    "id": "id",
    "queue": "queue",
    "task": "task",
    "status": "status",
    "lock": "lock",
    "queueing_lock": "queueing_lock",
    "worker": "worker_id",
}


def queue() -> click.Option:
    return click.Option(
        ["--queue"],
        type=Name("queue", checks.check_name),
        help="Only jobs of this queue.",
        shell_complete=completing.queue_names,
    )


def task() -> click.Option:
    return click.Option(
        ["--task"],
        type=Name("task", checks.check_name),
        help="Only jobs of the task of this name.",
        shell_complete=completing.task_names,
    )


def lock() -> click.Option:
    return click.Option(
        ["--lock"], type=Name("lock", checks.check_lock), help="Only jobs with this lock."
    )


def all_filters(statuses: Iterable[Status] = tuple(Status)) -> list[click.Parameter]:
    """Return the options by which jobs are chosen other than by their ids."""
    return [
        queue(),
        task(),
        click.Option(
            ["--status"],
            type=click.Choice([status.value for status in statuses], case_sensitive=False),
            multiple=True,
            help="Only jobs in this status. May be given several times.",
        ),
        lock(),
        click.Option(
            ["--queueing-lock"],
            type=Name("queueing_lock", checks.check_lock),
            help="Only jobs with this queueing lock.",
        ),
        click.Option(
            ["--worker"],
            type=Id(),
            help="Only jobs that this worker runs, or ran last.",
        ),
    ]


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job manager's filters for the options that were given."""
    return {
        _NAMES[name]: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if name in _NAMES and value not in (None, ())
    }
