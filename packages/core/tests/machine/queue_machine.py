"""The state machine: what can happen to a queue, on PostgreSQL and in memory at once.

Here are single jobs and workers; `queue_rules` adds many jobs at a time, and periodic tasks.

To add an operation, write a rule: it draws its arguments, and hands `QueueMachine.step` what makes
the flow. Both sides run it, must show the same and end in the same state, and the invariants are
checked. Say there which jobs it may delete, and which may lose an attempt. A new column of the jobs
is compared as soon as `JobRow` has it; a new table is added to `State` and to what fills it (a test
says which one is missing).

Rules

1. Arguments are drawn as small numbers and are then taken to mean "the third of those there are",
   so that a failing example can be made shorter and still means something.
2. A rule that needs a running job, and finds none, defers and claims one first.
3. Damage that no statement of ours does is mended in the same step, but for locks whose holder
   was deleted: those are listed in ``stale_locks`` until a mending takes them away.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from queue_invariants import (
    check_claim,
    check_state,
    check_step,
    check_woken,
    claimable,
    following,
    matches,
)
from queue_sides import WAITER, Make, Shown, Sides, State

from procrastinate import json_codec
from procrastinate.drive import Flow, at
from procrastinate.errors import AlreadyEnqueued, InvalidArguments, InvalidOption
from procrastinate.model import states
from procrastinate.model.claiming.levels import BELOW_ALL
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import (
    INTERRUPTED,
    SUCCEEDED,
    UNSTARTED,
    Changes,
    Finished,
    Outcome,
    Requeued,
)
from procrastinate.model.endings.results import RETURNED_NOTHING
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.monitoring.search import Count, JobPage
from procrastinate.model.partitions import ONE
from procrastinate.model.progress import Report
from procrastinate.model.queues import EVERY_QUEUE, NO_PAUSES, Pause, Pauses
from procrastinate.model.states import State as JobState
from procrastinate.model.states import holds_of, statuses_of
from procrastinate.storage import (
    claim,
    counting,
    defer,
    failures,
    finish,
    fleet,
    handing_over,
    jobs,
    locks,
    periodic,
    progress,
    search,
    waits,
    why,
    workers,
)
from procrastinate.storage import queues as queue_flows
from procrastinate.storage.glance import glance_at_queues

T = TypeVar("T")


def _count(state: states.State, now: datetime) -> Flow[dict[str, int]]:
    return counting.count_by_queue(state, timeout=60)


QUEUES = ("a", "b", "c")
LOCKS = ("k1", "k2")
HOUR = timedelta(hours=1)
SOON = timedelta(seconds=50)  # within the minute that is announced
DEAD_AFTER_US = 1_800_000_000  # half an hour
CRASH_LIMIT = 2
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.ABORTED)

# No sum of these comes near an hour, or half of one.
PASSING = (timedelta(minutes=17), timedelta(hours=2), timedelta(days=1))

nth = st.integers(0, 11)
some = st.lists(nth, min_size=1, max_size=4, unique=True)
queues = st.lists(st.sampled_from(QUEUES), min_size=1, max_size=3, unique=True)
limits = st.integers(1, 6)
above = st.sampled_from([BELOW_ALL, -2, 0, 1])
Shape = dict[str, int]  # limits of the flow that decide which text of the statement is run
shapes: st.SearchStrategy[Shape] = st.sampled_from(
    [{}, {"FEW": 0}, {"FEW_QUEUES": 0, "ROWS_OF_SEVERAL": 0}]
)


def pauses_of(*names: str) -> Pauses:
    return Pauses(tuple(Pause(name, EPOCH) for name in names))


pauses = st.lists(st.sampled_from([*QUEUES, EVERY_QUEUE]), max_size=1).map(
    lambda names: pauses_of(*names)
)
reports = st.builds(
    Report,
    millionths=st.sampled_from([0, 333_333, 1_000_000]),
    message=st.none() | st.just("é"),
    data=st.none() | st.just('{"x":1.50,"a":[null]}'),
    said_at=st.just(-1.0),
)
maybe_error = st.none() | st.just({"message": "é"})
due_in = st.sampled_from([None, None, None, timedelta(seconds=-5), SOON, HOUR])
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
whens = due_in | st.sampled_from([timedelta(0), EPOCH - SECOND, EPOCH + SOON, EPOCH + HOUR])
requeued = st.builds(
    Requeued,
    when=whens,
    changes=st.builds(
        Changes,
        priority=st.none() | st.integers(-1, 2),
        queue=st.none() | st.sampled_from(QUEUES),
        lock=st.none() | st.sampled_from(LOCKS),
    ),
    error=maybe_error,
    begun=st.sampled_from([True, True, False]),
    unknown=st.booleans(),
)
finished = st.builds(
    Finished,
    status=st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.ABORTED]),
    error=maybe_error,
)
#: Ends of attempts that succeed: with nothing to be kept, or with a result, or without one.
RETURNED = (
    SUCCEEDED,
    Finished(Status.SUCCEEDED, result='{"bb":1.50,"a":[null,"é"]}'),
    RETURNED_NOTHING,
    Finished(Status.SUCCEEDED, result_error="it is too large: é"),
)
outcomes: st.SearchStrategy[Outcome] = requeued | finished | st.sampled_from(RETURNED)


@dataclass(frozen=True)
class New:
    """A job to be deferred, on each side at that side's time."""

    task: str
    queue: str
    priority: int
    lock: str | None
    queueing_lock: str | None
    args: str
    due: timedelta | None
    absolute: bool

    def at(self, now: datetime) -> NewJob:
        at_time = self.due is not None and self.absolute
        return NewJob(
            self.task,
            queue=self.queue,
            priority=self.priority,
            lock=self.lock,
            queueing_lock=self.queueing_lock,
            args=self.args,
            scheduled_at=now + self.due if self.due is not None and at_time else None,
            schedule_in_us=None
            if self.due is None or at_time
            else self.due // timedelta(microseconds=1),
        )


new_jobs = st.builds(
    New,
    task=st.sampled_from(["t1", "t2"]),
    queue=st.sampled_from(QUEUES),
    priority=st.integers(-1, 2),
    lock=st.none() | st.sampled_from(LOCKS),
    queueing_lock=st.sampled_from([None, None, "q1", "q2"]),
    args=st.sampled_from(["{}", '{"x":1.50,"bb":1,"a":[null,true]}', '{"x":1e20,"é":"\\n"}']),
    due=due_in,
    absolute=st.booleans(),
)


@dataclass
class Tally:
    """What all runs of the machine together have done."""

    steps: Counter[str] = field(default_factory=Counter)
    statements: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[Status, Status]] = field(default_factory=Counter)
    ticks: Counter[periodic.Outcome] = field(default_factory=Counter)
    woken: int = 0

    def count(self, name: str, before: State, outcome: Shown) -> None:
        self.steps[name] += 1
        self.woken += len(outcome.woken)
        self.statements.update(statement for statement, _ in outcome.statements)
        if outcome.error is not None:
            self.errors[outcome.error[0].__name__] += 1
        for job_id, job in outcome.state.jobs.items():
            was = before.jobs.get(job_id, job)
            if replace(was, hold=job.hold) != job:  # (holding it or not is no event of a job's)
                self.changes[was.status, job.status] += 1


class QueueMachine(RuleBasedStateMachine):
    """A queue with a few workers. Set ``sides`` before it runs."""

    sides: ClassVar[Sides]
    tally: ClassVar[Tally] = Tally()

    def __init__(self) -> None:
        super().__init__()
        self.sides.reset()
        self.state = State(datetime.min, {}, {}, {})
        self.passed = timedelta()
        self.workers: list[int] = []
        # All that any claim returned, also what was lost since, by what a write is fenced with.
        self.claimed: dict[tuple[int, int, int | None], Job] = {}
        self.stale_locks: set[str] = set()
        self.awaited: set[int] = set()

    # What every step does

    def step(
        self,
        name: str,
        make: Make,
        *,
        deletable: Collection[int] = (),
        unstarted: Collection[int] = (),
    ) -> Shown:
        """Run a flow on both sides and check everything; returns what it showed."""
        before, outcome = self.state, self.sides.run(make)
        check_step(before, outcome.state, deletable=deletable, unstarted=unstarted)
        self._arrived(name, before, outcome)
        return outcome

    def _arrived(self, name: str, before: State, outcome: Shown) -> None:
        check_woken(before, outcome.state, self.awaited, outcome.woken)
        self.state = outcome.state
        self.stale_locks &= self.state.locks.keys()
        check_state(self.state, stale_locks=self.stale_locks)
        self.tally.count(name, before, outcome)

    # Who and what a number means

    def worker(self, n: int) -> int:
        return self.workers[n % len(self.workers)]

    def ids(self, numbers: Sequence[int]) -> list[int]:
        """Ids of jobs, or one that never was where there are none."""
        known = list(self.state.jobs) or [99]
        return [known[n % len(known)] for n in numbers]

    def held(self, n: int, numbers: Sequence[int]) -> tuple[int, list[Job]]:
        """A worker, and jobs that it holds, as its claims returned them."""
        if not self.state.running():
            self.start_one(self.worker(n))
        holders = sorted({str(job.worker_id) for job in self.state.running()})
        worker = int(holders[n % len(holders)])
        theirs = [row for row in self.state.running() if row.worker_id == worker]
        held = [self.claimed[row.id, row.lease, worker] for row in theirs]
        return worker, _chosen(held, numbers)

    def lost(self, n: int, numbers: Sequence[int]) -> tuple[int, list[Job]]:
        """A worker, and jobs that it has claimed some time, and may have lost since."""
        if not self.claimed:
            self.start_one(self.worker(n))
        claimers = sorted({str(job.worker) for job in self.claimed.values()})
        worker = int(claimers[n % len(claimers)])
        theirs = [job for job in self.claimed.values() if job.worker == worker]
        return worker, _chosen(theirs, numbers)

    def start_one(
        self, worker: int, lock: str | None = None, queueing_lock: str | None = None
    ) -> None:
        """Let a worker have a job, or what goes before it."""
        new = NewJob("t1", "a", priority=9, lock=lock, queueing_lock=queueing_lock)
        self.step("defer", lambda now: defer.defer_job(new))
        self.fetch(
            self.workers.index(worker),
            QUEUES,
            3,
            everywhere=True,
            unlocked_first=True,
            paused=NO_PAUSES,
            shape={},
        )

    # Workers

    @initialize(batch=st.lists(new_jobs, min_size=4, max_size=8), awaited=st.booleans())
    def start(self, batch: list[New], awaited: bool) -> None:
        """There are two workers and some jobs, of which a program may wait for each."""
        self.register()
        self.register()
        self.step("defer_batch", lambda now: defer.defer_jobs([new.at(now) for new in batch]))
        if awaited:
            self.wait_for_jobs(list(range(len(batch))))

    def register(self) -> None:
        outcome = self.step("register", lambda now: workers.register_worker("worker"))
        self.workers.append(outcome.value)

    @rule(n=nth)
    def come_or_go(self, n: int) -> None:
        """A worker starts or ends; one that is heard of after its end is entered again."""
        if len(self.workers) < 4:
            self.register()
        else:
            worker = self.worker(n)
            self.step("unregister", lambda now: workers.unregister_worker(worker))

    @rule(delete=st.booleans())
    def keep_house(self, delete: bool) -> None:
        """What every worker does now and then for all."""
        self.recover(delete=delete)
        self.step("prune", lambda now: workers.prune_workers(timeout_us=DEAD_AFTER_US))
        self.step("prune_waits", lambda now: waits.prune_waits())
        self.step("prune_progress", lambda now: progress.prune())
        assert self.state.progress.keys() <= {job.id for job in self.state.running()}
        self.mend()

    def recover(self, ids: Sequence[int] | None = None, *, delete: bool = False) -> None:
        running = [job.id for job in self.state.running()]
        self.step(
            "recover",
            lambda now: workers.recover_jobs(
                timeout_us=DEAD_AFTER_US,
                crash_limit=CRASH_LIMIT,
                ids=ids,
                delete_ended=delete,
            ),
            deletable=self._may_end(running) if delete else (),
        )
        self._check_deleted(running, delete=delete)

    def _may_end(self, ids: Sequence[int]) -> set[int]:
        """Which of these running jobs may end when they are to go back to the queue."""
        found = [self.state.jobs[job_id] for job_id in ids if job_id in self.state.jobs]
        return {
            job.id
            for job in found
            if job.abort_requested or job.queueing_lock or job.crashes + 1 >= CRASH_LIMIT
        }

    def _check_deleted(self, ids: Sequence[int], *, delete: bool) -> None:
        left = [self.state.jobs[job_id] for job_id in ids if job_id in self.state.jobs]
        ended = [job for job in left if job.status.is_final]
        assert not (delete and ended), f"ended, and kept all the same: {ended}"

    @rule(n=nth, delete=st.booleans())
    def crash(self, n: int, delete: bool) -> None:
        """A worker dies while it holds what it holds; the others go on, and notice."""
        self.pass_time(1, silent=n)
        self.recover(delete=delete)

    @rule(n=nth, numbers=st.permutations(range(8)))
    def crash_and_recover_one_by_one(self, n: int, numbers: list[int]) -> None:
        """As where somebody's open transaction is in the way of recovering all at once."""
        self.pass_time(1, silent=n)
        stalled = self.step(
            "stalled_ids", lambda now: workers.stalled_ids(timeout_us=DEAD_AFTER_US)
        ).value
        lost = [stalled[number % len(stalled)] for number in numbers] if stalled else []
        for job_id in dict.fromkeys([*lost, *stalled]):
            self.recover([job_id])
        assert not {job.id for job in self.state.running()} & set(stalled), "not recovered"

    @rule(amount=st.integers(0, 2), silent=st.none() | nth)
    def pass_time(self, amount: int, silent: int | None) -> None:
        """Time passes, and every worker but a silent one says afterwards that it lives."""
        by = PASSING[amount]
        self.passed += by
        before, outcome = self.state, self.sides.let_pass(by)
        check_step(before.aged(by), outcome.state)
        self._arrived("pass_time", before.aged(by), outcome)
        alive = [each for each in self.workers if silent is None or each != self.worker(silent)]
        self.step("beat_all", lambda now: _beat_all(alive))
        self.step("promote", lambda now: claim.promote_due())

    # Deferring

    @rule(new=new_jobs)
    def defer_one(self, new: New) -> None:
        self.step("defer", lambda now: defer.defer_job(new.at(now)))

    @rule(
        batch=st.lists(new_jobs, min_size=1, max_size=6), in_statements_of=st.sampled_from([2, 9])
    )
    def defer_batch(self, batch: list[New], in_statements_of: int) -> None:
        def make(now: datetime) -> Flow[list[int]]:
            flow = defer.defer_jobs([new.at(now) for new in batch])
            return with_limit(defer, "ROWS_PER_STATEMENT", in_statements_of, flow)

        before = self.state.jobs.keys()
        outcome = self.step("defer_batch", make)
        added = self.state.jobs.keys() - before
        assert len(added) == (len(batch) if outcome.error is None else 0), "not all or none"

    @rule(new=new_jobs, count=st.integers(1, 4))
    def defer_alike(self, new: New, count: int) -> None:
        """Jobs that differ in their arguments alone, here not even in those."""
        alike = replace(new, queueing_lock=None)
        all_args = f"[{','.join([new.args] * count)}]"
        before = self.state.jobs.keys()
        outcome = self.step("defer_alike", lambda now: defer.defer_alike(alike.at(now), all_args))
        assert sorted(self.state.jobs.keys() - before) == outcome.value
        assert len(outcome.value) == count

    @rule(
        batch=st.lists(new_jobs, min_size=3, max_size=6), together=st.booleans(), bad=st.booleans()
    )
    def defer_batch_for_a_caller(self, batch: list[New], together: bool, bad: bool) -> None:
        """In several statements, in a transaction that goes on and commits whatever happens.

        Together with queueing locks it is one statement; the last job may be one that is refused.
        """
        if not together:
            batch = [replace(new, queueing_lock=None) for new in batch]
        if bad:
            batch[-1] = replace(batch[-1], args='{"x":"\\u0000"}')

        def make(now: datetime) -> Flow[list[int]]:
            flow = defer.defer_jobs_for_caller([new.at(now) for new in batch])
            return with_limit(defer, "ROWS_PER_STATEMENT", 2, _or_nothing(flow))

        before = self.state.jobs.keys()
        outcome = self.step("defer_batch_for_caller", make)
        assert sorted(self.state.jobs.keys() - before) == outcome.value, "not all or none"

    # Claiming

    @rule(
        n=nth,
        unknown=st.lists(st.sampled_from(["t1", "t2"]), min_size=1, unique=True),
        priority=st.none() | st.integers(-1, 2),
        limit=limits,
        with_locks=st.booleans(),
        shape=shapes,
    )
    def claim_known(
        self,
        n: int,
        unknown: list[str],
        priority: int | None,
        limit: int,
        with_locks: bool,
        shape: Shape,
    ) -> None:
        """Claim as a worker that does not know some tasks."""
        if priority is None:
            scan = Scan(Kind.FULL, limit, QUEUES, with_locks=with_locks)
        else:
            lows = (0,) * len(QUEUES)
            scan = Scan(
                Kind.LEVEL, limit, QUEUES, priority=priority, lows=lows, with_locks=with_locks
            )
        claim_ = _claim(scan, None, self.worker(n), shape, unknown)
        got = self._claim("claim_known", QUEUES, limit, lambda now: claim_())
        assert not {job.task_name for job in got} & set(unknown)

    @rule(
        n=nth,
        queues=queues,
        limit=limits,
        everywhere=st.booleans(),
        scanned=st.sampled_from([0, 2, 9]),
        above=above,
        shape=shapes,
    )
    def claim_once(
        self,
        n: int,
        queues: list[str],
        limit: int,
        everywhere: bool,
        scanned: int,
        above: int,
        shape: Shape,
    ) -> None:
        scan = Scan(
            Kind.ABOVE, limit, tuple(queues), priority=above, with_locks=True, scanned=scanned
        )
        claim_ = _claim(scan, None if everywhere else queues, self.worker(n), shape)
        self._claim("claim", queues, limit, lambda now: claim_())

    @rule(n=nth, queues=queues, limit=limits, above=above, shape=shapes)
    def claim_unlocked(
        self, n: int, queues: list[str], limit: int, above: int, shape: Shape
    ) -> None:
        scan = Scan(Kind.FULL, limit, tuple(queues), priority=above, wary=True)
        claim_ = _claim(scan, None, self.worker(n), shape)
        got = self._claim("claim_unlocked", queues, limit, lambda now: claim_())
        assert not [job.lock for job in got if job.lock is not None], "a lock was passed over"

    @rule(
        n=nth,
        lows=st.dictionaries(st.sampled_from(QUEUES), st.integers(0, 10), min_size=1),
        priority=st.integers(-1, 2),
        served=st.sampled_from([None, QUEUES]),
        limit=limits,
        with_locks=st.booleans(),
        shape=shapes,
    )
    def claim_level(
        self,
        n: int,
        lows: dict[str, int],
        priority: int,
        served: Sequence[str] | None,
        limit: int,
        with_locks: bool,
        shape: Shape,
    ) -> None:
        marks = tuple(lows.values())
        scan = Scan(
            Kind.LEVEL,
            limit,
            tuple(lows),
            priority=priority,
            lows=marks,
            with_locks=with_locks,
            wary=with_locks or not priority,
        )
        claim_ = _claim(scan, served, self.worker(n), shape)
        got = self._claim("claim_level", list(lows), limit, lambda now: claim_())
        assert with_locks or not [job.lock for job in got if job.lock is not None]
        assert {job.priority for job in got if job.lock is None} <= {priority}

    @rule(n=nth, queue=st.sampled_from(QUEUES), low=st.integers(0, 10), limit=limits)
    def claim_level_of_one_queue_warily(self, n: int, queue: str, low: int, limit: int) -> None:
        scan = Scan(Kind.LEVEL, limit, (queue,), priority=0, lows=(low,), wary=True)
        claim_ = _claim(scan, None, self.worker(n), {"FEW": 0})
        got = self._claim("claim_level", [queue], limit, lambda now: claim_())
        assert {(job.priority, job.lock) for job in got} <= {(0, None)}

    @rule(
        n=nth,
        queues=queues,
        limit=limits,
        everywhere=st.booleans(),
        unlocked_first=st.booleans(),
        paused=pauses,
        shape=shapes,
    )
    def fetch(
        self,
        n: int,
        queues: Sequence[str],
        limit: int,
        everywhere: bool,
        unlocked_first: bool,
        paused: Pauses,
        shape: Shape,
    ) -> None:
        """Claim as a worker does: until nothing was parked. Then it has all that there was."""
        served = None if everywhere else queues
        scan = Scan(Kind.FULL, limit, tuple(queues), with_locks=not unlocked_first, wary=everywhere)
        scan = scan.without(paused)
        expected = claimable(self.state, queues, served, paused)[:limit]
        if not scan.queues:
            assert expected == []
            return
        make = functools.partial(_fetch, scan, served, self.worker(n), shape, paused)
        got = self._claim("fetch", queues, limit, lambda now: make())
        assert [job.id for job in got] == expected, "not what could be claimed"

    def _claim(self, name: str, queues: Collection[str], limit: int, make: Make) -> list[Job]:
        before = self.state
        got: list[Job] = self.step(name, make).value.jobs
        check_claim(before, got, queues, limit)
        self.claimed |= {(job.id, job.lease, job.worker): job for job in got}
        return got

    # Ending attempts

    @rule(n=nth, which=some, statuses=st.lists(st.sampled_from(FINAL[:2] + FINAL[3:]), min_size=4))
    def finish(self, n: int, which: list[int], statuses: list[Status]) -> None:
        self._finish("finish", *self.held(n, which), statuses)

    @rule(n=nth, which=some, endings=st.lists(st.sampled_from(RETURNED), min_size=4, max_size=4))
    def finish_with_results(self, n: int, which: list[int], endings: list[Finished]) -> None:
        """A batch in which everything has succeeded."""
        worker, held = self.held(n, which)
        given = list(zip(held, endings, strict=False))
        self._settle("finish_with_results", worker, given)
        for job, ending in given:
            row = self.state.jobs[job.id]
            assert (row.result is None) == (ending.result is None), f"not what was given: {row}"
            assert row.result_error == ending.result_error

    @rule(n=nth, which=some)
    def finish_what_was_lost(self, n: int, which: list[int]) -> None:
        self._finish("finish_lost", *self.lost(n, which), [Status.SUCCEEDED] * 4)

    def _finish(
        self, name: str, worker: int, held: Sequence[Job], statuses: Sequence[Status]
    ) -> None:
        given = zip(held, statuses, strict=False)
        self._settle(name, worker, [(job, _finished(job, status)) for job, status in given])

    def _settle(
        self,
        name: str,
        worker: int,
        given: Sequence[tuple[Job, Outcome]],
        *,
        delete: bool = False,
        kept: Collection[int] = (),
    ) -> None:
        """Write outcomes. A time stands for the one that is so far from the time of each side.

        The tasks of the jobs in ``kept`` keep results, so that these jobs are never deleted.
        """
        ids = [job.id for job, _ in given]

        def make(now: datetime) -> Flow[finish.Settled]:
            ended = [
                finish.Ended(job, _at(outcome, now), -2.0, -1.0, kept=job.id in kept)
                for job, outcome in given
            ]
            return finish.settle(
                ended,
                now=0.0,
                worker_id=worker,
                dumps=json_codec.dumps,
                delete_ended=delete,
            )

        settled: finish.Settled = self.step(
            name,
            make,
            deletable=set(ids) - set(kept) if delete else (),
            unstarted={job.id for job, outcome in given if not _has_begun(outcome)},
        ).value
        assert not settled.changed.keys() & settled.standings.keys()
        assert settled.changed.keys() | (settled.standings.keys() & set(ids)) <= set(ids)
        self._check_deleted([each for each in settled.changed if each not in kept], delete=delete)

    @rule(
        n=nth,
        which=some,
        served=st.none() | queues,
        unknown=st.lists(st.sampled_from(["t1", "t2"]), max_size=1),
        paused=pauses,
        limit=limits,
        returned=st.booleans(),
    )
    def hand_over(
        self,
        n: int,
        which: list[int],
        served: list[str] | None,
        unknown: list[str],
        paused: Pauses,
        limit: int,
        returned: bool,
    ) -> None:
        """End jobs with locks, and begin the first ones of their lines in their place."""
        worker, held = self.held(n, which)
        ended = [
            finish.Ended(
                job,
                _finished(job, Status.SUCCEEDED) if returned else SUCCEEDED,
                began=-2.0,
                ended=-1.0,
            )
            for job in held
        ]
        expected = following(self.state, [job.id for job in held], served, unknown, paused)[:limit]
        done: handing_over.HandedOver = self.step(
            "hand_over",
            lambda now: handing_over.hand_over(
                ended,
                now=0.0,
                worker_id=worker,
                limit=limit,
                loads=json_codec.loads,
                served=served,
                unknown_names=unknown,
                paused=paused,
            ),
        ).value
        got = done.claim.jobs
        assert [job.id for job in got] == [job_id for _, job_id in expected]
        assert done.settled.changed.keys() == {before for before, _ in expected}
        self.claimed |= {(job.id, job.lease, job.worker): job for job in got}

    @rule(n=nth, which=some)
    def delete_finished(self, n: int, which: list[int]) -> None:
        worker, held = self.held(n, which)
        ended = [finish.Ended(job, _finished(job, Status.SUCCEEDED)) for job in held]
        outcome = self.step(
            "delete_finished",
            lambda now: finish.delete_finished(ended, worker_id=worker),
            deletable={job.id for job in held},
        )
        assert set(outcome.value.changed) == {job.id for job in held}

    @rule(
        n=nth,
        which=some,
        outcomes=st.lists(outcomes, min_size=4, max_size=4),
        delete=st.booleans(),
        keeps=st.lists(st.booleans(), min_size=4, max_size=4),
    )
    def settle(
        self, n: int, which: list[int], outcomes: list[Outcome], delete: bool, keeps: list[bool]
    ) -> None:
        """A batch in which everything may happen."""
        worker, held = self.held(n, which)
        given = list(zip(held, outcomes, strict=False))
        kept = {job.id for job, keep in zip(held, keeps, strict=False) if keep}
        self._settle("settle", worker, given, delete=delete, kept=kept)

    @rule(n=nth, which=some, outcomes=st.lists(outcomes, min_size=4, max_size=4))
    def settle_what_was_lost(self, n: int, which: list[int], outcomes: list[Outcome]) -> None:
        worker, lost = self.lost(n, which)
        self._settle("settle_lost", worker, list(zip(lost, outcomes, strict=False)))

    @rule(n=nth, delay=st.sampled_from([timedelta(0), SECOND]))
    def bounce(self, n: int, delay: timedelta) -> None:
        """A worker that cannot take a job hands it back, and gets it again later."""
        worker, (job,) = self.held(n, [n])
        unstarted = Requeued(when=delay, begun=False, unknown=True)
        self._settle("bounce", worker, [(job, unstarted)])

    @rule(n=nth, which=some, alive=st.booleans(), delete=st.booleans())
    def lose_patience(self, n: int, which: list[int], alive: bool, delete: bool) -> None:
        """Jobs go back because their tasks are unknown; with no worker alive, they fail at once."""
        worker, found = self.held(n, which)
        unknown = Requeued(begun=False, unknown=True)
        self._settle("unknown", worker, [(job, unknown) for job in found])
        waiting = {job.id for job in self.state.jobs.values() if job.unknown_since is not None}
        self.step(
            "fail_unknown",
            lambda now: workers.fail_unknown(
                patience_us=0,
                timeout_us=DEAD_AFTER_US if alive else -DEAD_AFTER_US,
                delete_ended=delete,
            ),
            deletable=waiting if delete else (),
        )

    @rule(
        n=nth,
        how=st.sampled_from(["retry", "hand_back", "crash"]),
        finished=st.booleans(),
        delete=st.booleans(),
    )
    def return_to_a_waiting_twin(self, n: int, how: str, finished: bool, delete: bool) -> None:
        """A running job is to wait again, while a job with its queueing lock waits already."""
        worker = self.worker(n)
        self.cancel_all("q3")
        self.start_one(worker, queueing_lock="q3")
        twin = NewJob("t2", "a", queueing_lock="q3")
        self.step("defer", lambda now: defer.defer_job(twin))
        mine = [row for row in self.state.running() if row.queueing_lock == "q3"]
        for job in [self.claimed[row.id, row.lease, row.worker_id] for row in mine]:
            if how != "crash":
                self._settle(how, job.worker or 0, [(job, _back(how, finished))], delete=delete)
        if how == "crash":
            self.crash(n, delete)

    @rule(
        n=nth, crashed=st.booleans(), abort=st.sampled_from([None, 0, 0, 1]), delete=st.booleans()
    )
    def return_twins(self, n: int, crashed: bool, abort: int | None, delete: bool) -> None:
        """Two running jobs with one queueing lock are to wait again, or one is to be aborted."""
        worker = self.worker(n)
        self.cancel_all("q3")
        self.start_one(worker, queueing_lock="q3")
        self.start_one(worker, queueing_lock="q3")
        twins = [
            self.claimed[row.id, row.lease, worker]
            for row in self.state.running()
            if (row.queueing_lock, row.worker_id) == ("q3", worker)
        ]
        if abort is not None and twins:
            job_id = twins[abort % len(twins)].id
            self.step("cancel", lambda now: jobs.cancel_jobs([job_id], abort=True, delete=False))
        if crashed:
            self.crash(n, delete)
        elif twins:
            self._settle("twins", worker, [(twin, UNSTARTED) for twin in twins], delete=delete)

    @rule(
        n=nth,
        how=st.sampled_from(["retry", "hand_back", "crash", "fail"]),
        begun=st.booleans(),
        delete=st.booleans(),
    )
    def return_what_is_to_be_aborted(self, n: int, how: str, begun: bool, delete: bool) -> None:
        """A running job has failed or is to wait again, and is to be aborted."""
        worker, (job, *_) = self.held(n, [n])
        outcome = self.step(
            "cancel", lambda now: jobs.cancel_jobs([job.id], abort=True, delete=False)
        )
        assert outcome.value == [job.id]
        if how == "fail":
            self._finish("finish", worker, [job], [Status.FAILED])
            delete = False
        elif how != "crash":
            self._settle(how, worker, [(job, _back(how, begun))], delete=delete)
        elif worker in self.workers:
            self.crash(self.workers.index(worker), delete)
        else:
            return
        if delete:
            assert job.id not in self.state.jobs
        else:
            assert self.state.jobs[job.id].status is Status.ABORTED

    # By hand

    def cancel_all(self, queueing_lock: str) -> None:
        ids = [job.id for job in self.state.waiting() if job.queueing_lock == queueing_lock]
        self.step("cancel", lambda now: jobs.cancel_jobs(ids or [99], abort=False, delete=False))

    @rule(n=nth)
    def retry_what_has_ended(self, n: int) -> None:
        """By hand, in whatever way it has ended; what has succeeded stays as it is."""
        for status in FINAL:
            if status is Status.CANCELLED:
                self.defer_one(New("t1", "a", 0, None, None, "{}", None, False))
                self.cancel([len(self.state.jobs) - 1], abort=False, delete=False)
            else:
                self._finish("finish", *self.held(n, [n]), [status])
            ended = [job.id for job in self.state.jobs.values() if job.status is status]
            if ended:  # a job that was to be aborted has not failed
                self._retry_by_hand([ended[n % len(ended)]], None)

    @rule(which=some, abort=st.booleans(), delete=st.booleans())
    def cancel(self, which: list[int], abort: bool, delete: bool) -> None:
        ids = self.ids(which)
        waiting = {job.id for job in self.state.waiting() if job.id in ids}
        self.step(
            "cancel",
            lambda now: jobs.cancel_jobs(ids, abort=abort, delete=delete),
            deletable=waiting if delete else (),
        )
        left = {job.id for job in self.state.waiting()}
        assert not waiting & left, "it was to be cancelled, and waits"

    @rule(
        which=some,
        due=due_in,
        priority=st.none() | st.integers(-1, 2),
        queue=st.none() | st.sampled_from(QUEUES),
        lock=st.none() | st.sampled_from(LOCKS),
    )
    def retry_by_hand(self, which: list[int], due: timedelta | None, **changes: Any) -> None:
        self._retry_by_hand(self.ids(which), due, **changes)

    def _retry_by_hand(self, ids: Sequence[int], due: timedelta | None, **changes: Any) -> None:
        def make(now: datetime) -> Flow[set[int]]:
            at = None if due is None else now + due
            return jobs.retry_by_hand(ids, jobs.ByHand(at, **changes))

        self.step("retry_by_hand", make)

    # Damage

    def mend(self) -> None:
        self.step("mend", lambda now: locks.mend())

    @rule(n=nth)
    def park_for_nobody_and_mend(self, n: int) -> None:
        """As where a change by hand was overtaken, and left a line to housekeeping."""
        self.defer_one(New("t1", "a", 0, LOCKS[n % 2], None, "{}", None, False))
        free = [job for job in self.state.waiting() if job.hold is None and job.lock]
        self.sides.park(free[n % len(free)].id)
        self.mend()

    @rule(n=nth)
    def delete_a_running_job_in_sql(self, n: int) -> None:
        """As an administrator may; its lock stays, and the line waits until it is mended."""
        if not any(job.lock for job in self.state.running()):
            self.start_one(self.worker(n), LOCKS[n % 2])
        running = [job for job in self.state.running() if job.lock]
        if not running:  # others go first, or the lock is stale
            return self.mend()
        job = running[n % len(running)]
        assert job.lock is not None
        self.sides.delete(job.id)
        self.awaited.discard(job.id)
        self.stale_locks.add(job.lock)
        self.step("read_after_damage", lambda now: claim.ready_queues(), deletable={job.id})

    # Waiting

    @rule(which=some)
    def wait_for_jobs(self, which: list[int]) -> None:
        """From now on a program is told of all ends of these jobs, also after a retry by hand."""
        ids = list(set(self.ids(which)))
        self.awaited |= set(ids)
        self.step(
            "register_waits",
            lambda now: at(0, waits.register_waits(ids, waiter=WAITER, lasting_us=10**12)),
        )
        self.step("look_at_jobs", lambda now: at(0, waits.look_at_jobs(ids)))
        self.step("read_jobs", lambda now: at(0, waits.read_jobs(ids)))

    @rule(which=some)
    def wait_no_more(self, which: list[int]) -> None:
        """The program is told of these jobs no more."""
        ids = list(set(self.ids(which)))
        self.awaited -= set(ids)
        self.step("remove_waits", lambda now: at(0, waits.remove_waits(ids, waiter=WAITER)))

    # Progress

    @rule(
        n=nth, which=some, said=st.lists(reports, min_size=4, max_size=4), may_be_lost=st.booleans()
    )
    def report_progress(
        self, n: int, which: list[int], said: list[Report], may_be_lost: bool
    ) -> None:
        """Attempts say how far they are. What is no attempt any more says so in vain."""
        worker, found = self.lost(n, which) if may_be_lost else self.held(n, which)
        given = [
            progress.Said(job.id, job.lease, report)
            for job, report in zip(found, said, strict=False)
        ]
        self.step("report_progress", lambda now: progress.write(given, now=0.0, worker_id=worker))
        for each in given:
            self._check_report(each, worker)
        self._look_at_progress([job.id for job in found])

    def _check_report(self, said: progress.Said, worker: int) -> None:
        job, row = self.state.jobs.get(said.job_id), self.state.progress.get(said.job_id)
        holds = job is not None and (job.status, job.lease, job.worker_id) == (
            Status.DOING,
            said.lease,
            worker,
        )
        if holds:
            assert row is not None
            assert (row.lease, row.millionths) == (said.lease, said.report.millionths)

    def _look_at_progress(self, ids: Sequence[int]) -> None:
        """Only what the running attempt itself has said is shown."""
        which, loads = jobs.JobFilter(ids=ids), json_codec.loads
        shown: list[Job] = self.step(
            "list_progress",
            lambda now: progress.with_progress(jobs.list_page(which, jobs.Page(), loads), loads),
        ).value
        for job in shown:
            row = self.state.progress.get(job.id)
            runs = job.status is Status.DOING
            is_told = runs and row is not None and row.lease == job.lease
            assert (job.progress is not None) is is_told

    @rule(n=nth, which=some)
    def forget_progress(self, n: int, which: list[int]) -> None:
        """As a worker does for attempts that are over."""
        _, over = self.lost(n, which)
        leases = {job.id: job.lease for job in over}
        self.step("forget_progress", lambda now: progress.forget(leases))
        left = self.state.progress
        assert not [each for each in leases if each in left and left[each].lease <= leases[each]]

    # Pausing

    @rule(
        names=st.lists(st.sampled_from([*QUEUES, EVERY_QUEUE]), min_size=1, max_size=3),
        until=st.none() | st.sampled_from([-HOUR, HOUR]),
        by=st.none() | st.just("é"),
    )
    def pause_for_a_while(self, names: list[str], until: timedelta | None, by: str | None) -> None:
        """Pause, look, and resume: no other rule finds a paused queue."""
        for name in names:
            self.step(
                "pause",
                lambda now, name=name: _or_refused(
                    queue_flows.pause_queue(
                        name, until=None if until is None else now + until, by=by, reason=by
                    )
                ),
            )
        self.step("list_pauses", lambda now: queue_flows.list_pauses())
        self.step("pauses_in_force", lambda now: queue_flows.pauses_in_force())
        for name in names:
            self.step("resume", lambda now, name=name: queue_flows.resume_queue(name))
        assert self.step("list_pauses", lambda now: queue_flows.list_pauses()).value == []

    # Looking

    @rule(n=nth)
    def look_at_worker(self, n: int) -> None:
        worker = self.worker(n)
        self.step("abort_requests", lambda now: workers.abort_requests(worker))
        self.step("held_jobs", lambda now: claim.held_jobs(worker_id=worker))
        about = workers.About("host", n, ("t1", "t2")) if n % 3 else workers.About()
        self.step("describe", lambda now: workers.describe_worker(worker, about))
        self.step("list_workers", lambda now: fleet.list_workers())
        self.step("list_schedules", lambda now: fleet.list_schedules())
        self.step("probe", lambda now: workers.notify_listener("procrastinate_jobs"))
        (job_id,) = self.ids([n])
        self.step("get_errors", lambda now: jobs.get_errors(job_id))

    @rule(queue=st.none() | st.sampled_from(QUEUES), task=st.none() | st.just("t1"))
    def look_at_queues(self, queue: str | None, task: str | None) -> None:
        self.step("ready_queues", lambda now: claim.ready_queues())
        for state in states.State:
            self.step("count", partial(_count, state))
        served = None if queue is None else [queue]
        self.step("sweep", lambda now: claim.sweep(queues=served))
        self.step("sweep_paused", lambda now: claim.sweep(queues=served, paused=pauses_of("a")))
        self.step("probe_partition", lambda now: workers.probe_partition())
        self.step(
            "stalled",
            lambda now: jobs.stalled_jobs(
                timeout_us=DEAD_AFTER_US, queue=queue, task=task, loads=json_codec.loads
            ),
        )

    @rule(
        n=nth,
        ids=st.none() | some,
        queue=st.none() | st.sampled_from(QUEUES),
        task=st.none() | st.just("t1"),
        statuses=st.none() | st.lists(st.sampled_from(Status), max_size=3),
        lock=st.none() | st.sampled_from(LOCKS),
        queueing_lock=st.none() | st.just("q1"),
        of_worker=st.booleans(),
        page=st.builds(
            jobs.Page,
            after_id=st.integers(0, 5),
            before_id=st.none() | st.integers(6, 12),
            newest_first=st.booleans(),
            limit=st.just(5),
        ),
    )
    def list_jobs(
        self, n: int, ids: list[int] | None, of_worker: bool, page: jobs.Page, **filters: Any
    ) -> None:
        which = jobs.JobFilter(
            ids=None if ids is None else self.ids(ids),
            worker_id=self.worker(n) if of_worker else None,
            **filters,
        )
        outcome = self.step("list_jobs", lambda now: jobs.list_page(which, page, json_codec.loads))
        listed = [job.id for job in outcome.value]
        known = [job.id for job in self.state.jobs.values() if matches(job, which)]
        on_page = [each for each in known if page.after_id < each < (page.before_id or each + 1)]
        assert listed == sorted(on_page, reverse=page.newest_first)[: page.limit]
        (job_id,) = self.ids([n])
        self.step("get_job", lambda now: jobs.get_job(job_id, json_codec.loads))

    @rule(
        queue=st.none() | st.sampled_from(QUEUES),
        task=st.none() | st.just("t1"),
        lock=st.none() | st.sampled_from(LOCKS),
    )
    def count_jobs(self, **filters: str | None) -> None:
        self.step("list_queues", lambda now: jobs.list_counts("list_queues", **filters))
        self.step("list_tasks", lambda now: jobs.list_counts("list_tasks", **filters))
        self.step("list_locks", lambda now: jobs.list_counts("list_locks", **filters))

    @rule(
        n=nth,
        ids=st.none() | some,
        states=st.none() | st.lists(st.sampled_from(JobState), max_size=3, unique=True),
        queue=st.none() | st.sampled_from(QUEUES),
        lock=st.none() | st.sampled_from(LOCKS),
        error=st.none() | st.just("%t*"),
        limit=st.integers(1, 3),
        budget=st.sampled_from([1, 3, 100]),
    )
    def search_jobs(
        self,
        n: int,
        ids: list[int] | None,
        states: list[JobState] | None,
        limit: int,
        budget: int,
        **filters: Any,
    ) -> None:
        which = jobs.JobFilter(
            ids=None if ids is None else self.ids(ids),
            statuses=None if states is None else statuses_of(states),
            holds=None if states is None else holds_of(states),
            **filters,
        )
        outcome = self.step("search_jobs", lambda now: _all_pages(which, limit, budget))
        found = [job.id for page in outcome.value for job in page.jobs]
        if which.error is None:
            assert sorted(found) == [
                job.id for job in self.state.jobs.values() if matches(job, which)
            ]
        counted = self.step(
            "count_jobs", lambda now: search.count_jobs(which, budget=1000, partitions=ONE)
        )
        assert counted.value == Count(len(found))
        (job_id,) = self.ids([n])
        if job_id in self.state.jobs:
            self.step("why_waiting", lambda now: why.why_waiting(job_id, ONE))
        self.step("glance_at_queues", lambda now: glance_at_queues(ONE))
        self.step("count_each_state", lambda now: _counts_by_state())
        self.step(
            "list_failures",
            lambda now: failures.list_failures(which, budget=budget, partitions=ONE),
        )


def _counts_by_state() -> Flow[dict[JobState, Count]]:
    """Return how many jobs there are in each state, each counted by its own statement."""
    counts = {}
    for state in JobState:
        which = jobs.JobFilter(statuses=statuses_of([state]), holds=holds_of([state]))
        counts[state] = yield from search.count_jobs(which, budget=1000, partitions=ONE)
    return counts


def _all_pages(which: jobs.JobFilter, limit: int, budget: int) -> Flow[list[JobPage]]:
    """Return the pages of a search, without their cursors: these have times in them."""
    pages = []
    cursor = None
    while True:
        page = yield from search.search_jobs(
            which, cursor, limit=limit, budget=budget, partitions=ONE, loads=json_codec.loads
        )
        pages.append(replace(page, cursor=None))
        cursor = page.cursor
        if cursor is None:
            return pages


def _chosen(found: list[Job], numbers: Sequence[int]) -> list[Job]:
    """Jobs by number, each once."""
    chosen = [found[n % len(found)] for n in numbers] if found else []
    return list({job.id: job for job in chosen}.values())


def _finished(job: Job, status: Status) -> Finished:
    if status in (Status.FAILED, Status.ABORTED):
        return Finished(status, {"message": "é", "attempt": job.attempts})
    return RETURNED[job.id % len(RETURNED)] if status is Status.SUCCEEDED else Finished(status)


def _back(how: str, begun: bool) -> Requeued:
    if how == "retry":
        return Requeued(when=timedelta(0))
    return INTERRUPTED if begun else UNSTARTED


def _has_begun(outcome: Outcome) -> bool:
    return isinstance(outcome, Finished) or outcome.begun


def _at(outcome: Outcome, now: datetime) -> Outcome:
    """Return the outcome at the time of one side: its time was drawn as one from the epoch."""
    if isinstance(outcome, Requeued) and isinstance(outcome.when, datetime):
        return replace(outcome, when=now + (outcome.when - EPOCH))
    return outcome


def _or_nothing(flow: Flow[list[int]]) -> Flow[list[int]]:
    try:
        return (yield from flow)
    except (AlreadyEnqueued, InvalidArguments):
        return []


def _or_refused(flow: Flow[Pause]) -> Flow[Pause | None]:
    try:
        return (yield from flow)
    except InvalidOption:
        return None


def _claim(
    scan: Scan,
    served: Sequence[str] | None,
    worker: int,
    shape: Shape,
    unknown: Sequence[str] = (),
    paused: Pauses = NO_PAUSES,
) -> Callable[[], Flow[claim.Claim]]:
    """Return what claims what a scan is about, with the text of the statement that is asked for."""

    def make() -> Flow[claim.Claim]:
        flow = claim.claim(
            scan,
            served=served,
            worker_id=worker,
            loads=json_codec.loads,
            unknown_names=unknown,
            paused=paused,
        )
        for name, limit in shape.items():
            flow = with_limit(claim, name, limit, flow)
        return flow

    return make


def _fetch(
    scan: Scan,
    served: Sequence[str] | None,
    worker: int,
    shape: Shape,
    paused: Pauses = NO_PAUSES,
) -> Flow[claim.Claim]:
    """Claim again while jobs were parked, as the worker's fetcher does."""
    found = claim.Claim([])
    if not scan.with_locks:
        found = yield from _claim(scan, served, worker, shape, paused=paused)()
        if not found.left:
            return found
    while len(found.jobs) < scan.limit:
        left = replace(scan, limit=scan.limit - len(found.jobs), with_locks=True, scanned=3)
        more = yield from _claim(left, served, worker, shape, paused=paused)()
        found += more
        if not more.parked:
            break
    return found


def with_limit(module: ModuleType, name: str, limit: int, flow: Flow[T]) -> Flow[T]:
    """Run a flow with one of its module's limits made small enough to be met."""
    before = getattr(module, name)
    setattr(module, name, limit)
    try:
        return (yield from flow)
    finally:
        setattr(module, name, before)


def _beat_all(alive: Sequence[int]) -> Flow[None]:
    for worker in alive:
        bad = workers.Condition(busy=worker % 3, blocked_for=7.5, trusted=False)
        condition = bad if worker % 2 else workers.Condition(trusted=True)
        yield from workers.heartbeat(
            worker, "worker", timeout_us=DEAD_AFTER_US, condition=condition
        )
