"""``procrastinate jobs``: a list of those that match, or everything about some."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import click

from procrastinate.app.app import App
from procrastinate.cli import details, filters, paging, records, tables
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Id
from procrastinate.model.job import Job

SHOWN = 50  # jobs, unless another number is asked for

_FIELDS = (
    "id", "status", "queue", "task_name", "task_kwargs", "attempts", "scheduled_at", "started_at",
    "finished_at",
)  # fmt: skip

_OPTIONS: list[click.Parameter] = [
    click.Argument(["ids"], type=Id(), nargs=-1, metavar="[ID]..."),
    click.Option(
        ["--id"],
        type=Id(),
        multiple=True,
        help="Only the jobs with these ids, as a list. May be given several times.",
    ),
    *filters.all_filters(),
    click.Option(
        ["--limit"],
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Show at most this number of jobs. Default: {SHOWN}, or all as JSON.",
    ),
    click.Option(["--all"], is_flag=True, help="Show all that match, however many."),
    click.Option(
        ["--after-id"],
        type=Id(),
        help="Go on behind this job: the last one of the page before.",
    ),
    click.Option(
        ["--newest-first/--oldest-first"],
        help="The order, by id, which is that of deferring. Default: the oldest first.",
    ),
    click.Option(["--errors"], is_flag=True, help="Show the last error instead of the arguments."),
    click.Option(["--json"], is_flag=True, help="Print one JSON object a line, with everything."),
]


@click.command("jobs", params=_OPTIONS)
@click.pass_context
def jobs(ctx: click.Context, /, ids: tuple[int, ...], **given: Any) -> int:
    """Show jobs: a list, or everything about those with these IDs.

    A terminal gets a table in local time. Elsewhere each job is a line of fields separated by
    tabs, below a line with their names, times in ISO 8601. With --json each job is a line with
    one JSON object, of all there is; jobs are read page by page, so that there may be millions.

    \b
      procrastinate jobs --status failed --errors
      procrastinate jobs 12
      procrastinate jobs --queue mail --json > jobs.jsonl
    """
    if ids and _typed(ctx) - {"ids", "json"}:
        raise click.UsageError("an ID shows this job whole; filters are for lists: --id ID", ctx)
    limit = _limit(ctx, given)
    with settings_of(ctx).open_app() as app:
        if ids:
            return details.show(app, ids, as_json=given["json"])
        _print_list(app, _matching(app, filters.chosen(given), limit, given), limit, given)
    return ExitCode.OK


def _limit(ctx: click.Context, given: dict[str, Any]) -> int | None:
    """Return how many jobs to show; None: all. What was typed outdoes the environment."""
    if given["all"] and given["limit"]:
        typed = _typed(ctx) & {"all", "limit"}
        if len(typed) != 1:
            raise click.UsageError("--all and --limit exclude each other; give one of them", ctx)
        return None if "all" in typed else given["limit"]
    if given["all"]:
        return None
    return given["limit"] or (None if given["json"] else SHOWN)


def _typed(ctx: click.Context) -> set[str]:
    """Return the names of the parameters that stand on the command line."""
    return {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _matching(
    app: App, which: dict[str, Any], limit: int | None, given: dict[str, Any]
) -> Iterator[Job]:
    """Yield the jobs that match; one more than ``limit`` is read at once, to know of it."""
    page = paging.PAGE if limit is None else min(paging.PAGE, limit + 1)
    after_id = given["after_id"]
    if given["newest_first"]:
        return paging.newest_first(app.job_manager, which, before_id=after_id, page=page)
    return paging.oldest_first(app.job_manager, which, after_id=after_id, page=page)


def _print_list(app: App, found: Iterator[Job], limit: int | None, given: dict[str, Any]) -> None:
    wanted = itertools.islice(found, limit)
    if given["json"]:
        _print_json(app, wanted)
        return
    last = None
    for page in _pages(wanted):
        _print_page(app, page, given["errors"], first=last is None)
        last = page[-1]
    sys.stdout.flush()
    if last is None:
        click.echo("no jobs match", err=True)
    elif next(found, None) is not None:
        click.echo(f"there are more: --after-id {last.id} shows the next ones, --all all", err=True)


def _print_json(app: App, found: Iterator[Job]) -> None:
    for page in _pages(found):
        sys.stdout.write(records.lines([records.job_line(job, app.connector) for job in page]))
        sys.stdout.flush()


def _print_page(app: App, page: list[Job], errors: bool, *, first: bool) -> None:
    if sys.stdout.isatty():
        tables.print_jobs(page, app.connector, errors=errors)
        return
    names = (*_FIELDS, "last_error") if errors else _FIELDS
    head = ["\t".join(names)] if first else []
    sys.stdout.write(records.lines([*head, *(_fields(job, app, errors) for job in page)]))


def _fields(job: Job, app: App, errors: bool) -> str:
    times = (job.scheduled_at, job.started_at, job.finished_at)
    values = [
        job.id,
        job.status.value,
        job.queue,
        job.task_name,
        records.arguments(job, app.connector),
        job.attempts,
        *(records.iso(each) for each in times),
    ]
    return records.tabbed([*values, records.last_error(job)] if errors else values)


def _pages(found: Iterator[Job]) -> Iterator[list[Job]]:
    while page := list(itertools.islice(found, paging.PAGE)):
        yield page
