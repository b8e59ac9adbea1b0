"""What ``procrastinate queues`` and ``failures`` show: counts that stop at a limit, and say so."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from procrastinate.app.app import App
from procrastinate.cli import filters, records, tables
from procrastinate.cli.fleet import duration
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.tables import MEDIUM, WIDE, Heading
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.queue_info import QueueInfo
from procrastinate.model.monitoring.search import Count
from procrastinate.model.queues import Pause
from procrastinate.model.text.failure import headline

_COUNTS = ("ready", "scheduled", "behind_a_lock", "running", "failed")


def show_queues(app: App, *, as_json: bool) -> None:
    """Print the queues at a glance."""
    _show(
        app.queue_manager.list_queues(),
        as_json,
        "no queue has jobs that wait, run or have failed, and none is paused",
        _QUEUE_HEADINGS,
        _queue_row,
        _queue_record,
    )


@click.command(
    "failures",
    params=[
        *filters.period("when the jobs failed"),
        filters.queue(),
        filters.task(),
        Option(["--json"], is_flag=True, help="Print one JSON object a line."),
    ],
)
@click.pass_context
def failures(ctx: click.Context, /, **given: Any) -> None:
    """Show what failed, in groups: the same task, type of error and text.

    Numbers, addresses and what is in quotes differ between the jobs of a group: they are shown as
    *. The text can be given to --error as it is. It looks at the 5,000 newest failed jobs; a +
    behind a count says that there may be more.

    \b
      procrastinate failures --since 2h
      procrastinate jobs retry --error 'ConnectionError: * refused' --since 2h
    """
    with settings_of(ctx).open_app() as app:
        found = app.job_manager.list_failures(**filters.chosen(given))
    _show(found, given["json"], "nothing has failed", _FAILURE_HEADINGS, _failure_row, _failure)


def _show(
    found: Sequence[Any],
    as_json: bool,
    nothing: str,
    headings: Sequence[Heading],
    row: Any,
    record: Any,
) -> None:
    if as_json:
        texts = [json.dumps(record(each), separators=(",", ":")) for each in found]
        sys.stdout.write(records.lines(texts))
    elif not found:
        click.echo(nothing, err=True)
    elif sys.stdout.isatty():
        tables.print_rows(headings, map(row, found))
    else:
        values = [record(each) for each in found]
        lines = [records.tabbed(map(_field, each.values())) for each in values]
        sys.stdout.write(records.lines(["\t".join(values[0]), *lines]))


def _field(value: Any) -> Any:
    """Return a value as one field of a line."""
    if isinstance(value, list):
        return ",".join(value)
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else value


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else records.iso(moment)


# Queues

_QUEUE_HEADINGS = [
    Heading("queue", shrinks=True),
    Heading("ready", right=True),
    Heading("scheduled", WIDE, right=True),
    Heading("behind a lock", WIDE, right=True),
    Heading("running", MEDIUM, right=True),
    Heading("failed", right=True),
    Heading("oldest ready", MEDIUM, right=True),
    Heading("paused", shrinks=True),
]


def _queue_row(info: QueueInfo) -> list[str]:
    return [
        info.name,
        *(str(getattr(info, name)) for name in _COUNTS),
        _age(info.oldest_ready_since),
        _paused(info.pause),
    ]


def _age(since: datetime | None) -> str:
    return "" if since is None else duration((datetime.now(UTC) - since).total_seconds())


def _paused(pause: Pause | None) -> str:
    if pause is None:
        return ""
    until = f"until {pause.until.astimezone():%m-%d %H:%M}" if pause.until else "yes"
    return ": ".join(each for each in (until, pause.reason) if each)


def _queue_record(info: QueueInfo) -> dict[str, Any]:
    counts: dict[str, Count] = {name: getattr(info, name) for name in _COUNTS}
    return {
        "queue": info.name,
        **{name: count.value for name, count in counts.items()},
        "at_least": [name for name, count in counts.items() if not count.is_complete],
        "oldest_ready_since": _time(info.oldest_ready_since),
        "pause": None if info.pause is None else _pause_record(info.pause),
    }


def _pause_record(pause: Pause) -> dict[str, Any]:
    return {
        "queue": pause.queue,
        "paused_at": _time(pause.paused_at),
        "until": _time(pause.until),
        "by": pause.by,
        "reason": pause.reason,
    }


# Failures

_FAILURE_HEADINGS = [
    Heading("jobs", right=True),
    Heading("task", shrinks=True),
    Heading("error", shrinks=True),
    Heading("last", MEDIUM),
    Heading("newest job", WIDE, right=True),
]


def _failure_row(group: FailureGroup) -> list[str]:
    last = "" if group.last_at is None else f"{group.last_at.astimezone():%m-%d %H:%M:%S}"
    error = headline(group.error_type, group.error_text)
    return [str(group.count), group.task_name, error, last, str(group.newest_job_id)]


def _failure(group: FailureGroup) -> dict[str, Any]:
    return {
        "task_name": group.task_name,
        "error_type": group.error_type,
        "error_text": group.error_text,
        "count": group.count.value,
        "is_complete": group.count.is_complete,
        "first_at": _time(group.first_at),
        "last_at": _time(group.last_at),
        "newest_job_id": group.newest_job_id,
    }
