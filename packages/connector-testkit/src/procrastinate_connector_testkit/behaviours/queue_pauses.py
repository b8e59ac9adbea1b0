"""Paused queues: what is said of a pause, and how claims, lines and schedules go past them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.job import NewJob
from procrastinate.model.queues import NO_PAUSES, Pauses
from procrastinate.storage import queues
from procrastinate.storage.periodic import Outcome
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.queue_periodic import (
    after_entering,
    defer,
    every_second,
    ticks,
)
from procrastinate_connector_testkit.queue import Queue

QUEUE = "the queue: pauses"
FAR = datetime(2999, 12, 31, 23, 59, 59, 123456, tzinfo=UTC)


async def pauses_of(queue: Queue, *names: str) -> Pauses:
    """Pause queues, and return what is in force then."""
    for name in names:
        await queue.pause(name)
    return (await queue.run(queues.pauses_in_force())).pauses


class Pausing:
    """From a pause to the end of it."""

    @behaviour(QUEUE)
    async def test_a_pause_is_kept_as_it_was_said(self, queue: Queue) -> None:
        odd = 'o\'d\\d "é" %(x)s {y}'
        made = await queue.pause(odd, until=FAR, by="b'", reason="r\n\\")
        assert (made.queue, made.until, made.by, made.reason) == (odd, FAR, "b'", "r\n\\")
        assert made.paused_at.tzinfo is UTC
        assert await queue.run(queues.list_pauses()) == [made]
        found = await queue.run(queues.pauses_in_force())
        assert found.seconds is not None
        assert found.seconds > 0
        again = await queue.pause(odd)
        assert (again.paused_at, again.until, again.by) == (made.paused_at, None, None)
        assert (await queue.run(queues.pauses_in_force())).seconds is None
        assert [await queue.resume(odd), await queue.resume(odd)] == [True, False]
        assert await queue.run(queues.pauses_in_force()) == queues.InForce(NO_PAUSES, None)

    @behaviour(QUEUE)
    async def test_an_end_that_is_over_is_refused(self, queue: Queue) -> None:
        with pytest.raises(InvalidOption, match="until must lie in the future"):
            await queue.pause("mail", until=datetime(2000, 1, 1, tzinfo=UTC))
        assert await queue.run(queues.list_pauses()) == []

    @behaviour(QUEUE)
    async def test_a_line_goes_past_jobs_of_paused_queues(self, queue: Queue) -> None:
        """By claims and by handing over; after the pause they are in their places."""
        new = [NewJob("task", queue=name, lock="l") for name in ("a", "b", "a", "b", "c", "b")]
        ids = await queue.defer_all(*new)
        worker = await queue.worker()
        paused = await pauses_of(queue, "a")
        first = await queue.claim(worker, "a", "b", "c", paused=paused)
        assert [job.id for job in first.jobs] == [ids[1]]
        (second,) = await queue.hand_over(worker, *first.jobs, paused=paused)
        assert second.id == ids[3]
        assert await queue.hand_over(worker, second, queues=["b"], paused=paused) == []
        await queue.finish(worker, second)  # the next one is in a queue that is not served
        all_paused = await pauses_of(queue, "*")
        assert (await queue.claim(worker, "a", "b", "c", paused=all_paused)).jobs == []
        done = [second.id]
        while jobs := await queue.claim_jobs(worker, "a", "b", "c"):
            done += [job.id for job in jobs]
            await queue.finish(worker, *jobs)
        assert done == [ids[3], ids[0], ids[2], ids[4], ids[5]]

    @behaviour(QUEUE)
    async def test_a_paused_queue_gets_one_job_of_a_schedule(self, queue: Queue) -> None:
        """Of ticks that were missed together it gets the last one; later ones are settled."""
        which = every_second(queue="mail")
        moments = [await after_entering(queue, which) for _ in range(5)]
        await queue.pause("mail")
        assert await defer(queue, *ticks(which, *moments[:3])) == [
            *(Outcome.PAUSED, Outcome.PAUSED, Outcome.DEFERRED)
        ]
        assert await defer(queue, *ticks(which, moments[3])) == [Outcome.PAUSED]
        assert len(await queue.ids()) == 1
        await queue.resume("mail")
        assert await defer(queue, *ticks(which, moments[4])) == [Outcome.DEFERRED]
        assert len(await queue.ids()) == 2
