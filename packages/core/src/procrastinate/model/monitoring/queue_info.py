"""What there is to see of a queue at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from procrastinate.model.monitoring.search import Count
from procrastinate.model.queues import EVERY_QUEUE, Pause


@dataclass(frozen=True)
class QueueInfo:
    """A queue that has jobs to see, or is paused. All times are aware, in UTC.

    Counts stop at a limit, and say so: ``Count(300, is_complete=False)`` is "at least 300".
    ``failed`` are those jobs of the queue among the newest failed ones. ``oldest_ready_since`` is
    since when the job could have begun that has waited longest, as far as was looked.
    """

    name: str
    ready: Count
    scheduled: Count
    behind_a_lock: Count
    running: Count
    failed: Count
    oldest_ready_since: datetime | None
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class Seen:
    """How many jobs of a sort a queue has, as far as was counted in one partition."""

    sort: str  # a field of QueueInfo
    queue: str
    jobs: int
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Glance:
    """What a look at one partition has shown: the counts, and which are complete."""

    seen: Sequence[Seen]
    ready_share: int  # ready jobs of each queue that were counted at most
    cut_off: frozenset[str]  # sorts of which there may be more than were counted

    def is_complete(self, seen: Seen) -> bool:
        """Whether all of a queue's jobs of a sort were counted."""
        if seen.sort == "ready":
            return seen.jobs < self.ready_share
        return seen.sort not in self.cut_off


def queue_infos(glances: Iterable[Glance], pauses: Sequence[Pause]) -> list[QueueInfo]:
    """Return what all partitions have shown, and the pauses, in order of the queues' names."""
    every = list(glances)
    cut_off = frozenset(sort for glance in every for sort in glance.cut_off)
    nothing = {
        sort: Count(0, sort not in cut_off)
        for sort in ("ready", "scheduled", "behind_a_lock", "running", "failed")
    }
    names = {seen.queue for glance in every for seen in glance.seen}
    names |= {pause.queue for pause in pauses if pause.queue != EVERY_QUEUE}
    infos = {
        name: QueueInfo(name, **nothing, oldest_ready_since=None, pause=None) for name in names
    }
    for glance in every:
        for seen in glance.seen:
            infos[seen.queue] = _with(infos[seen.queue], seen, glance.is_complete(seen))
    return [replace(infos[name], pause=_pause_of(name, pauses)) for name in sorted(infos)]


def _with(info: QueueInfo, seen: Seen, is_complete: bool) -> QueueInfo:
    count = getattr(info, seen.sort) + Count(seen.jobs, is_complete)
    since = [each for each in (info.oldest_ready_since, seen.since) if each is not None]
    return replace(info, **{seen.sort: count}, oldest_ready_since=min(since, default=None))


def _pause_of(name: str, pauses: Sequence[Pause]) -> Pause | None:
    """Return the pause of a queue: its own rather than that of all."""
    covering = [pause for pause in pauses if pause.covers(name)]
    return min(covering, key=lambda pause: pause.queue == EVERY_QUEUE, default=None)
