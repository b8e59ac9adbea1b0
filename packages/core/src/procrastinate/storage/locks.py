"""Flows that keep the lines before locks going; claims admit and park (see ``sql/locks.sql``).

A lock is a gate with one slot. A flow that ends or changes jobs calls `release` if they held a
slot, and `pass_on` if they only stood in the line. `mend` finds what changes by hand left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from procrastinate.drive import Flow, Request, at
from procrastinate.storage.news import tell


def release(job_ids: Sequence[int]) -> Flow[list[str]]:
    """Pass on what these jobs hold, and give it up. Needs a transaction.

    Returns the payloads of the notifications that the commit sends.

    Two statements: the second sees the jobs that a claim parked while the first waited for it.
    """
    rows = yield Request("grip_locks", ids=list(job_ids))
    if not rows:
        return []
    passed = yield Request("release_locks", locks=[row[0] for row in rows])
    yield from tell(passed, 2)
    return sorted(row[0] if len(row) == 2 else row[3] for row in passed)


def pass_on(locks: Iterable[str | None]) -> Flow[None]:
    """Make the next job of each of these locks' lines ready; None is the lock of a job without."""
    wanted = {lock for lock in locks if lock is not None}
    if wanted:
        passed = yield Request("pass_on_locks", locks=sorted(wanted))
        yield from tell(passed, 2)


def mend() -> Flow[None]:
    """Set the lines going again whose lock no job holds. Needs a transaction."""
    parked = yield Request("parked_partitions")
    for partition in sorted(row[0] for row in parked):
        yield from at(partition, _mend())


def _mend() -> Flow[None]:
    rows = yield Request("idle_lines")
    locks = sorted(row[0] for row in rows)
    if locks:
        yield Request("drop_stale_locks", locks=locks)
        yield from pass_on(locks)
