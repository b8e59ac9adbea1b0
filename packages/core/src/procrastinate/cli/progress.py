"""The progress bar of ``procrastinate defer TASK -``, where stderr is a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from procrastinate.cli import json_lines
from procrastinate.model.text.printable import counted


class TerminalProgress(json_lines.Progress):
    """Shows jobs, jobs a second and, where the size of the input is known, how far it is."""

    def __init__(self, total: int | None) -> None:
        self._bar = Progress(
            TextColumn("deferring"),
            BarColumn(bar_width=None),
            _Jobs(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("defer", total=total or None, jobs=0)

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def update(self, jobs: int, read: int) -> None:
        self._bar.update(self._task, completed=read, jobs=jobs)


class _Jobs(ProgressColumn):
    def render(self, task: Task) -> Text:
        jobs = task.fields["jobs"]
        rate = jobs / task.elapsed if task.elapsed else 0.0
        return Text(f"{counted(jobs, 'job')}, {rate:,.0f}/s")
