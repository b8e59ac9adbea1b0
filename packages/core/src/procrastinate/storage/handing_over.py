"""Going on with the lines before locks: see ``hand_over`` in ``sql/locks.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from procrastinate.drive import Flow, Request
from procrastinate.model.job import Status
from procrastinate.model.queues import NO_PAUSES, Pauses
from procrastinate.storage.claim import Claim, begun, left_out, unpaused
from procrastinate.storage.finish import Ended, Settled, ages, held, results, with_results
from procrastinate.storage.rows import Loads
from procrastinate.storage.waking import wake_if_awaited

MOMENT = -1  # the place of the time in the row of a job that has ended
AWAITED = -2  # and of what says whether anybody may wait for that


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What was written of a batch, and the jobs that began in its place."""

    settled: Settled
    claim: Claim


def hand_over(
    ended: Sequence[Ended],
    *,
    now: float,
    worker_id: int,
    limit: int,
    loads: Loads,
    served: Sequence[str] | None,
    unknown_names: Sequence[str] = (),
    paused: Pauses = NO_PAUSES,
) -> Flow[HandedOver]:
    """Write that jobs with locks have succeeded, and begin up to ``limit`` next ones instead.

    Only those are written whose line goes on with a job that this worker may take. The others are
    left to `procrastinate.storage.finish.settle`. ``now`` is what the clock of the attempts' times
    says.
    """
    ended = sorted(ended, key=lambda each: each.job.id)  # as requests to abort lock them
    kept = results(ended)
    rows = yield Request(
        with_results("hand_over", kept),
        **held(ended, worker_id),
        **ages(ended, now),
        served=None if served is None else list(served),
        limit=limit,
        **left_out(unknown_names),
        **unpaused(paused),
        **kept,
    )
    count = sum(row[MOMENT] is not None for row in rows)
    if not count:
        return HandedOver(Settled({}), Claim([]))
    ids = (row[0] for row in rows[:count])
    changed: dict[int, Status | None] = dict.fromkeys(ids, Status.SUCCEEDED)
    yield from wake_if_awaited(rows, AWAITED, list(changed))
    jobs, unreadable, suspects = begun(rows[count:], rows[0][MOMENT], worker_id, loads)
    return HandedOver(Settled(changed), Claim(jobs, unreadable=unreadable, suspects=suspects))
