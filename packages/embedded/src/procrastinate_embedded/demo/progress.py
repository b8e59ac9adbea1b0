"""Telling how far the jobs are: bars on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from procrastinate_embedded.demo.counts import Counts

LINE_EVERY = 2.0  # seconds between lines where the output is no terminal


class Display(Protocol):
    """What shows the progress of the deferring and of the jobs."""

    def deferred(self, number: int) -> None: ...

    def done(self, counts: Counts) -> None: ...

    def note(self, text: str) -> None: ...


@contextmanager
def display(console: Console, total: int) -> Iterator[Display]:
    """Yield the display that suits the console, for ``total`` files."""
    if not console.is_terminal:
        yield Lines(console, total)
        return
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, total)


class Speed:
    """Jobs a second since the first look at them."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def at(self, ended: int) -> str:
        """Return the speed in words, empty before there is one."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, ended)
        began, before = self._began
        return f"{(ended - before) / (now - began):,.0f}/s" if ended > before else ""


class Bars:
    """Two bars: jobs deferred, and jobs done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._deferred = progress.add_task("deferred", total=total, what="")
        self._done = progress.add_task("done", total=total, what="", start=False)
        self._speed = Speed()

    def deferred(self, number: int) -> None:
        """Show how many jobs have been deferred."""
        self._progress.update(self._deferred, completed=number)

    def done(self, counts: Counts) -> None:
        """Show how the jobs are."""
        self._progress.start_task(self._done)
        what = ", ".join(each for each in (self._speed.at(counts.ended), counts.remarks) if each)
        self._progress.update(self._done, completed=counts.ended, what=what)

    def note(self, text: str) -> None:
        """Say something above the bars."""
        self._progress.console.print(Text(text))


class Lines:
    """The same in lines of text, for a file or a pipe."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._speed = Speed()
        self._next = 0.0

    def deferred(self, number: int) -> None:
        """Say how many jobs have been deferred."""
        self._now_and_then(f"deferred {number:,} of {self._total:,} jobs", number == self._total)

    def done(self, counts: Counts) -> None:
        """Say how the jobs are."""
        parts = (f"done {counts.ended:,} of {self._total:,}", self._speed.at(counts.ended))
        text = ", ".join(each for each in (*parts, counts.remarks) if each)
        self._now_and_then(text, counts.ended == self._total)

    def note(self, text: str) -> None:
        """Say something."""
        self._console.print(Text(text), soft_wrap=True)

    def _now_and_then(self, text: str, is_last: bool) -> None:
        if is_last or time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY
            self.note(text)
