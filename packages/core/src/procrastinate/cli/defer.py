"""``procrastinate defer``: one job, or one for each line of standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, BinaryIO

import click

from procrastinate.app.app import App
from procrastinate.app.deferring import JobDeferrer
from procrastinate.cli import completing, json_lines, results
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Duration, Moment
from procrastinate.errors import AlreadyEnqueued, InvalidOption, TaskNotFound
from procrastinate.model.text.printable import counted

MANY = 20  # ids: more are not printed to a terminal unasked


@click.command("defer")
@click.argument("task", shell_complete=completing.task_names)
@click.argument("arguments", metavar="[JSON | -]", required=False)
@option("--queue", help="The jobs' queue. By default the task's own.")
@option("--priority", type=int, help="Jobs of larger priority run first. Default: the task's.")
@option("--lock", help="Jobs with the same lock run one after the other.")
@option("--queueing-lock", help="Only one job with this queueing lock may wait.")
@option(
    "--partition-key",
    help="On a distributed database, jobs with the same key are kept together. A plain server"
    " ignores it.",
)
@option(
    "-i",
    "--ignore-already-enqueued",
    is_flag=True,
    help="Where a job with the queueing lock waits already, defer nothing and end well.",
)
@option("--at", "at", type=Moment(), help="When to run: ISO 8601 with a time zone.")
@option(
    "--in",
    "in_",
    type=Duration(),
    envvar="PROCRASTINATE_DEFER_IN",
    allow_from_autoenv=False,
    show_envvar=True,
    help="Run after that time: seconds, or 5m, 1h30m, 2d.",
)
@option("--unknown/--no-unknown", help="Also defer a task that the app does not know.")
@option(
    "--commit-every",
    type=click.IntRange(min=1),
    metavar="LINES",
    help="With -: commit so often. By default all lines are one transaction, all or nothing.",
)
@option(
    "--print-ids/--no-print-ids",
    default=None,
    help="Print the jobs' ids to stdout, one a line. By default always,"
    f" except more than {MANY} to a terminal.",
)
@option(
    "--wait/--no-wait",
    help="Wait for the job's end, and print its result as JSON in place of its id.",
)
@option(
    "--timeout",
    type=Duration(),
    help="With --wait: how long. Seconds, or 5m, 1h30m, 2d. By default as long as it takes.",
)
@click.pass_context
def defer(
    ctx: click.Context,
    /,
    task: str,
    arguments: str | None,
    *,
    unknown: bool,
    print_ids: bool | None,
    ignore_already_enqueued: bool,
    commit_every: int | None,
    wait: bool,
    timeout: timedelta | None,
    **options: Any,
) -> ExitCode:
    """Defer jobs of TASK.

    JSON is an object with the task's arguments by name; without it the task gets none. With -
    each line of stdin is such an object and becomes a job; empty lines are skipped.

    With --wait the exit code says how the job ended, and stdout has its result, if its task was
    registered with result=True. A wait that is over or interrupted leaves the job as it is.

    A line that cannot be deferred is named by its number, and then nothing of the input was
    deferred (with --commit-every: nothing since the last commit).

    \b
      procrastinate -a shop.app defer shop.send_mail '{"to": "ann@example.org"}'
      procrastinate -a shop.app defer shop.send_mail - < addresses.jsonl
    """
    if commit_every is not None and arguments != "-":
        raise click.UsageError("--commit-every is for jobs from stdin (-)", ctx)
    if wait and (arguments == "-" or print_ids):
        raise click.UsageError("--wait is for one job, and prints its result in place of ids", ctx)
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to --wait", ctx)
    if options["at"] is not None and options["in_"] is not None:
        raise click.UsageError("--at and --in exclude each other; give one of them", ctx)
    app = settings_of(ctx).load_app()
    deferrer = _deferrer(app, task, unknown, **options)
    if arguments == "-":
        ids = _defer_stdin(app, deferrer, ignore_already_enqueued, commit_every)
    else:
        kwargs = json_lines.arguments("{}" if arguments is None else arguments, app.connector)
        with app.open():
            ids = _defer_one(deferrer, kwargs, ignore_already_enqueued)
            if wait and ids:
                return results.wait_and_print(app, ids[0], timeout)
    if print_ids or (print_ids is None and (len(ids) <= MANY or not sys.stdout.isatty())):
        click.echo("".join(f"{job_id}\n" for job_id in ids), nl=False)
    return ExitCode.OK


def _deferrer(app: App, task: str, unknown: bool, **options: Any) -> JobDeferrer[..., Any]:
    names = {"at": "schedule_at", "in_": "schedule_in"}
    given = {names.get(name, name): value for name, value in options.items() if value is not None}
    app.perform_import_paths()
    try:
        return app.configure_task(task, allow_unknown=unknown, **given)
    except TaskNotFound as exc:
        raise TaskNotFound(f"{exc}; or give --unknown to defer it all the same") from exc
    except InvalidOption as exc:
        raise click.UsageError(str(exc)) from exc


def _defer_one(
    deferrer: JobDeferrer[..., Any], kwargs: Mapping[str, Any], ignore_already_enqueued: bool
) -> list[int]:
    try:
        return deferrer.batch_defer(kwargs)
    except AlreadyEnqueued as exc:
        if not ignore_already_enqueued:
            raise
        click.echo(str(exc), err=True)
        return []


def _defer_stdin(
    app: App,
    deferrer: JobDeferrer[..., Any],
    ignore_already_enqueued: bool,
    commit_every: int | None,
) -> list[int]:
    stdin = sys.stdin.buffer
    with app.open(), progress_bar(size_of(stdin)) as progress:
        deferred = json_lines.defer_lines(
            deferrer,
            stdin,
            one_by_one=ignore_already_enqueued,
            commit_every=commit_every,
            progress=progress,
        )
    already = f", {deferred.ignored:,} waiting already" if deferred.ignored else ""
    click.echo(f"deferred {counted(len(deferred.ids), 'job')}{already}", err=True)
    return deferred.ids


def size_of(stream: BinaryIO) -> int | None:
    """Return how many bytes are to be read, where that is known: of a file, not of a pipe."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def progress_bar(total: int | None) -> json_lines.Progress:
    """Return a progress bar on stderr, or one that shows nothing where that is no terminal."""
    if not sys.stderr.isatty():
        return json_lines.Progress()
    from procrastinate.cli.progress import TerminalProgress

    return TerminalProgress(total)
