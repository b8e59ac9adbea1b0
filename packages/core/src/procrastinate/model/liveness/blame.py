"""Who is to blame for the death of a process, and what a process may hold because of it.

A job may kill its process: by a segmentation fault, for lack of memory, by ``os._exit``. The others
that ran beside it die too, and the database only sees who was there. Each death counts as a crash
for all of them.

Rules

1. A job fails for its crashes only if it was alone in its process at the last one, and has
   `CRASH_LIMIT` of them then. `MOST_CRASHES` of any kind fail a job, too.
2. A job with one crash runs as any other, because most crashes are the machine's. But it is not
   claimed ahead: a job that waits in a process is counted among those that were there.
3. A process holds at most one job with `SUSPECTED` crashes or more, beside any number of others. So
   suspects are told apart without an idle slot: the next crash counts for one of them only.
4. A job to which one more crash would be fatal runs alone. Its process lets those that run come to
   their end, at most `WAIT_TO_BE_ALONE`, and takes no other job until this one has ended. The next
   job does not wait until that end is written. If the next one kills the process before, the crash
   counts for both, and fails neither by `CRASH_LIMIT`, because neither was alone.
5. A job that its process cannot take now goes back, not begun, with a delay of about
   `SENT_BACK_FOR`. The delays differ because suspects come in herds: if all came back at the same
   moment, each process would take one of them and send the others away for twice as long.
6. A job with `SUSPECTED` crashes or more starts only once the database has confirmed what ended or
   went back here before. What is not written yet is still held by this process: if it died now,
   the crash would count for those jobs, too, and they would run again.

Statements that take jobs from dead workers follow rule 1, see `judge_workers` and `recover_jobs`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import timedelta

CRASH_LIMIT = 5  # crashes that fail a job which was alone at the last one
MOST_CRASHES = 15  # crashes that fail any job
SUSPECTED = 2  # crashes from which on a process holds one such job at most
WAIT_TO_BE_ALONE = 60.0  # seconds
SENT_BACK_FOR = timedelta(seconds=1)  # more or less; doubled each time in a row, up to a minute


class Place(enum.Enum):
    """Where a claimed job belongs."""

    HERE = "here"  # in a slot of this process, beside the others
    ALONE = "alone"  # in this process, once it holds nothing else
    ELSEWHERE = "elsewhere"  # back in the queue, with a delay


def delay(chance: float) -> timedelta:
    """Return a first delay for a job that goes back (rule 5); ``chance`` is from 0 to 1."""
    return SENT_BACK_FOR * (0.5 + chance)


def fails(crashes: int, *, alone: bool) -> bool:
    """Whether a job with these crashes fails, the last one included (rule 1)."""
    return crashes >= MOST_CRASHES or (alone and crashes >= CRASH_LIMIT)


def may_wait(crashes: int) -> bool:
    """Whether a claimed job may wait for a slot (rule 2)."""
    return crashes == 0


def is_suspect(crashes: int) -> bool:
    """Whether a process holds at most one such job (rule 3), which waits for writes (rule 6)."""
    return crashes >= SUSPECTED


def must_be_alone(crashes: int) -> bool:
    """Whether one more crash would be fatal to a job (rule 4)."""
    return crashes >= CRASH_LIMIT - 1


def place(crashes: int, held: Iterable[int]) -> Place:
    """Return where a claimed job with these crashes belongs.

    ``held`` are the crashes of the other jobs that the process holds.
    """
    others = list(held)
    if any(must_be_alone(each) for each in others):
        return Place.ELSEWHERE  # rule 4
    if must_be_alone(crashes):
        return Place.ALONE if others else Place.HERE
    if is_suspect(crashes) and any(map(is_suspect, others)):
        return Place.ELSEWHERE  # rule 3
    return Place.HERE
