"""When jobs began, and in which order: rules 6 to 10, and 13."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise

from chaos.books.shelf import Books
from chaos.records import TICK, Asked, Complaint, Run, Stored, Terms, Trouble

WAITING_SLACK = timedelta(seconds=1)  # from a claim to the row that its run writes
#: A worker that was cut off may need as long until it hears notifications again.
HEARING_AGAIN = timedelta(seconds=20)


def order(books: Books) -> Iterator[Complaint]:
    """Rule 6: of two jobs that were surely in line, the first by (priority, id) begins first."""
    lines: dict[str, list[tuple[Asked, Stored, Run]]] = defaultdict(list)
    for asked, job, run in _undisturbed(books):
        if job.lock is not None and asked.spec.delay is None:
            lines[job.lock].append((asked, job, run))
    for line in lines.values():
        yield from _disorder(books.terms, line)


def _disorder(terms: Terms, line: Sequence[tuple[Asked, Stored, Run]]) -> Iterator[Complaint]:
    ranked = sorted(line, key=lambda each: (-each[0].spec.priority, each[1].id))
    for place, (asked, job, run) in enumerate(ranked):
        assert asked.answered_at is not None
        surely_in_line = asked.answered_at + terms.line
        for _, other, later in ranked[place + 1 :]:
            if surely_in_line < later.began < run.began:
                yield Complaint("out of order", f"{other} {later} before {job} {run}")


def _undisturbed(books: Books) -> Iterator[tuple[Asked, Stored, Run]]:
    """Return the jobs that ran once, while no fault could hold up their worker."""
    for asked in books.asked:
        job = books.by_number.get(asked.spec.n)
        if job is None or asked.answered_at is None or job.attempts != 1:
            continue
        runs = books.runs[job.id]
        if len(runs) != 1 or books.windows.hold_up(asked.answered_at, runs[0]):
            continue
        if not books.was_paused(asked.spec.queue, asked.answered_at, runs[0].began):
            yield asked, job, runs[0]


def twins(books: Books) -> Iterator[Complaint]:
    """Rule 7: a second job was stored while the first one surely waited."""
    lines: dict[str, list[tuple[Asked, Run]]] = defaultdict(list)
    for asked, _, run in _undisturbed(books):
        if asked.spec.queueing_lock is not None:
            lines[asked.spec.queueing_lock].append((asked, run))
    for line in lines.values():
        for one, run in line:
            for two, _ in line:
                if _both_wait(one, run, two):
                    yield Complaint("two wait with one queueing lock", f"{one} {run} and {two}")


def _both_wait(one: Asked, run: Run, two: Asked) -> bool:
    if one is two or one.answered_at is None or two.answered_at is None:
        return False
    return one.answered_at < two.asked_at and two.answered_at + WAITING_SLACK < run.began


def ticks(books: Books) -> Iterator[Complaint]:
    """Rule 8: ticks that are missing or doubled."""
    found = sorted(job.tick for job in books.stored.values() if job.tick is not None)
    for one, two in pairwise(found):
        if one == two:
            yield Complaint("tick", f"{one} was deferred twice")
        elif two - one != TICK:
            yield Complaint("tick", f"none between {one} and {two}")


def begins(books: Books) -> Iterator[Complaint]:
    """Rule 9: jobs that begin too early, and those that begin late in calm."""
    for asked in books.asked:
        job = books.by_number.get(asked.spec.n)
        if job is None or not books.runs[job.id]:
            continue
        first = books.runs[job.id][0]
        due = asked.asked_at + timedelta(seconds=asked.spec.delay or 0)
        if first.began < due:
            yield Complaint("too early", f"{first}, {asked}")
        if asked.spec.probe and _is_late(asked, first, books.terms):
            yield Complaint("late in calm", f"{first}, {asked}")


def _is_late(asked: Asked, first: Run, terms: Terms) -> bool:
    return asked.answered_at is not None and first.began > asked.answered_at + terms.prompt


def back_in_time(books: Books) -> Iterator[Complaint]:
    """Rule 10: a job that only the workers of a silent network run, and that began too late."""
    for trouble in books.troubles:
        job = books.by_number.get(trouble.awaited or 0)
        if job is None or trouble.back_by is None or _is_disturbed(books, trouble):
            continue
        runs = books.runs[job.id]
        if not runs or runs[0].began > trouble.back_by:
            yield Complaint("late to come back", f"not by {trouble.back_by}: {runs} {trouble}")


def _is_disturbed(books: Books, trouble: Trouble) -> bool:
    """Return whether another fault, too, kept its processes from running jobs."""
    assert trouble.back_by is not None
    return any(
        other is not trouble
        and other.effects
        and other.began <= trouble.back_by
        and trouble.began <= other.ended
        and any(other.touches(process) for process in trouble.processes or ())
        for other in books.troubles
    )


def pauses(books: Books) -> Iterator[Complaint]:
    """Rule 13: jobs that began while their queue was paused, on a worker that could know it."""
    for trouble in books.troubles:
        pause = trouble.pause
        if pause is None:
            continue
        for spec in books.spec_of.values():
            job = books.by_number.get(spec.n)
            if job is None or spec.queue != pause.queue:
                continue
            for run in books.runs[job.id]:
                began_in_it = pause.since + books.terms.paused < run.began < pause.until
                if began_in_it and not books.windows.hold_up(pause.since - HEARING_AGAIN, run):
                    yield Complaint("began while paused", f"{run} {pause}")
