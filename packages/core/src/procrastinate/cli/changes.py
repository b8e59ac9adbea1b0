"""The shell's commands that change jobs: cancel, abort and retry, by id or by filter.

Rules

1. Jobs named by their ids are changed at once. One that cannot be is told of, and makes the exit
   code 1; the others are changed all the same.
2. Jobs chosen by a filter alone are counted first, as far as that is done soon, and somebody must
   agree: at the terminal, or beforehand by ``--yes``. That none matches is no error.
3. No option is taken from the environment: a filter that is not on the command line would be
   overlooked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from procrastinate.app.job_manager import JobManager
from procrastinate.cli import filters
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Duration, Id, Moment, Name
from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.monitoring.search import Count
from procrastinate.model.text.printable import counted

MANY = 20  # ids: a terminal is not shown more

COUNTED = 50_000  # jobs of a status that are read to count those that match: in about a second


class Action(NamedTuple):
    """A change: what it is called, the statuses it starts from, and how it is made.

    ``by_default`` are the statuses that a filter means which names none.
    """

    done: str
    possible: tuple[Status, ...]
    by_default: tuple[Status, ...]
    change: Callable[[JobManager, dict[str, Any], Mapping[str, Any]], list[int]]


def _cancel(manager: JobManager, which: dict[str, Any], given: Mapping[str, Any]) -> list[int]:
    return manager.cancel_jobs(**which, delete_job=given["delete"], limit=given["limit"])


def _abort(manager: JobManager, which: dict[str, Any], given: Mapping[str, Any]) -> list[int]:
    return manager.cancel_jobs(**which, abort=True, limit=given["limit"])


def _retry(manager: JobManager, which: dict[str, Any], given: Mapping[str, Any]) -> list[int]:
    changes = {name: given[name] for name in ("to_queue", "to_priority", "to_lock")}
    at = given["at"] if given["in"] is None else datetime.now(UTC) + given["in"]
    return manager.retry_jobs(**which, **changes, retry_at=at, limit=given["limit"])


_WAITING = (Status.TODO,)
_ALIVE = (Status.TODO, Status.DOING)
_ENDED_BADLY = (Status.FAILED, Status.CANCELLED, Status.ABORTED)

CANCEL = Action("cancelled", _WAITING, _WAITING, _cancel)
DELETE = CANCEL._replace(done="deleted")
ABORT = Action("cancelled or asked to end", _ALIVE, _ALIVE, _abort)
RETRY = Action("retried", (Status.TODO, *_ENDED_BADLY), _ENDED_BADLY, _retry)


def _options(action: Action, *own: click.Parameter) -> list[click.Parameter]:
    return [
        click.Argument(["ids"], type=Id(), nargs=-1, metavar="[ID]..."),
        *filters.all_filters(action.possible),
        *own,
        Option(
            ["--limit"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Change at most this number of jobs, those with the lowest ids.",
        ),
        Option(["-y", "--yes"], is_flag=True, help="Do not ask whether to go on."),
    ]


@click.command(
    "cancel",
    params=_options(
        CANCEL,
        Option(["--delete"], is_flag=True, help="Delete the jobs from the table altogether."),
    ),
)
@click.pass_context
def cancel(ctx: click.Context, /, **given: Any) -> ExitCode:
    """Cancel waiting jobs.

    Those with these IDs, or all that the options choose.

    \b
      cancel 12 13
      cancel --queue mail --task shop.send_mail
    """
    return _run(ctx, DELETE if given["delete"] else CANCEL, given)


@click.command("abort", params=_options(ABORT))
@click.pass_context
def abort(ctx: click.Context, /, **given: Any) -> ExitCode:
    """Ask running jobs to end, and cancel waiting ones.

    Those with these IDs, or all that the options choose. A running job ends when its task obeys.

    \b
      abort 12
      abort --lock customer-7
    """
    return _run(ctx, ABORT, given)


@click.command(
    "retry",
    params=_options(
        RETRY,
        Option(["--at"], type=Moment(), help="When to run: ISO 8601 with a time zone."),
        Option(["--in"], type=Duration(), help="Run after that time: 90 (s), 5m, 1h30m, 2d."),
        Option(
            ["--to-queue"],
            type=Name("to_queue", checks.check_name),
            help="Move the jobs to this queue.",
        ),
        Option(
            ["--to-priority"],
            type=int,
            help="Give the jobs this priority.",
        ),
        Option(
            ["--to-lock"],
            type=Name("to_lock", checks.check_lock),
            help="Give the jobs this lock.",
        ),
    ),
)
@click.pass_context
def retry(ctx: click.Context, /, **given: Any) -> ExitCode:
    """Make jobs wait for a worker again: now, or later.

    That is for jobs that failed, were cancelled or aborted; and, by their IDs or with --status
    todo, for those that wait for a later time.

    \b
      retry 12 --in 5m
      retry --state failed --queue mail
      retry --error ConnectionError --since 14:00
    """
    if given["at"] is not None and given["in"] is not None:
        raise click.UsageError("--at and --in exclude each other; give one of them", ctx)
    return _run(ctx, RETRY, given)


def _run(ctx: click.Context, action: Action, given: Mapping[str, Any]) -> ExitCode:
    ids = list(dict.fromkeys(given["ids"]))
    which = filters.chosen(given)
    if not ids and not which:
        raise click.UsageError("which jobs? Name their ids, or a filter such as --queue", ctx)
    with settings_of(ctx).open_app() as app:
        manager = app.job_manager
        if ids:
            which = {"status": list(action.possible), **which, "id": ids}
        elif not _agreed(ctx, manager, action, which, given):
            return ExitCode.OK
        try:
            changed = action.change(manager, which, given)
        except InvalidOption as exc:
            raise click.UsageError(str(exc), ctx) from exc
        if changed or not ids:
            _tell_changed(action, changed)
        return _tell_unchanged(manager, action, sorted(set(ids) - set(changed)))


def _agreed(
    ctx: click.Context,
    manager: JobManager,
    action: Action,
    which: dict[str, Any],
    given: Mapping[str, Any],
) -> bool:
    """Whether there is something to do and somebody wants it. Raises `click.ClickException`."""
    if given["yes"]:
        return True
    statuses = [] if "state" in which or "status" in which else list(action.by_default)
    counts = _count(manager, {"status": statuses, **which} if statuses else which)
    if all(count == Count(0) for count in counts.values()):
        click.echo("no jobs match", err=True)
        return False
    question = question_about(action, counts, given["limit"])
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: add --yes to agree, where there is no terminal", ctx)
    if not _confirmed(f"{question}. Go on?"):
        raise click.ClickException("nothing was changed")
    return True


def question_about(action: Action, counts: Mapping[str, Count], limit: int | None) -> str:
    """Return how many jobs would be changed; a + if there may be more than were counted."""
    matching = sum(counts.values(), Count(0))
    total = Count(limit) if limit is not None and limit <= matching.value else matching
    of = "" if total == matching else "of "
    parts = [f"{count} {status}" for status, count in sorted(counts.items()) if count != Count(0)]
    more = "" if matching.is_complete else f"; no more than {COUNTED:,} of each were looked at"
    jobs = "job" if total == Count(1) else "jobs"
    return f"{total} {jobs} would be {action.done} ({of}{', '.join(parts)}{more})"


def _confirmed(question: str) -> bool:
    """Ask at the terminal. Raises `click.Abort` on Ctrl-C and Ctrl-D, with the line ended."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise


def _count(manager: JobManager, which: dict[str, Any]) -> dict[str, Count]:
    """Return how many jobs match, by status."""
    statuses = [Status(each).value for each in which.get("status", Status)]
    return {
        each: manager.count_jobs(**{**which, "status": each}, budget=COUNTED) for each in statuses
    }


def _tell_changed(action: Action, ids: Sequence[int]) -> None:
    shown = ids[:MANY] if sys.stdout.isatty() else ids
    more = f" and {len(ids) - len(shown):,} more" if len(shown) < len(ids) else ""
    listed = f": {' '.join(map(str, shown))}{more}" if ids else ""
    click.echo(f"{counted(len(ids), 'job')} {action.done}{listed}")


def _tell_unchanged(manager: JobManager, action: Action, ids: Sequence[int]) -> ExitCode:
    """Tell of the named jobs that were not changed, and why."""
    if not ids:
        return ExitCode.OK
    found = {job.id: job.status for job in manager.list_jobs(id=ids, limit=len(ids))}
    for job_id in ids:
        click.echo(f"error: {_why(action, job_id, found.get(job_id))}", err=True)
    return ExitCode.ERROR


def _why(action: Action, job_id: int, status: Status | None) -> str:
    if status is None:
        return f"there is no job {job_id}"
    told = f"job {job_id} was not {action.done}: it is {status}"
    if action is RETRY and status in action.possible:
        return f"{told}, and a job with its queueing lock waits, or it does not match the filters"
    if action in (CANCEL, DELETE) and status is Status.DOING:
        return f"{told}, and `abort` asks running jobs to end"
    return told
