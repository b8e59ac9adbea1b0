"""The tables and sentences at the end."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from procrastinate.model.text.printable import counted
from procrastinate_embedded.demo import files
from procrastinate_embedded.demo.crash import Proof
from procrastinate_embedded.demo.summary import Failure, Summary

SHOWN = 10  # files of a kind that are named


def show_summary(console: Console, summary: Summary) -> None:
    """Print the numbers."""
    table = Table(title="What came of the jobs", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    times = summary.times
    rows = (
        ("files", f"{summary.files:,}", ""),
        ("read", f"{summary.done:,}", f"{_size(summary.bytes_read)}, {summary.lines:,} lines"),
        ("failed", f"{summary.failed:,}", ""),
        ("jobs/s", _speed(summary), f"in {summary.seconds or 0:.1f} s"),
        ("waiting, p50 and p99", _seconds(times.waiting_p50), _seconds(times.waiting_p99)),
        ("running, p50 and p99", _seconds(times.running_p50), _seconds(times.running_p99)),
        ("retries", f"{summary.retries:,}", ""),
    )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def show_failures(console: Console, folder: bytes, failures: list[Failure], total: int) -> None:
    """Print the failed jobs with the errors that are stored in them."""
    table = Table(title="Failed, with the stored errors", title_justify="left")
    for heading in ("file", "attempts", "error"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading == "attempts" else "left"
        )
    for each in failures:
        error = Text(f"{each.kind.removeprefix('builtins.')}: {_printable(each.message)}")
        table.add_row(Text(shown_below(folder, each.path)), str(each.attempts), error)
    console.print(table)
    _say_how_many_more(console, total - len(failures))


def show_lost(console: Console, folder: bytes, lost: list[tuple[str, str]], total: int) -> None:
    """Print the files that were neither read nor failed: there should be none, ever."""
    for path, status in lost:
        _say(console, f"LOST: {shown_below(folder, path)} ({status})", "bold red")
    _say_how_many_more(console, total - len(lost))


def _say_how_many_more(console: Console, number: int) -> None:
    if number > 0:
        _say(console, f"... and {number:,} more")


def show_verdict(console: Console, summary: Summary) -> None:
    """Print the last word on the files."""
    if summary.lost:
        _say(console, f"{summary.lost:,} of {summary.files:,} files were lost.", "bold red")
    elif summary.failed:
        _say(
            console,
            f"Every file is done: {summary.done:,} read; {summary.failed:,} failed, for the reasons"
            " above.",
            "green",
        )
    else:
        _say(console, f"Every file is done: {summary.done:,} read.", "green")


def show_proof(console: Console, proof: Proof) -> None:
    """Print what the crash did, and did not do."""
    again = "none of them" if proof.ran_again == 0 else f"{proof.ran_again:,} OF THEM"
    _say(
        console,
        f"{proof.ended_before:,} jobs had ended before the kill: {again} ran again (attempts,"
        " worker and times are what they were, each result was stored once).",
        "green" if proof.ran_again == 0 else "bold red",
    )
    if proof.held == 0:
        _say(console, "The killed worker held no job: there was nothing to recover.")
        return
    twice = ""
    if proof.stored_twice:
        twice = f" {proof.stored_twice:,} had stored their result already, and stored it again."
    _say(
        console,
        f"the killed worker held {counted(proof.held, 'job')}: {proof.recovered:,} recovered"
        f" and brought to their end by the other worker.{twice}",
        "green" if proof.recovered == proof.held else "bold red",
    )


def shown_below(folder: bytes, path: str) -> str:
    """Return an encoded path for people, without the folder that all files are in."""
    return files.shown(os.path.relpath(files.decoded(path), folder))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


def _speed(summary: Summary) -> str:
    ended = summary.done + summary.failed
    return f"{ended / summary.seconds:,.0f}" if summary.seconds else "-"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
