"""``procrastinate queues``: the queues at a glance, or all jobs counted by queue, task or lock."""

from __future__ import annotations

import sys
from dataclasses import astuple, fields
from typing import Any

import click

from procrastinate.cli import filters, glances, pausing, records, tables
from procrastinate.cli.groups import completed
from procrastinate.cli.options import Option
from procrastinate.cli.settings import settings_of
from procrastinate.storage.jobs import Counts

KINDS = ("queue", "task", "lock")

_FILTERS: list[click.Parameter] = [filters.queue(), filters.task(), filters.lock()]
_JSON = Option(["--json"], is_flag=True, help="Print one JSON object a line.")
_BY = Option(
    ["--by"],
    type=click.Choice(KINDS),
    help="Count all jobs by this.",
)
_COUNT_ALL = Option(
    ["--count-all"], is_flag=True, help="Count all jobs, by status, however long that takes."
)


@click.group("queues", params=[*_FILTERS, _BY, _COUNT_ALL, _JSON], invoke_without_command=True)
@click.pass_context
def queues(ctx: click.Context, /, by: str | None, count_all: bool, **given: Any) -> None:
    """Show the queues that have something to see, or are paused; or pause and resume one.

    That takes no longer if there are millions of jobs: at most 20,000 are counted, and a + behind a
    number says that there may be more. For how long the oldest ready job has waited stands beside.

    With --by, --count-all or a filter, all jobs that match are counted by status, which takes a
    while where there are millions.

    A terminal gets a table. Elsewhere each queue is a line of fields separated by tabs, below a
    line with their names.
    """
    if ctx.invoked_subcommand is not None:
        return
    if by or count_all or filters.chosen(given):
        show_counts(ctx, by or "queue", given)
    else:
        with settings_of(ctx).open_app() as app:
            glances.show_queues(app, as_json=given["json"])


for _command in (pausing.pause, pausing.resume):
    queues.add_command(completed(_command))


def listing(by: str) -> click.Command:
    """Return the shell's command that counts by one thing."""

    @click.pass_context
    def callback(ctx: click.Context, /, **given: Any) -> None:
        show_counts(ctx, by, given)

    return click.Command(
        f"list_{by}s",
        callback=callback,
        params=[*_FILTERS, _JSON],
        help=f"Count jobs by {by}, in all and by status.",
    )


def show_counts(ctx: click.Context, by: str, given: dict[str, Any]) -> None:
    """Print the counts, as the terminal or ``--json`` wants them."""
    which = filters.chosen(given)
    with settings_of(ctx).open_app() as app:
        manager = app.job_manager
        count = {"queue": manager.list_queues, "task": manager.list_tasks}.get(
            by, manager.list_locks
        )
        found = count(**which)
    if given["json"]:
        sys.stdout.write(records.lines([records.counts_line(each) for each in found]))
    elif not found:
        click.echo("no jobs match", err=True)
    elif sys.stdout.isatty():
        tables.print_counts(found, by)
    else:
        head = "\t".join(field.name for field in fields(Counts))
        sys.stdout.write(records.lines([head, *(records.tabbed(astuple(each)) for each in found)]))
