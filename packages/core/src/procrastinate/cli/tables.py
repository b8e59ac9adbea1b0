"""Tables for people: jobs and counts, in as many columns as the terminal has room for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, NamedTuple

from procrastinate.cli.records import arguments, last_error, printable
from procrastinate.connector import Connector
from procrastinate.model.job import Job, Status
from procrastinate.storage.jobs import Counts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

ENOUGH = 200  # characters of a cell: no terminal shows more of a line

#: From how many columns of the terminal on a column of the table is shown.
WIDE, MEDIUM, NARROW = 72, 50, 0

STYLES = {
    Status.TODO: "",
    Status.DOING: "bold cyan",
    Status.SUCCEEDED: "green",
    Status.FAILED: "bold red",
    Status.CANCELLED: "yellow",
    Status.ABORTED: "yellow",
}


class Heading(NamedTuple):
    """What stands above a column of texts, and how much room the column needs."""

    header: str
    from_width: int = NARROW
    right: bool = False
    shrinks: bool = False


class Column(NamedTuple):
    """A column of the table of jobs, with how it gets its text."""

    header: str
    text: Callable[[Job], str]
    from_width: int = NARROW
    right: bool = False
    shrinks: bool = False


def print_jobs(jobs: Sequence[Job], connector: Connector, *, errors: bool) -> None:
    """Print a table of jobs; with ``errors`` it shows the last error of each."""
    from rich.text import Text

    console = _console()
    columns = [
        column
        for column in _columns(connector, errors, local_zone())
        if console.width >= column.from_width
    ]
    table = _table(console)
    for column in columns:
        _add(table, column.header, right=column.right, shrinks=column.shrinks)
    for job in jobs:
        cells = [_cell(column.text(job)) for column in columns]
        cells[1] = Text(job.state.value, STYLES[job.status], no_wrap=True)
        table.add_row(*cells)
    _print(console, table)


def print_counts(counts: Sequence[Counts], what: str) -> None:
    """Print a table of counts by queue, task or lock; without room, of what is under way."""
    console = _console()
    wide = console.width >= WIDE
    shown = tuple(Status) if wide else (Status.TODO, Status.DOING, Status.FAILED)
    table = _table(console)
    _add(table, what, shrinks=True)
    for name in ("jobs", *shown):
        _add(table, name, right=True)
    for each in counts:
        numbers = [each.jobs_count, *(getattr(each, status.value) for status in shown)]
        table.add_row(_cell(each.name), *(_cell(f"{number:,}") for number in numbers))
    _print(console, table)


def print_rows(columns: Sequence[Heading], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of texts, in those of the columns for which the terminal has room."""
    console = _console()
    shown = [place for place, each in enumerate(columns) if console.width >= each.from_width]
    table = _table(console)
    for place in shown:
        each = columns[place]
        _add(table, each.header, right=each.right, shrinks=each.shrinks)
    for row in rows:
        table.add_row(*(_cell(row[place]) for place in shown))
    _print(console, table)


def local_zone() -> tzinfo:
    """Return the local zone as the fixed distance from UTC that it has now.

    One for all of a table, so that its times can be compared whatever the season.
    """
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    return zone


def zone_name(zone: tzinfo) -> str:
    """Return a zone as its distance from UTC: UTC, or UTC+01:00."""
    distance = datetime.now(zone).strftime("%z")
    return "UTC" if distance == "+0000" else f"UTC{distance[:3]}:{distance[3:5]}"


def _columns(connector: Connector, errors: bool, zone: tzinfo) -> list[Column]:
    def cell_of_arguments(job: Job) -> str:
        return arguments(job, connector)[:ENOUGH]

    this_year = datetime.now(zone).year
    return [
        Column("id", lambda job: str(job.id), right=True),
        Column("state", lambda job: job.state.value),
        Column("queue", lambda job: job.queue, WIDE, shrinks=True),
        Column("task", lambda job: job.task_name, shrinks=True),
        Column("last error", last_error, shrinks=True)
        if errors
        else Column("arguments", cell_of_arguments, WIDE, shrinks=True),
        Column("tries", lambda job: str(job.attempts), WIDE, right=True),
        Column(
            f"due, started\nor ended\n{zone_name(zone)}",
            lambda job: _shortened(_latest(job).astimezone(zone), this_year),
            MEDIUM,
        ),
    ]


def _latest(job: Job) -> datetime:
    """Return the time that belongs to the status: when the job is due, started or ended."""
    if job.status is Status.TODO:
        found = job.scheduled_at
    elif job.status is Status.DOING:
        found = job.started_at
    else:
        found = job.finished_at
    moment = found or job.deferred_at
    assert moment is not None
    return moment


def _shortened(moment: datetime, this_year: int) -> str:
    """Return a time to the second; one of another year as the date and the minute."""
    return f"{moment:%m-%d %H:%M:%S}" if moment.year == this_year else f"{moment:%Y-%m-%d %H:%M}"


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(printable(text[:ENOUGH]), no_wrap=True, overflow="ellipsis")


def _add(table: Table, header: str, *, right: bool = False, shrinks: bool = False) -> None:
    table.add_column(header, justify="right" if right else "left", no_wrap=not shrinks)


def _table(console: Console) -> Table:
    from rich import box
    from rich.table import Table

    lines = box.SIMPLE_HEAD
    if console.options.ascii_only:
        lines = box.Box(str(lines).replace("─", "-"), ascii=True)
    return Table(box=lines, show_edge=False, pad_edge=False, collapse_padding=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _print(console: Console, table: Table) -> None:
    """Print a table, also where the terminal cannot show the sign for what was cut off."""
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    if console.options.ascii_only:
        text = text.replace("…", "~")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.splitlines()))
