"""Periodic tasks: each tick of a schedule is deferred once, by the worker that comes first."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from procrastinate import drive
from procrastinate.model.job import NewJob
from procrastinate.model.periodic import DueTick, Periodic, Timetable, schedule_from
from procrastinate.storage import periodic
from procrastinate.storage.periodic import Outcome, Settled
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.queue import Queue

QUEUE = "the queue: periodic tasks"
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def every_second(periodic_id: str = "", **options: Any) -> Periodic:
    """A schedule whose jobs have the tick, in seconds since the epoch, as their argument."""

    def job(tick: datetime) -> NewJob:
        return NewJob("task", args=f'{{"timestamp": {int(tick.timestamp())}}}', **options)

    return Periodic("task", periodic_id, schedule_from("* * * * * *", "UTC"), HOUR, job)


async def enter(queue: Queue, *periodics: Periodic) -> datetime:
    """Enter schedules, and return the server's time."""
    return await queue.run(periodic.look(Timetable(periodics)))


async def defer(queue: Queue, *due: DueTick) -> list[Outcome]:
    return await queue.run(defer_flow(queue, *due), transaction=queue.statements.distributed)


def defer_flow(
    queue: Queue, *due: DueTick, timetable: Timetable | None = None
) -> drive.Flow[list[Outcome]]:
    """Defer ticks; that needs a transaction if there are many partitions."""
    timetable = timetable or Timetable([each.periodic for each in due])
    placed = [
        each if each.job is None else dataclasses.replace(each, job=queue.placed(each.job))
        for each in due
    ]
    result = yield from periodic.defer_ticks(timetable, placed, queue.statements.partitions)
    return [each.outcome for each in result.settled]


async def defer_due(queue: Queue, *periodics: Periodic) -> list[Settled]:
    steps = periodic.defer_due_in_steps(periodics, queue.statements.partitions)
    return await queue.run_steps(steps)


def ticks(which: Periodic, *moments: datetime) -> list[DueTick]:
    return [DueTick(which, moment, which.new_job(moment)) for moment in moments]


async def after_entering(queue: Queue, *periodics: Periodic) -> datetime:
    """Enter schedules, and return a time at which they are in the tables for a moment already."""
    entered_at = await enter(queue, *periodics)
    while (now := await enter(queue, *periodics)) <= entered_at:
        await queue.db.sleep(0.001)
    return now


class Periodics:
    """From a tick to its job."""

    @behaviour(QUEUE)
    async def test_new_schedules_start_now_and_are_remembered(self, queue: Queue) -> None:
        """What comes afterwards is due, also for others; nothing is from before."""
        before = await enter(queue, every_second("before"))
        which = every_second()
        timetable = Timetable([which])
        now = await queue.run(periodic.look(timetable))
        next_due = timetable.next_due()
        assert next_due is not None
        assert before < next_due <= now + SECOND
        other = Timetable([which])
        await queue.run(periodic.look(other))
        assert other.next_due() == timetable.next_due()

    @behaviour(QUEUE)
    async def test_a_tick_is_deferred_once(self, queue: Queue) -> None:
        which = every_second()
        now = await after_entering(queue, which)
        (due,) = ticks(which, now)
        assert await defer(queue, due) == [Outcome.DEFERRED]
        assert await defer(queue, due) == [Outcome.ELSEWHERE]
        (job_id,) = await queue.ids()
        job = await queue.job(job_id)
        assert (job.task_name, job.task_kwargs) == ("task", {"timestamp": int(now.timestamp())})

    @behaviour(QUEUE)
    async def test_two_deferrers_race_for_a_tick(self, queue: Queue) -> None:
        which = every_second()
        due = ticks(which, await after_entering(queue, which))
        outcomes = await queue.db.together(*(defer(queue, *due) for _ in range(4)))
        assert sorted(each.name for (each,) in outcomes) == ["DEFERRED", *["ELSEWHERE"] * 3]
        assert len(await queue.ids()) == 1

    @behaviour(QUEUE)
    async def test_ticks_of_several_schedules_are_deferred_in_order(self, queue: Queue) -> None:
        one = every_second(queue="one", priority=3, lock="l")
        other = every_second("other", queue="other", queueing_lock="q")
        await after_entering(queue, one, other)
        first = await enter(queue, one)
        second = await after_entering(queue, one)
        due = [*ticks(one, first), *ticks(other, first), *ticks(one, second)]
        assert await defer(queue, *due) == [Outcome.DEFERRED] * 3
        jobs = [await queue.job(job_id) for job_id in await queue.ids()]
        if queue.statements.distributed:  # those with a queueing lock come last
            due = [due[0], due[2], due[1]]
        assert [(job.queue, job.priority, job.lock, job.queueing_lock) for job in jobs] == [
            (each.queue, each.priority, each.lock, each.queueing_lock)
            for each in (tick.periodic.new_job(tick.tick) for tick in due)
        ]

    @behaviour(QUEUE)
    async def test_older_ticks_than_the_last_one_are_not_deferred(self, queue: Queue) -> None:
        which = every_second()
        now = await after_entering(queue, which)
        assert await defer(queue, *ticks(which, now - HOUR, now)) == [
            Outcome.ELSEWHERE,
            Outcome.DEFERRED,
        ]

    @behaviour(QUEUE)
    async def test_ticks_that_lie_ahead_of_the_server_s_clock_wait(self, queue: Queue) -> None:
        which = every_second()
        now = await after_entering(queue, which)
        due = ticks(which, now, now + HOUR)
        assert await defer(queue, *due) == [Outcome.DEFERRED, Outcome.EARLY]
        assert len(await queue.ids()) == 1

    @behaviour(QUEUE)
    async def test_a_tick_whose_queueing_lock_is_taken_is_settled_without_a_job(
        self, queue: Queue
    ) -> None:
        which = every_second(queueing_lock="q")
        first = await after_entering(queue, which)
        second = await after_entering(queue, which)
        due = ticks(which, first, second)
        assert await defer(queue, *due) == [Outcome.DEFERRED, Outcome.WAITING]
        assert await defer(queue, *due) == [Outcome.ELSEWHERE] * 2
        assert len(await queue.ids()) == 1

    @behaviour(QUEUE)
    async def test_what_is_given_up_is_not_deferred_later(self, queue: Queue) -> None:
        which = every_second()
        now = await after_entering(queue, which)
        assert await defer(queue, DueTick(which, now, None, given_up=7)) == [Outcome.GIVEN_UP]
        assert await defer(queue, *ticks(which, now)) == [Outcome.ELSEWHERE]
        assert await queue.ids() == []

    @behaviour(QUEUE)
    async def test_a_schedule_whose_row_was_deleted_starts_again(self, queue: Queue) -> None:
        which = every_second()
        timetable = Timetable([which])
        due = ticks(which, datetime(2020, 1, 1, tzinfo=UTC))
        flow = defer_flow(queue, *due, timetable=timetable)
        settled = await queue.run(flow, transaction=queue.statements.distributed)
        assert (settled, timetable.complete) == ([Outcome.ELSEWHERE], False)
        assert await queue.ids() == []

    @behaviour(QUEUE)
    async def test_arguments_that_are_refused_hold_up_no_other_schedule(self, queue: Queue) -> None:
        good, bad = every_second("good"), every_second("bad")
        now = await after_entering(queue, good, bad)
        refused = NewJob("task", args='{"x": "\\u0000"}')
        outcomes = await defer(queue, DueTick(bad, now, refused), *ticks(good, now))
        assert sorted(each.name for each in outcomes) == ["DEFERRED", "REFUSED"]
        assert len(await queue.ids()) == 1

    @behaviour(3, QUEUE)
    async def test_ticks_of_a_transaction_that_fails_are_not_settled(self, queue: Queue) -> None:
        which = every_second()
        due = ticks(which, await after_entering(queue, which))
        with pytest.raises(ZeroDivisionError):
            async with entered(queue.db.session(transaction=True)) as session:
                assert await session.flow(defer_flow(queue, *due)) == [Outcome.DEFERRED]
                raise ZeroDivisionError
        assert await queue.ids() == []
        assert await defer(queue, *due) == [Outcome.DEFERRED]

    @behaviour(QUEUE)
    async def test_all_that_is_due_is_deferred_in_one_pass(self, queue: Queue) -> None:
        """And nothing from before the pass that enters the schedule."""
        before = await enter(queue, every_second("before"))
        which = every_second(partition_key=queue.key)
        first = await defer_due(queue, which)
        assert all(each.due.tick > before for each in first)
        settled = await queue.db.eventually("a tick is deferred", lambda: defer_due(queue, which))
        assert {each.outcome for each in settled} == {Outcome.DEFERRED}
        assert [each.job_id for each in [*first, *settled]] == await queue.ids()
