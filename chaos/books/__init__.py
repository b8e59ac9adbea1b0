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
14. No process that has run jobs ends unless a fault ends it, or the end of the campaign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from chaos.books import endings, holders, processes, times
from chaos.books.shelf import Books
from chaos.records import Campaign, Complaint, Run

CHECKS = (
    endings.lost,
    endings.phantoms,
    endings.half_batches,
    endings.endings,
    holders.extra_runs,
    endings.ended_early,
    holders.overlaps,
    times.order,
    times.twins,
    times.ticks,
    times.begins,
    times.back_in_time,
    endings.results,
    endings.waits,
    times.pauses,
    processes.ends,
)


def check(campaign: Campaign) -> list[Complaint]:
    """Return what must not be, with the name of its rule."""
    books = Books(campaign)
    return [complaint for each in CHECKS for complaint in each(books)]


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
