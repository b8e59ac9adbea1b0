"""A worker that follows its plan claims in order: tried on a model with late commits.

The model is a sorted list of what is ready. A job that is committed late has an id below those that
are ready already. Time passes as long as a scan takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from procrastinate.model.claiming.scan_steps import Kind, Promote, Scan, Wait
from procrastinate.model.claiming.scans import ScanPlan
from procrastinate.model.job import Job, Status

QUEUES = ("a", "b", "c")


@dataclass(frozen=True)
class Found:
    jobs: Sequence[Job]
    parked: int = 0
    left: int = 0
    undecided: int = 0
    none_ready: bool = False


@dataclass
class Database:
    """What is ready, and a worker's claims."""

    full_takes: float
    asks: bool = False  # whether anything is ready, as a distributed database is asked
    now: float = 1_000.0
    next_id: int = 1
    ready: dict[int, Job] = field(default_factory=dict)
    late: list[int] = field(default_factory=list)  # ids of transactions that are still open
    news: set[int] = field(default_factory=set)  # what became ready since the last full scan
    plan: ScanPlan = field(default_factory=ScanPlan)

    def add(self, job_id: int, queue: str, priority: int, *, heard: bool) -> None:
        self.ready[job_id] = Job(job_id, Status.DOING, queue, "task", {}, priority=priority)
        self.news.add(job_id)
        if heard:
            self.plan = self.plan.heard_of(queue)

    def defer(self, queue: str, priority: int, heard: bool) -> None:
        self.add(self.next_id, queue, priority, heard=heard)
        self.next_id += 1

    def open(self) -> None:
        self.late.append(self.next_id)
        self.next_id += 1

    def commit(self, queue: str, priority: int, heard: bool) -> None:
        if self.late:
            self.add(self.late.pop(0), queue, priority, heard=heard)

    def run(self, scan: Scan) -> list[Job]:
        """Take the first jobs that a scan is about, as the statement does."""
        queues = QUEUES if scan.everywhere else scan.queues
        lows = dict(zip(queues, scan.lows, strict=True)) if scan.kind is Kind.LEVEL else {}
        mine = [
            job
            for job in self.ready.values()
            if job.queue in queues
            and (
                job.priority == scan.priority and job.id > lows[job.queue]
                if scan.kind is Kind.LEVEL
                else job.priority > scan.priority
            )
        ]
        taken = sorted(mine, key=place)[: scan.limit]
        for job in taken:
            del self.ready[job.id]
        return taken

    def claim(self, room: int) -> list[Job]:
        """Make a claim, and check what the plan promises of it."""
        got: list[Job] = []
        self.plan = self.plan.begun()
        before = dict(self.ready)
        while not isinstance(step := self.plan.next(self.now, room - len(got)), Wait):
            if isinstance(step, Promote):
                self.plan = self.plan.promoted(step, 0, None, self.now)
                continue
            took = self.full_takes if step.kind is Kind.FULL else 0.001
            jobs = self.run(step)
            self.now += took
            queues = QUEUES if step.everywhere else step.queues
            asked = self.asks and step.kind is Kind.LEVEL and not jobs
            none_ready = asked and not any(job.queue in queues for job in self.ready.values())
            if step.kind is Kind.FULL or none_ready:
                self.news -= {job.id for job in before.values() if job.queue in queues}
            found = Found(jobs, none_ready=none_ready)
            self.plan = self.plan.saw(Scan(**as_dict(step, queues)), found, took, self.now)
            got = sorted(got + jobs, key=place)  # as the fetcher does
        self.check(got, before, room)
        return got

    def check(self, got: list[Job], before: dict[int, Job], room: int) -> None:
        taken = {job.id for job in got}
        assert len(taken) == len(got) <= room
        for job in before.values():
            passed_by = job.id not in taken and any(place(job) < place(each) for each in got)
            assert not passed_by or job.id in self.news, "it was ready at the last full scan"


def as_dict(scan: Scan, queues: tuple[str, ...]) -> dict[str, object]:
    return {**vars(scan), "queues": queues}


def place(job: Job) -> tuple[int, int]:
    return (-job.priority, job.id)


Action = Callable[[Database], object]
queues, priorities, heard = st.sampled_from(QUEUES), st.integers(0, 2), st.booleans()
actions = st.one_of(
    st.builds(lambda q, p, h: lambda db: db.defer(q, p, h), queues, priorities, heard),
    st.builds(lambda: lambda db: db.open()),
    st.builds(lambda q, p, h: lambda db: db.commit(q, p, h), queues, priorities, heard),
    st.builds(lambda room: lambda db: db.claim(room), st.integers(1, 4)),
)


@settings(deadline=None, max_examples=300)
@given(
    backlog=st.lists(st.tuples(queues, priorities), max_size=30),
    steps=st.lists(actions, max_size=40),
    full_takes=st.sampled_from([0.0, 0.003, 0.5]),
    asks=st.booleans(),
)
def test_claims_pass_by_only_what_became_ready_since_the_last_full_scan(
    backlog: list[tuple[str, int]], steps: list[Action], full_takes: float, asks: bool
) -> None:
    database = Database(full_takes, asks)
    for queue, priority in backlog:
        database.defer(queue, priority, True)
    for step in steps:
        step(database)
    while database.ready:  # all of it is claimed in the end, also what was not announced
        left = len(database.ready)
        if not database.claim(3):
            database.plan = database.plan.gap_in_what_was_heard()
            database.claim(3)
        assert len(database.ready) < left


@settings(deadline=None, max_examples=100)
@given(
    backlog=st.lists(st.tuples(queues, st.integers(0, 1)), min_size=1, max_size=8),
    queue=queues,
    higher=st.booleans(),
    full_takes=st.sampled_from([0.0, 0.003, 0.01, 0.1, 0.6, 1.1]),
    heard=st.booleans(),
    room=st.integers(1, 3),
    asks=st.booleans(),
)
def test_what_became_ready_out_of_turn_is_seen_in_time(
    backlog: list[tuple[str, int]],
    queue: str,
    higher: bool,
    full_takes: float,
    heard: bool,
    room: int,
    asks: bool,
) -> None:
    """Beside a backlog without end: within 0.1 s, or ten times what a full scan takes, or 10 s.

    A higher priority is seen within 0.1 s, and the time of a full scan that was just being made.
    """
    database = Database(full_takes, asks)
    database.open()

    def work() -> None:
        while len(database.ready) < 5 + room:
            for each in backlog:
                database.defer(*each, heard=True)
        assert database.claim(room)
        database.now += 0.01  # the claimed jobs run

    for _ in range(60):
        work()
    level = max(priority for _, priority in backlog)
    database.commit(queue, level + higher, heard)
    committed = database.now
    while 1 in database.ready:
        work()
    seen_after = database.now - committed
    if higher:
        assert seen_after <= 0.1 + full_takes + 0.02
    else:
        assert seen_after <= max(0.1, min(10 * full_takes, 10.0)) + 0.02
