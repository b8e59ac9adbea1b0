"""``procrastinate queues pause`` and ``resume``.

No option is taken from the environment: one that is not on the command line would be overlooked.
"""

from __future__ import annotations

import getpass
from datetime import datetime

import click

from procrastinate.app.job_manager import JobManager
from procrastinate.app.queue_manager import BY_LENGTH, REASON_LENGTH
from procrastinate.cli import completing
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Coming, Name
from procrastinate.model import checks
from procrastinate.model.queues import EVERY_QUEUE, SPARED, Pause
from procrastinate.model.states import Status
from procrastinate.model.text.printable import line
from procrastinate.storage.search import BUDGET

UNENDED = [status for status in Status if not status.is_final]


def _queue() -> click.Argument:
    return click.Argument(
        ["queue"],
        metavar="NAME",
        type=Name("queue", checks.check_name),
        shell_complete=completing.queue_names,
    )


def _check_reason(option: str, value: object) -> str:
    return checks.check_text(option, value, REASON_LENGTH)


_REASON = Option(
    ["--reason"],
    type=Name("reason", _check_reason),
    help="Why, for those who look.",
    allow_from_autoenv=False,
)
_UNTIL = Option(
    ["--until"],
    type=Coming(),
    help="When the pause ends by itself: 2h (from now), or 2030-01-31T08:00:00+01:00, Z for UTC.",
    allow_from_autoenv=False,
)


@click.command("pause", params=[_queue(), _REASON, _UNTIL])
@click.pass_context
def pause(ctx: click.Context, /, queue: str, reason: str | None, until: datetime | None) -> None:
    """Let no worker start a job of the queue NAME.

    Jobs that run, run on, and jobs are deferred to the queue as ever. Pausing again replaces the
    reason and the end. The NAME "*" pauses every queue except builtin.
    """
    with settings_of(ctx).open_app() as app:
        made = app.queue_manager.pause(queue, reason=reason, until=until, by=_user())
        note = None if queue == EVERY_QUEUE else _note(app.job_manager, queue)
    click.echo(f"{_paused(made)} until {_end(made)}")
    if note is not None:
        click.echo(f"note: {note}", err=True)


@click.command("resume", params=[_queue()])
@click.pass_context
def resume(ctx: click.Context, /, queue: str) -> None:
    """End the pause of the queue NAME; "*" ends that of all queues.

    A queue that was paused by its name and by "*" stays paused until both have ended.
    """
    with settings_of(ctx).open_app() as app:
        was_paused = app.queue_manager.resume(queue)
        others = [each for each in app.queue_manager.list_pauses() if each.covers(queue)]
    if not was_paused:
        click.echo(f"error: there is no pause of {_named(queue)}", err=True)
    else:
        click.echo(f"the pause of {_named(queue)} has ended")
    for each in others:
        click.echo(f"note: {_paused(each)} until {_end(each)}", err=True)
    if not was_paused:
        ctx.exit(ExitCode.ERROR)


def _note(manager: JobManager, queue: str, *, budget: int = BUDGET) -> str | None:
    """Return what to say of a queue if no job of it is found: its name may be mistyped.

    Jobs that wait or run are looked for apart, because millions may have ended since.
    """
    page = manager.search_jobs(queue=queue, limit=1, budget=budget)
    if page.jobs:
        return None
    if page.is_complete:
        return f"queue {line(queue)} has no jobs so far"
    if manager.search_jobs(queue=queue, status=UNENDED, limit=1, budget=budget).jobs:
        return None
    return f"no job of queue {line(queue)} was found: is the name right?"


def _paused(pause: Pause) -> str:
    verb = "are" if pause.queue == EVERY_QUEUE else "is"
    return f"{_named(pause.queue)} {verb} paused"


def _named(queue: str) -> str:
    return f"all queues but {SPARED}" if queue == EVERY_QUEUE else f"queue {line(queue)}"


def _end(pause: Pause) -> str:
    if pause.until is None:
        return f"`queues resume {line(pause.queue)}`"
    return pause.until.isoformat(timespec="seconds")


def _user() -> str | None:
    """Return the name of who runs the program, as far as the system knows it."""
    try:
        return checks.check_text("user", getpass.getuser(), BY_LENGTH)
    except Exception:  # a container's user may have no name, or one that cannot be stored
        return None
