"""The books: what must be true of a campaign, whatever happened. Pure; `check` is the whole of it.

Rules

1. Every acknowledged job is in the database, and came to the end that its plan says.
2. A job that was not acknowledged exists only if the answer to its deferrer was lost.
3. A run after one that did not fail is an extra run. A fault in its window must explain it: one
   that ended the earlier run's process, silenced it for long enough, or made the server forget.
4. Two runs with one lock overlap only if such a fault took the lock from the earlier one.
5. A final status is written by the last run: no run goes on after its job has ended. Two runs of
   one attempt are equally last: the server has forgotten the first one's claim in a crash.
6. Jobs of a lock's line begin in order, if they were surely in line together.
7. Two jobs with one queueing lock never wait at the same time.
8. No tick is missing between the first and the last, and none is there twice.
9. A job never begins before it is due. In calm it begins promptly.
10. Workers that a silent network has cut off run jobs again in time.
11. The result of a job is the value of a good run of its last attempt.
12. Every wait for a job ends, and is told how the job has ended, and its result.
13. No job of a paused queue begins, from a moment after the pause until it is resumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from chaos.jobs import KEEPING
from chaos.records import (
    FOREVER,
    TICK,
    Asked,
    Campaign,
    Complaint,
    Run,
    Spec,
    Stored,
    Terms,
    Trouble,
)
from chaos.windows import Windows

#: How much later than the end of its run a job's end may be on record.
SLACK = timedelta(seconds=0.5)
WAITING_SLACK = timedelta(seconds=1)  # from a claim to the row that its run writes
PLANNED, LOST = "Planned", "WorkerLost"  # the last part of the type of a final error
PAUSE = "pause of a queue"  # the kind of trouble
#: A worker that was cut off may need as long until it hears notifications again.
HEARING_AGAIN = timedelta(seconds=20)


class Books:
    """A campaign, with its runs and jobs found by their ids."""

    def __init__(self, campaign: Campaign) -> None:
        self.asked = campaign.asked
        self.stored = {job.id: job for job in campaign.stored}
        self.by_number = {job.n: job for job in campaign.stored if job.n is not None}
        self.spec_of: Mapping[int, Spec] = {each.spec.n: each.spec for each in campaign.asked}
        self.deaths = campaign.deaths
        self.troubles = campaign.troubles
        self.terms = campaign.terms
        self.waits = campaign.waits
        self.windows = Windows(campaign.troubles, campaign.terms)
        self.runs: dict[int, list[Run]] = defaultdict(list)
        for run in sorted(campaign.runs, key=lambda run: run.began):
            self.runs[run.job_id].append(run)

    def end_of(self, run: Run) -> datetime | None:
        """Return when a run was over: at its row, or at its process's death. None: unknown."""
        return run.ended or self.deaths.get(run.process)

    def was_paused(self, queue: str, since: datetime, until: datetime) -> bool:
        """Return whether a pause may have kept a queue's jobs from running in a length of time.

        Pauses without an answer count too: for their queues, it is not known which.
        """
        return any(
            each.began <= until and since <= each.ended + self.terms.paused
            for each in self.troubles
            if each.kind == PAUSE and (each.pause is None or each.pause.queue == queue)
        )

    def spec(self, job: Stored) -> Spec | None:
        """Return what a job was drawn as; None for a tick."""
        return None if job.n is None else self.spec_of.get(job.n)


def check(campaign: Campaign) -> list[Complaint]:
    """Return what must not be, with the name of its rule."""
    books = Books(campaign)
    checks = (
        lost,
        phantoms,
        half_batches,
        endings,
        extra_runs,
        ended_early,
        overlaps,
        order,
        twins,
        ticks,
        begins,
        back_in_time,
        results,
        waits,
        pauses,
    )
    return [complaint for each in checks for complaint in each(books)]


# --- Rules 1 and 2 --------------------------------------------------------------------------------


def lost(books: Books) -> Iterator[Complaint]:
    """Rule 1: acknowledged jobs that are not there."""
    for asked in books.asked:
        if asked.answer == "acknowledged" and asked.spec.n not in books.by_number:
            yield Complaint("lost", f"acknowledged and gone: {asked}")


def phantoms(books: Books) -> Iterator[Complaint]:
    """Rule 2: jobs that were refused, or never asked for, or are there twice."""
    answers = {each.spec.n: each.answer for each in books.asked}
    seen: set[int] = set()
    for job in books.stored.values():
        if job.n is None:
            continue
        if answers.get(job.n, "refused") == "refused":
            yield Complaint("phantom", f"no worker was to have it: {job}")
        if job.n in seen:
            yield Complaint("phantom", f"deferred twice: {job}")
        seen.add(job.n)
    for job_id, runs in books.runs.items():
        if job_id not in books.stored:
            yield Complaint("phantom", f"runs of a job that does not exist: {runs}")


def half_batches(books: Books) -> Iterator[Complaint]:
    """Rule 2: a call stores all of its jobs or none."""
    groups: dict[str, set[bool]] = defaultdict(set)
    for asked in books.asked:
        groups[asked.group].add(asked.spec.n in books.by_number)
    for group, found in groups.items():
        if len(found) > 1:
            yield Complaint("half a batch", f"only some jobs of the call {group} are stored")


def endings(books: Books) -> Iterator[Complaint]:
    """Rule 1: each job has the end of its plan."""
    for job in books.stored.values():
        if job.status in ("todo", "doing"):
            yield Complaint("did not end", f"{job} {books.runs[job.id]}")
            continue
        wrong = _wrong_end(job, books.spec(job), books.runs[job.id])
        if wrong:
            yield Complaint("wrong end", f"{wrong}: {job} {books.runs[job.id]}")


def _wrong_end(job: Stored, spec: Spec | None, runs: Sequence[Run]) -> str | None:
    """Return what is wrong with the final status of a job."""
    error = (job.last_error or "").rpartition(".")[2]
    if job.status == "succeeded":
        return None if any(run.outcome == "ok" for run in runs) else "succeeded without a good run"
    if job.status == "cancelled":
        fine = spec is not None and spec.queueing_lock is not None
        return None if fine else "cancelled without a twin"
    if job.status == "failed":
        if spec is not None and spec.failing == FOREVER and error == PLANNED:
            return None
        if error != LOST:
            return "failed, and it was to succeed"
        kills = spec is not None and spec.crashing == FOREVER
        return None if kills else "blamed for another's crash"
    return f"no request explains {job.status}"


# --- Rules 3 to 5 ---------------------------------------------------------------------------------


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


def ended_early(books: Books) -> Iterator[Complaint]:
    """Rule 5: the last run was still going on when its job ended."""
    for job in books.stored.values():
        runs = books.runs[job.id]
        if job.status != "succeeded" or not runs or job.finished_at is None:
            continue
        last = [run for run in runs if run.attempt == runs[-1].attempt]
        ends = [end for run in last if (end := books.end_of(run)) is not None]
        if len(ends) == len(last) and min(ends) > job.finished_at + SLACK:
            yield Complaint("ended by another run", f"{job}, but {runs[-1]}")


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


# --- Rules 6 to 9 ---------------------------------------------------------------------------------


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


# --- Rules 11 and 12 ------------------------------------------------------------------------------


def results(books: Books) -> Iterator[Complaint]:
    """Rule 11: results that are missing, or that no good run of the last attempt has returned."""
    for job in books.stored.values():
        runs = books.runs[job.id]
        last = max((run.attempt for run in runs), default=0)
        good: set[str | None] = {
            run.token for run in runs if (run.attempt, run.outcome) == (last, "ok")
        }
        is_kept = job.task in KEEPING.values() and job.status == "succeeded"
        if job.result not in (good if is_kept else {None}):
            yield Complaint("wrong result", f"{job} {runs}")


def waits(books: Books) -> Iterator[Complaint]:
    """Rule 12: waits that did not end, or that were told something else than the database has."""
    for wait in books.waits:
        job = books.by_number.get(wait.n)
        if wait.ended is None:
            yield Complaint("waits for ever", f"{wait} for {job}")
        elif job is not None and (wait.answer, wait.result) != (job.status, job.result):
            yield Complaint("told wrong", f"{wait} for {job} {books.runs[job.id]}")
        elif job is not None and job.finished_at and wait.ended < job.finished_at - SLACK:
            yield Complaint("told early", f"{wait} for {job} {books.runs[job.id]}")


# --- Rule 13 --------------------------------------------------------------------------------------


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


def summary(campaign: Campaign) -> Mapping[str, int]:
    """Return the counts that a report shows."""
    stored = {job.n for job in campaign.stored if job.n is not None}
    answers: dict[str, int] = defaultdict(int)
    for asked in campaign.asked:
        answers[asked.answer or "unknown"] += 1
    return {
        "asked": len(campaign.asked),
        "acknowledged": answers["acknowledged"],
        "refused": answers["refused"],
        "answers lost": answers["unknown"],
        "stored all the same": sum(
            each.spec.n in stored
            for each in campaign.asked
            if each.answer not in ("acknowledged", "refused")
        ),
        "ticks": sum(job.tick is not None for job in campaign.stored),
        "runs": len(campaign.runs),
        "waits that ended": sum(each.ended is not None for each in campaign.waits),
        "extra runs, explained": _extra(campaign.runs),
    }


def _extra(runs: Iterable[Run]) -> int:
    by_job: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.began):
        by_job[run.job_id].append(run)
    return sum(
        earlier.outcome != "failed" for line in by_job.values() for earlier, _ in pairwise(line)
    )
