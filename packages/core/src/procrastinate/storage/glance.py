"""The flow that shows the queues at a glance, with counts that stop at a limit."""

from __future__ import annotations

from procrastinate.connector import Row
from procrastinate.drive import Flow, Request, at
from procrastinate.model.monitoring.queue_info import Glance, QueueInfo, Seen, queue_infos
from procrastinate.model.partitions import Partitions
from procrastinate.storage.queues import list_pauses
from procrastinate.storage.rows import in_utc

READY = 8_000  # ready jobs that are counted at most, of all queues
EACH = 3_000  # jobs of each other sort

_SORTS = {
    "ready": "ready",
    "scheduled": "scheduled",
    "parked": "behind_a_lock",
    "running": "running",
    "failed": "failed",
}


def glance_at_queues(partitions: Partitions) -> Flow[list[QueueInfo]]:
    """Return all queues that are paused or have jobs to see, in order of their names."""
    glances = []
    for partition in partitions.values:
        glances.append((yield from at(partition, _glance(len(partitions.values)))))
    return queue_infos(glances, (yield from list_pauses()))


def _glance(share_of: int) -> Flow[Glance]:
    each = EACH // share_of
    names = [row[0] for row in (yield Request("ready_queues"))]
    share = max(READY // share_of // max(len(names), 1), 1)
    rows = yield Request("glance_at_queues", queue_names=names, share=share, each=each)
    looked_at = {_SORTS[row[0]]: int(row[2]) for row in rows if row[1] is None}
    return Glance(
        seen=[_seen(row) for row in rows if row[1] is not None],
        ready_share=share,
        cut_off=frozenset(sort for sort, jobs in looked_at.items() if jobs >= each),
    )


def _seen(row: Row) -> Seen:
    what, queue, jobs, since = row
    return Seen(_SORTS[what], queue, int(jobs), in_utc(since))
