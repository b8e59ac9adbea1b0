"""The parts of a batch of outcomes: what one statement writes, and what has to wait.

Rules

1. A statement writes outcomes of one partition and of one kind: endings, retries, deletions.
2. Groups of several partitions are written in one transaction, in the order of their partitions, so
   that no two workers wait for each other. What frees a lock is apart, because the next jobs of its
   line wait for the commit, and so is what may itself have to wait.
3. What belongs to a partition that is away is held until that is back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from procrastinate.model.endings.outcome import SUCCEEDED, UNSTARTED, Requeued, has_succeeded
from procrastinate.model.endings.results import RETURNED_NOTHING
from procrastinate.model.job import Status, sets_going, those_that_set_going
from procrastinate.storage.finish import Ended, have_succeeded, only_outcome
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places


class Parts:
    """Divides batches, and holds what belongs to partitions that are away."""

    def __init__(
        self,
        places: Places,
        outages: Outages,
        delete_jobs: str,
        *,
        on_back: Callable[[Sequence[Ended]], None],
    ) -> None:
        self._places = places
        self._away = outages.away
        self._delete_jobs = delete_jobs
        self._on_back = on_back  # is called with what was held
        self._held: defaultdict[int, list[Ended]] = defaultdict(list)
        outages.on_back.append(self._is_back)
        #: Whether the database has several partitions.
        self.are_many = places.partitions.are_many

    def of(self, entries: Sequence[Ended]) -> list[list[Ended]]:
        """Return the groups that one statement writes (rule 1), in the order of rule 2."""
        if not self.are_many:
            return groups(entries, self._delete_jobs)
        parts: defaultdict[int, list[Ended]] = defaultdict(list)
        for entry in entries:
            parts[self._places.of(entry.job.id)].append(entry)
        return [
            group for _, part in sorted(parts.items()) for group in groups(part, self._delete_jobs)
        ]

    def together(self, found: list[list[Ended]]) -> tuple[list[list[Ended]], list[list[Ended]]]:
        """Return the groups that one transaction writes (rule 2), and those that are left."""
        together, left = list[list[Ended]](), list[list[Ended]]()
        for group in found:
            first = group[0]
            alone = self.is_away(group) or may_wait(first) or sets_going(first.job)
            (left if alone else together).append(group)
        return ([], found) if len(together) < 2 else (together, left)

    def place_of(self, group: Sequence[Ended]) -> int:
        """Return the partition of a group."""
        return self._places.of(group[0].job.id)

    def forget(self, group: Iterable[Ended]) -> None:
        """Forget the partitions of entries that are written."""
        if self.are_many:
            self._places.forget(each.job.id for each in group)

    def is_away(self, group: Sequence[Ended]) -> bool:
        """Return whether a group has to wait for its partition."""
        return self.place_of(group) in self._away

    def hold(self, group: Sequence[Ended]) -> None:
        """Keep a group until its partition is back (rule 3)."""
        self._held[self.place_of(group)] += group

    def _is_back(self, partition: int) -> None:
        if entries := self._held.pop(partition, None):
            self._on_back(entries)


def groups(entries: Sequence[Ended], delete_jobs: str) -> list[list[Ended]]:
    """Return the entries of one partition in groups that one statement writes.

    Those that set something going are apart because they take a transaction of several statements;
    those that may meet a twin with their queueing lock, because they may have to wait for its
    transaction.
    """
    if entries and _are_plain(entries, delete_jobs):
        return [list(entries)]  # most often
    found: defaultdict[Hashable, list[Ended]] = defaultdict(list)
    for entry in entries:
        found[is_deleted(entry, delete_jobs), sets_going(entry.job), may_wait(entry)].append(entry)
    return sorted(found.values(), key=lambda group: may_wait(group[0]))


def _are_plain(entries: Sequence[Ended], delete_jobs: str) -> bool:
    """Return whether one statement writes all of these, as is soon seen of successes."""
    going = those_that_set_going([each.job for each in entries])
    if len(going) not in (0, len(entries)) or not have_succeeded(entries):
        return False
    if delete_jobs == "never" or only_outcome(entries) in (SUCCEEDED, RETURNED_NOTHING):
        return True
    return all(each.kept for each in entries)


def evenly(entries: Sequence[Ended], most: int) -> list[Sequence[Ended]]:
    """Return entries in as few parts of about the same size as hold ``most`` each."""
    count = max(1, math.ceil(len(entries) / most))
    size = max(1, math.ceil(len(entries) / count))
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def is_awaited(entry: Ended) -> bool:
    """Return whether other jobs, or other workers, wait for an outcome."""
    return entry.outcome is UNSTARTED or sets_going(entry.job)


def is_requeued(entry: Ended) -> bool:
    """Return whether the job goes back to the queue."""
    return isinstance(entry.outcome, Requeued)


def is_deleted(entry: Ended, delete_jobs: str) -> bool:
    """Return whether the job's row is deleted because it has ended.

    A job of a task that keeps results stays: who waits for it may not have read it yet.
    """
    if delete_jobs == "never" or entry.kept or is_requeued(entry):
        return False
    return delete_jobs == "always" or entry.outcome.status is Status.SUCCEEDED


def may_wait(entry: Ended) -> bool:
    """Return whether the job may meet a twin with its queueing lock."""
    return is_requeued(entry) and entry.job.queueing_lock is not None


def kind_of(entry: Ended) -> Hashable:
    """Return what a refused batch is split by.

    Kinds are successes without a result, those with one, other endings, retries, and what goes back
    in its place.
    """
    outcome = entry.outcome
    if isinstance(outcome, Requeued):
        return outcome.begun, outcome.when is not None
    return outcome is SUCCEEDED, has_succeeded(outcome)
