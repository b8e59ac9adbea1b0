"""The options that say which jobs: the same for listing, cancelling, aborting and retrying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from procrastinate.cli import completing
from procrastinate.cli.options import Option
from procrastinate.cli.values import ErrorText, Id, Name, Past
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.states import State

#: The job manager's names for them.
_NAMES = {
    "id": "id",
    "queue": "queue",
    "task": "task",
    "status": "status",
    "lock": "lock",
    "queueing_lock": "queueing_lock",
    "worker": "worker_id",
    "state": "state",
    "since": "since",
    "until": "until",
    "error": "error",
}


def queue() -> click.Option:
    return Option(
        ["--queue"],
        type=Name("queue", checks.check_name),
        help="Only jobs of this queue.",
        shell_complete=completing.queue_names,
    )


def task() -> click.Option:
    return Option(
        ["--task"],
        type=Name("task", checks.check_name),
        help="Only jobs of the task of this name.",
        shell_complete=completing.task_names,
    )


def lock() -> click.Option:
    return Option(
        ["--lock"], type=Name("lock", checks.check_lock), help="Only jobs with this lock."
    )


def period(what: str) -> list[click.Parameter]:
    """Return the options for a stretch of time; ``what`` says of what."""
    return [
        Option(
            ["--since"],
            type=Past(),
            help=f"Only from this time on; it is about {what}. 2h (ago), 14:00, yesterday, or ISO"
            " 8601, without a zone in local time.",
        ),
        Option(["--until"], type=Past(), help="Only before this time."),
    ]


def all_filters(statuses: Iterable[Status] = tuple(Status)) -> list[click.Parameter]:
    """Return the options by which jobs are chosen other than by their ids."""
    statuses = tuple(statuses)
    states = [state.value for state in State if state.status in statuses]
    return [
        queue(),
        task(),
        Option(
            ["--state"],
            type=click.Choice(states, case_sensitive=False),
            metavar="STATE",
            multiple=True,
            help=f"Only jobs in this state: {', '.join(states)}. May be given several times.",
        ),
        Option(
            ["--status"],
            type=click.Choice([status.value for status in statuses], case_sensitive=False),
            multiple=True,
            help="Only jobs in this status: states, but todo for all that wait, doing for running."
            " May be given several times.",
        ),
        lock(),
        Option(
            ["--queueing-lock"],
            type=Name("queueing_lock", checks.check_lock),
            help="Only jobs with this queueing lock.",
        ),
        Option(
            ["--worker"],
            type=Id(),
            help="Only jobs that this worker runs, or ran last.",
        ),
        *period("when jobs ended, or started if they run, or were deferred if they wait"),
        Option(
            ["--error"],
            type=ErrorText(),
            help="Only jobs whose last error has this text in its type or message; * is any text.",
        ),
    ]


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job manager's filters for the options that were given."""
    return {
        _NAMES[name]: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if name in _NAMES and value not in (None, ())
    }
