"""What became of the jobs: rules 1, 2, 5, 11 and 12."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta

from chaos.books.shelf import Books
from chaos.jobs import KEEPING
from chaos.records import FOREVER, Complaint, Run, Spec, Stored

#: How much later than the end of its run a job's end may be on record.
SLACK = timedelta(seconds=0.5)
PLANNED, LOST = "Planned", "WorkerLost"  # the last part of the type of a final error


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
