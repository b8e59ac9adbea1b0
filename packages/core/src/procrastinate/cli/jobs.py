"""``procrastinate jobs``: a list of those that match, or everything about some."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import click

from procrastinate.app.app import App
from procrastinate.app.searching_jobs import MOST
from procrastinate.cli import changes, details, filters, paging, records, tables
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Id
from procrastinate.cli.verbs import WithVerbs
from procrastinate.cli.why import why
from procrastinate.errors import InvalidOption
from procrastinate.model.job import Job
from procrastinate.model.text.printable import counted

SHOWN = 50  # jobs, unless another number is asked for

_FIELDS = (
    "id", "state", "queue", "task_name", "task_kwargs", "attempts", "scheduled_at", "started_at",
    "finished_at",
)  # fmt: skip

_OPTIONS: list[click.Parameter] = [
    click.Argument(["ids"], type=Id(), nargs=-1, metavar="[ID]..."),
    Option(
        ["--id"],
        type=Id(),
        multiple=True,
        help="Only the jobs with these ids, as a list. May be given several times.",
    ),
    *filters.all_filters(),
    Option(
        ["--limit"],
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Show at most this number of jobs. Default: {SHOWN}, or all as JSON.",
    ),
    Option(["--all"], is_flag=True, help="Show all that match, however many."),
    Option(
        ["--after-id"],
        type=Id(),
        help="Go on behind this job: the last one of the page before.",
    ),
    Option(
        ["--cursor"],
        metavar="TEXT",
        help="Go on with a search: what it said at its end, with the same filters.",
    ),
    Option(
        ["--newest-first/--oldest-first"],
        default=None,
        help="List in this order of ids, which is that of deferring, and read what that takes."
        " Default: what runs or waits in its order, then what ended, the newest first.",
    ),
    Option(["--errors"], is_flag=True, help="Show the last error instead of the arguments."),
    Option(["--json"], is_flag=True, help="Print one JSON object a line, with everything."),
]


@click.command("jobs", params=_OPTIONS, cls=WithVerbs)
@click.pass_context
def jobs(ctx: click.Context, /, ids: tuple[int, ...], **given: Any) -> int:
    """Show jobs: a list, or everything about those with these IDs.

    A list looks at 10,000 jobs, in an order in which that finds those that matter: what runs or
    waits in its order, if such a state is asked for, and else the newest first. If that is not
    enough it says so, and how to go on. All jobs are looked at for --all, or in an order of ids.

    A terminal gets a table in local time. Elsewhere each job is a line of fields separated by
    tabs, below a line with their names, times in ISO 8601. With --json each job is a line with
    one JSON object, of all there is; jobs are read page by page, so that there may be millions.

    \b
      procrastinate jobs --state failed --since 14:00 --error ConnectionError
      procrastinate jobs --state ready --queue mail
      procrastinate jobs why 12
      procrastinate jobs retry --error ConnectionError --since 14:00
      procrastinate jobs 12
      procrastinate jobs --queue mail --json > jobs.jsonl
    """
    if ids and _typed(ctx) - {"ids", "json"}:
        raise click.UsageError("an ID shows this job whole; filters are for lists: --id ID", ctx)
    limit = _limit(ctx, given)
    searches = _searches(limit, given)
    if given["cursor"] and not searches:
        raise click.UsageError("--cursor goes on with a search: not with an order, or --all", ctx)
    with settings_of(ctx).open_app() as app:
        if ids:
            return details.show(app, ids, as_json=given["json"])
        if searches:
            _print_search(app, filters.chosen(given), limit or SHOWN, given)
            return ExitCode.OK
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


def _searches(limit: int | None, given: dict[str, Any]) -> bool:
    """Whether a list is to be found with bounded effort: it has a limit and no order."""
    return limit is not None and given["after_id"] is None and given["newest_first"] is None


def _print_search(app: App, which: dict[str, Any], limit: int, given: dict[str, Any]) -> None:
    cursor, room, looked_at = given["cursor"], limit, 0
    while True:
        try:
            page = app.job_manager.search_jobs(**which, cursor=cursor, limit=min(room, MOST))
        except InvalidOption as exc:
            raise click.UsageError(str(exc)) from exc
        if given["json"]:
            _print_json(app, iter(page.jobs))
        elif page.jobs:
            _print_page(app, page.jobs, given["errors"], first=room == limit)
        room, cursor, looked_at = room - len(page.jobs), page.cursor, looked_at + page.looked_at
        if not room or cursor is None or not page.is_complete:
            break
    sys.stdout.flush()
    _tell_the_rest(cursor, found=limit - room, full=not room, looked_at=looked_at)


def _tell_the_rest(cursor: str | None, *, found: int, full: bool, looked_at: int) -> None:
    """Say whether there is more, and how to see it."""
    if cursor is None:
        if not found:
            click.echo("no jobs match", err=True)
    elif full:
        click.echo(f"there may be more: --cursor {cursor} shows the next ones, --all all", err=True)
    else:
        some = f"{counted(found, 'job')} found" if found else "no jobs found"
        click.echo(
            f"{some} after looking at {counted(looked_at, 'job')}: --cursor {cursor} goes on,"
            " --all looks at every job",
            err=True,
        )


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
        job.state.value,
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


jobs.verbs = {
    "why": why,
    "retry": changes.retry,
    "cancel": changes.cancel,
    "abort": changes.abort,
}
