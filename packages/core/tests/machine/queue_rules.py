"""The rest of the state machine: many jobs at a time, retention, and periodic tasks.

A tick is known by its moment on a clock that runs on when time passes, as the memory's does: so it
can be sent again, as by another worker that knows of it, and later, when its time has come.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule
from queue_invariants import Told, check_ticks, matches, outlived
from queue_machine import (
    FINAL,
    HOUR,
    LOCKS,
    QUEUES,
    New,
    QueueMachine,
    due_in,
    nth,
    some,
    with_limit,
)
from queue_sides import TOLERANCE, Key, State

from procrastinate.drive import Flow
from procrastinate.model.job import NewJob, Status
from procrastinate.model.partitions import MANY, ONE, Partitions
from procrastinate.model.periodic import DueTick, Periodic, Timetable, schedule_from
from procrastinate.storage import bulk, jobs, periodic, queues

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
SCHEDULES = [
    Periodic("t1", name, schedule_from("* * * * *", "UTC"), HOUR, lambda tick: NewJob("t1"))
    for name in ("", "p", "q")
]
SETTLED = (
    *(periodic.Outcome.DEFERRED, periodic.Outcome.WAITING),
    *(periodic.Outcome.PAUSED, periodic.Outcome.GIVEN_UP),
)

# No sum of times that pass comes near one of these, so that it is clear what is old enough.
AGES = (timedelta(), HOUR / 2, HOUR * 1.5, HOUR * 11.5)

filters = st.fixed_dictionaries(
    {},
    optional={
        "ids": some,
        "queue": st.sampled_from(QUEUES),
        "task": st.just("t1"),
        "lock": st.sampled_from(LOCKS),
        "queueing_lock": st.just("q1"),
        "worker_id": nth,
    },
)
changed_at_most = st.none() | st.integers(1, 4)
scanned_at_once = st.sampled_from([5, bulk.SCANNED])

#: What is done to a batch, at the time of the side that does it.
ChangeAt = Callable[[datetime], bulk.Change]


@dataclass(frozen=True)
class Tick:
    """A tick to be sent: one sent before, by number, or a new one, so far from the last step."""

    schedule: int
    again: int | None
    offset: timedelta
    job: NewJob | None

    @property
    def periodic(self) -> Periodic:
        return SCHEDULES[self.schedule]


tick_jobs = st.builds(
    NewJob,
    task_name=st.just("t1"),
    queue=st.sampled_from(QUEUES),
    priority=st.integers(-1, 2),
    lock=st.none() | st.sampled_from(LOCKS),
    queueing_lock=st.sampled_from([None, "q1", "q2"]),
    args=st.sampled_from(["{}", '{"timestamp":7}']),
)
sent_ticks = st.builds(
    Tick,
    schedule=st.integers(0, len(SCHEDULES) - 1),
    again=st.none() | st.none() | nth,
    offset=st.sampled_from([-HOUR, -5 * MINUTE, -MICROSECOND, timedelta(), timedelta(), HOUR]),
    job=tick_jobs | tick_jobs | st.none(),
)


class WholeMachine(QueueMachine):
    """All that can happen to a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[datetime] = []
        self.settled: set[tuple[Key, datetime]] = set()

    # Many jobs at a time

    @rule(
        chosen=filters,
        abort=st.booleans(),
        delete=st.booleans(),
        limit=changed_at_most,
        scanned=scanned_at_once,
    )
    def cancel_by_filter(
        self, chosen: dict[str, Any], abort: bool, delete: bool, limit: int | None, scanned: int
    ) -> None:
        statuses = [Status.TODO, Status.DOING] if abort else [Status.TODO]
        which = self._filter(chosen, statuses)

        def change(ids: Sequence[int]) -> Flow[set[int]]:
            return jobs.cancel_jobs(ids, abort=abort, delete=delete)

        expected = self._matching(which)[:limit]
        changed = self._change(which, lambda now: change, limit, scanned, deletes=delete)
        assert sorted(changed) == expected, "not the first that match"

    @rule(
        chosen=filters,
        statuses=st.lists(
            st.sampled_from([Status.TODO, *jobs.ENDED_BADLY]), min_size=1, max_size=4, unique=True
        ),
        due=due_in,
        priority=st.none() | st.integers(-1, 2),
        to_queue=st.none() | st.sampled_from(QUEUES),
        to_lock=st.none() | st.sampled_from(LOCKS),
        limit=changed_at_most,
        scanned=scanned_at_once,
    )
    def retry_by_filter(
        self,
        chosen: dict[str, Any],
        statuses: list[Status],
        due: timedelta | None,
        priority: int | None,
        to_queue: str | None,
        to_lock: str | None,
        limit: int | None,
        scanned: int,
    ) -> None:
        which = self._filter(chosen, statuses)

        def change_at(now: datetime) -> bulk.Change:
            at = None if due is None else now + due
            by_hand = jobs.ByHand(at, priority, to_queue, to_lock)
            return lambda ids: jobs.retry_unless_twin_waits(ids, by_hand)

        matching = set(self._matching(which))
        changed = self._change(which, change_at, limit, scanned)
        waiting = {job.id: job for job in self.state.waiting()}
        assert changed <= matching & waiting.keys(), "changed others, or not at all"
        assert limit is None or len(changed) <= limit, "more than were to be changed"
        if limit is None:
            taken = {job.queueing_lock for job in waiting.values() if job.queueing_lock}
            left = [self.state.jobs[job_id] for job_id in matching - changed]
            assert {job.queueing_lock for job in left} <= taken, "left for no reason"

    @rule(
        priorities=st.lists(st.integers(0, 1), min_size=2, max_size=3),
        waits=st.booleans(),
        limit=changed_at_most,
    )
    def retry_twins_by_filter(self, priorities: list[int], waits: bool, limit: int | None) -> None:
        """Of several with one queueing lock one is retried; the one that waits, if one does."""
        for priority in priorities:
            self.cancel_all("q3")
            self.defer_one(New("t1", "a", priority, None, "q3", "{}", None, False))
        if not waits:
            self.cancel_all("q3")
        self.retry_by_filter(
            chosen={"queueing_lock": "q3"},
            statuses=[Status.TODO, *jobs.ENDED_BADLY],
            due=None,
            priority=None,
            to_queue=None,
            to_lock=None,
            limit=limit,
            scanned=bulk.SCANNED,
        )

    @rule(which=some, abort=st.booleans())
    def change_when_free(self, which: list[int], abort: bool) -> None:
        """What somebody else had in hand is waited for; here nobody has."""
        statuses = [Status.TODO, Status.DOING] if abort else [Status.TODO, Status.FAILED]
        chosen = self._filter({"ids": which}, statuses)

        def change(ids: Sequence[int]) -> Flow[set[int]]:
            if abort:
                return jobs.cancel_jobs(ids, abort=True, delete=False)
            return jobs.retry_unless_twin_waits(ids, jobs.ByHand())

        self.step("change_when_free", lambda now: bulk.change_when_free(chosen, change))

    def _filter(self, chosen: Mapping[str, Any], statuses: Sequence[Status]) -> jobs.JobFilter:
        values = dict(chosen)
        if "ids" in values:
            values["ids"] = sorted(set(self.ids(values["ids"])))
        if "worker_id" in values:
            values["worker_id"] = self.worker(values["worker_id"])
        return jobs.JobFilter(statuses=statuses, **values)

    def _matching(self, which: jobs.JobFilter) -> list[int]:
        return sorted(job.id for job in self.state.jobs.values() if matches(job, which))

    def _change(
        self,
        which: jobs.JobFilter,
        change_at: ChangeAt,
        limit: int | None,
        scanned: int,
        *,
        deletes: bool = False,
    ) -> set[int]:
        """Change jobs batch by batch, each a step of its own; returns the ids of those changed."""
        changed: set[int] = set()
        after_id: int | None = 0
        while after_id is not None and (limit is None or len(changed) < limit):
            room = bulk.BATCH if limit is None else limit - len(changed)
            batch = self._change_batch(which, change_at, after_id, room, scanned, deletes=deletes)
            assert batch.busy == [], "nobody else has any in hand"
            assert not changed & batch.changed, "changed twice"
            changed |= batch.changed
            after_id = batch.last_id
        return changed

    def _change_batch(
        self,
        which: jobs.JobFilter,
        change_at: ChangeAt,
        after_id: int,
        limit: int,
        scanned: int,
        *,
        deletes: bool,
    ) -> bulk.Batch:
        def make(now: datetime) -> Flow[bulk.Batch]:
            flow = bulk.change_batch(which, change_at(now), after_id=after_id, limit=limit)
            return with_limit(bulk, "SCANNED", scanned, flow)

        waiting = {job.id for job in self.state.waiting() if matches(job, which)}
        batch: bulk.Batch = self.step(
            "change_batch", make, deletable=waiting if deletes else ()
        ).value
        return batch

    # Retention

    @rule(
        ages=st.dictionaries(st.sampled_from(FINAL), st.sampled_from(AGES), min_size=1),
        queue=st.none() | st.sampled_from(QUEUES),
        scanned=scanned_at_once,
    )
    def delete_old(self, ages: dict[Status, timedelta], queue: str | None, scanned: int) -> None:
        before, old = self.state.jobs.keys(), outlived(self.state, ages, queue)
        after_id: int | None = 0
        while after_id is not None:
            after_id = self._delete_batch(ages, queue, after_id, scanned, old)
        assert before - self.state.jobs.keys() == old, "not just what is old enough"

    def _delete_batch(
        self,
        ages: Mapping[Status, timedelta],
        queue: str | None,
        after_id: int,
        scanned: int,
        old: set[int],
    ) -> int | None:
        def make(now: datetime) -> Flow[bulk.Deleted]:
            ages_us = {status: age // MICROSECOND for status, age in ages.items()}
            flow = bulk.delete_old(ages_us, queue=queue, after_id=after_id)
            return with_limit(bulk, "SCANNED", scanned, flow)

        known = len(self.state.jobs)
        deleted: bulk.Deleted = self.step("delete_old", make, deletable=old).value
        assert deleted.count == known - len(self.state.jobs), "not as many as it said"
        return deleted.last_id

    # Periodic tasks

    @rule(which=st.lists(st.sampled_from(SCHEDULES), min_size=1, max_size=3, unique_by=id))
    def look_at_timetable(self, which: list[Periodic]) -> None:
        """A worker learns what is settled, and enters the schedules that are new."""

        def make(now: datetime) -> Flow[Any]:
            timetable = Timetable(which)
            at = yield from periodic.look(timetable)
            return at, timetable._done_until

        self.step("look", make)
        assert {each.key for each in which} <= self.state.periodics.keys(), "not entered"

    @rule(
        sent=st.lists(sent_ticks, min_size=1, max_size=5),
        later=st.booleans(),
        partitions=st.sampled_from([ONE, Partitions(MANY)]),
    )
    def defer_ticks(self, sent: list[Tick], later: bool, partitions: Partitions = ONE) -> None:
        """Ticks of the past, of now and of the future, with jobs and without, some once more.

        In one statement, or job by job as on a distributed database.
        """
        if not self.state.periodics:
            self.look_at_timetable(SCHEDULES)
        if later:
            self.pass_time(0, silent=None)
        chosen = {(each.schedule, self._moment(each)): each for each in sent}
        due = sorted(((at, each) for (_, at), each in chosen.items()), key=_by_tick)

        def make(now: datetime) -> Flow[Any]:
            shift = self.sides.ahead_of_server(now) - self.passed
            ticks = [DueTick(each.periodic, at + shift, each.job) for at, each in due]
            return _told(ticks, partitions)

        before, outcome = self.state, self.step("defer_ticks", make)
        self.ticks = sorted({*self.ticks, *(at for at, _ in due)})
        if outcome.error is None:
            told: list[Told] = outcome.value[0]
            self.tally.ticks.update(each.outcome for each in told)
            check_ticks(before, self.state, told)
            for (at, each), what in zip(due, told, strict=True):
                self._check_tick(before, each, at, what)

    def _check_tick(self, before: State, tick: Tick, at: datetime, told: Told) -> None:
        """Check that it was settled if it was due, and never before."""
        if told.outcome is periodic.Outcome.REFUSED:
            return
        row, moment = before.periodics.get(told.key), at - self.passed
        is_due = row is not None and row.done_until < moment <= self.state.now
        assert (told.outcome in SETTLED) == is_due, f"{tick}: {told}"
        if is_due:
            assert (told.outcome is periodic.Outcome.GIVEN_UP) == (tick.job is None), told
            assert (told.key, at) not in self.settled, f"settled twice: {tick}"
            self.settled.add((told.key, at))

    def _moment(self, tick: Tick) -> datetime:
        if tick.again is not None and self.ticks:
            return self.ticks[tick.again % len(self.ticks)]
        return self.state.now + self.passed + tick.offset

    @rule(n=nth)
    def defer_a_tick_whose_twin_waits(self, n: int) -> None:
        """It is settled without a job, unless its schedule waits for the clock."""
        self.look_at_timetable(SCHEDULES)
        self.cancel_all("q3")
        self.defer_one(New("t1", "a", 0, None, "q3", "{}", None, False))
        before, twin = self.state, NewJob("t1", queueing_lock="q3")
        self.defer_ticks([Tick(n % len(SCHEDULES), None, timedelta(), twin)], later=True)
        assert self.state.jobs.keys() == before.jobs.keys()

    @rule(sent=st.lists(sent_ticks, min_size=2, max_size=5))
    def defer_ticks_of_paused_queues(self, sent: list[Tick]) -> None:
        """One job of each schedule is added, at most, and none if its last one waits."""
        self.look_at_timetable(SCHEDULES)
        pause = functools.partial(queues.pause_queue, "*", until=None, by=None, reason=None)
        self.step("pause", lambda now: pause())
        for _ in range(2):
            before = self.state
            self.defer_ticks(sent, later=True)
            added = self.state.jobs.keys() - before.jobs.keys()
            rows = [row for row in self.state.periodics.values() if row.job_id in added]
            assert len(rows) == len(added)
            for row in before.periodics.values():
                last = before.jobs.get(row.job_id or 0)
                if last is not None and last.status is Status.TODO:
                    after = self.state.periodics[row.task_name, row.periodic_id]
                    assert after.job_id == row.job_id, "another one waits"
        self.step("resume", lambda now: queues.resume_queue("*"))

    @rule(sent=st.lists(sent_ticks, min_size=1, max_size=2))
    def defer_refused_ticks(self, sent: list[Tick]) -> None:
        """PostgreSQL takes no NUL in a text; nothing of the transaction is left then."""
        before = self.state
        refused = replace(sent[0], job=NewJob("t1", args='{"a":"\\u0000"}'))
        self.defer_ticks([*sent[1:], refused], later=False)
        assert self.state.jobs.keys() == before.jobs.keys()

    @rule(n=nth, by=st.sampled_from([HOUR, 4 * HOUR]))
    def set_the_clock_back(self, n: int, by: timedelta) -> None:
        """A schedule is settled up to a time that lies ahead then: it waits, or starts from now."""
        self.look_at_timetable(SCHEDULES)
        each = SCHEDULES[n % len(SCHEDULES)]
        self.sides.set_ahead(each.key, by)
        self._forget(each)
        self.look_at_timetable([each])
        ahead = self.state.periodics[each.key].done_until - self.state.now
        assert abs(ahead - (by if by == HOUR else timedelta())) < TOLERANCE

    @rule(n=nth, sent=st.lists(sent_ticks, min_size=1, max_size=5))
    def delete_a_schedule_in_sql(self, n: int, sent: list[Tick]) -> None:
        """As an administrator may; whoever then sends its ticks is told that it is unknown."""
        self.look_at_timetable(SCHEDULES)
        each = SCHEDULES[n % len(SCHEDULES)]
        self.sides.delete_schedule(each.key)
        self._forget(each)
        self.defer_ticks(sent, later=False)
        assert each.key not in self.state.periodics, "entered by a tick"

    def _forget(self, schedule: Periodic) -> None:
        """Compare nothing with what was known of a schedule before it was damaged."""
        left = {key: row for key, row in self.state.periodics.items() if key != schedule.key}
        self.state = replace(self.state, periodics=left)


def _by_tick(pair: tuple[datetime, Tick]) -> tuple[datetime, Key]:
    return pair[0], pair[1].periodic.key


def _told(
    due: list[DueTick], partitions: Partitions
) -> Flow[tuple[list[Told], dict[Key, datetime]]]:
    """What became of each tick, and what a timetable is told."""
    timetable = Timetable(SCHEDULES)
    result = yield from periodic.defer_ticks(timetable, due, partitions)
    told = [Told(each.due.periodic.key, each.outcome, each.job_id) for each in result.settled]
    return told, timetable._done_until
