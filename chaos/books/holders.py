"""Who held a job or a lock, and whether a fault took it away: rules 3 and 4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from chaos.books.shelf import Books
from chaos.records import Complaint, Run


def extra_runs(books: Books) -> Iterator[Complaint]:
    """Rule 3: runs that no failure and no fault explains."""
    for runs in books.runs.values():
        for earlier, later in pairwise(runs):
            if earlier.outcome == "failed" and _is_before(books.end_of(earlier), later.began):
                continue
            if not books.windows.explain(earlier, later.began):
                near = (
                    books.windows.around(earlier) + f"; died: {books.deaths.get(earlier.process)}"
                )
                yield Complaint("extra run", f"{later} after {earlier}{near}")
    for job in books.stored.values():
        if job.attempts < len({run.attempt for run in books.runs[job.id]}):
            yield Complaint("extra run", f"more attempts ran than are counted: {job}")


def _is_before(one: datetime | None, two: datetime) -> bool:
    return one is not None and one <= two


def overlaps(books: Books) -> Iterator[Complaint]:
    """Rule 4: two jobs with one lock at a time."""
    lines: dict[str, list[Run]] = defaultdict(list)
    for job in books.stored.values():
        if job.lock is not None:
            lines[job.lock] += books.runs[job.id]
    for line in lines.values():
        yield from _overlaps_of(books, sorted(line, key=lambda run: run.began))


def _overlaps_of(books: Books, line: Sequence[Run]) -> Iterator[Complaint]:
    open_runs: list[tuple[datetime, Run]] = []
    for run in line:
        open_runs = [(end, each) for end, each in open_runs if end > run.began]
        for _, earlier in open_runs:
            if earlier.job_id != run.job_id and not books.windows.explain(earlier, run.began):
                yield Complaint(
                    "two holders of a lock", f"{earlier} and {run}{books.windows.around(earlier)}"
                )
        end = books.end_of(run)
        if end is not None:
            open_runs.append((end, run))
