"""The in-memory connector does what PostgreSQL does: the same random steps on both, compared.

A step runs one storage flow on each side, in a transaction of its own. Both must then have returned
the same rows for every statement and the same value or error, have told listeners the same, and
hold the same jobs, locks and workers. The memory's clock is set to the server's before each step,
and every delay is far longer than the test, so that times differ by much less than `TOLERANCE`.

A failure names its seed and step; put the seed first into `SEEDS` to see it again.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, TypeAlias

import psycopg2
import pytest

from procrastinate import drive, json_codec
from procrastinate.connector import Executor, Notification, Query, Row, Rows
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException, ProcrastinateException
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.outcome import Ending
from procrastinate.model.retry import RetryDecision
from procrastinate.storage import bulk, claim, defer, finish, jobs, workers
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector
from procrastinate.testing.store import STATEMENTS
from procrastinate.testing.values import JobRow
from procrastinate_psycopg2 import Psycopg2Connector

SEEDS = [1, 2, 3, 4, 5, 6]
STEPS = 150
TOLERANCE = timedelta(seconds=30)

QUEUES = ["a", "b", "c"]
LOCKS = ["k1", "k2", "k3"]
CHANNELS = ["procrastinate_jobs", "procrastinate_schedule", "procrastinate_aborts"]
HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
SOON_US = 50_000_000  # within the minute that is announced, and after the end of the test
ARGUMENTS = ['{"x":1.50,"bb":1,"a":[null,true]}', '{"x":1e20}', '{"é":"\\n"}', "{}"]

sql = Statements()


@pytest.fixture
def sides(dsn: str) -> Iterator[Sides]:
    connection = psycopg2.connect(dsn)
    yield Sides(connection)
    connection.close()


def test_random_steps_do_the_same_in_memory_and_in_postgresql(sides: Sides) -> None:
    seen: set[str] = set()
    for seed in [*SEEDS, random.randrange(2**32)]:
        sides.reset()
        player = Player(sides, seed)
        for step in range(STEPS):
            sides.align()
            name, make = player.next_step()
            expected, actual = sides.both(make)
            differences = list(differences_of(expected, actual))
            assert differences == [], f"in PostgreSQL and memory, {seed=}, {step=}: {name}"
            seen.update(statement for statement, _ in expected["statements"])
            player.learn(expected["value"])
    schema_sql = resources.files("procrastinate.storage").joinpath("sql/schema.sql").read_text()
    assert seen == STATEMENTS.keys() - set(re.findall(r"-- name: (\w+)", schema_sql))


# --- the two sides -------------------------------------------------------------------------------


#: What one side showed of a step: its value, error, statements' rows, notifications, and tables.
Outcome: TypeAlias = dict[str, Any]


def differences_of(expected: Outcome, actual: Outcome) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs, by part and, in lists, by item."""
    for part in expected:
        one, other = expected[part], actual[part]
        if not isinstance(one, list) or not isinstance(other, list):
            one, other = [one], [other]
        for pair in itertools.zip_longest(one, other):
            if not alike(*pair):
                yield (part, *pair)


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal, down to times that differ by less than the tolerance."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) < TOLERANCE
    if is_dataclass(one) and type(one) is type(other):
        names = [each.name for each in fields(one)]
        return all(alike(getattr(one, each), getattr(other, each)) for each in names)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return _without_times(one) == _without_times(other)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < TOLERANCE.total_seconds()
    return bool(one == other)


def _without_times(text: str) -> str:
    """Blot out the times in stored errors."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", text)


class Recorder:
    """An executor that keeps what each statement returned, in an order of its own."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.seen: list[tuple[str, list[Any]]] = []

    def execute(self, query: Query, /) -> Rows:
        rows = self.executor.execute(query)
        self.seen.append((query.name, sorted(map(_SHOWN.get(query.name, tuple), rows), key=repr)))
        return rows


#: What is compared where it is not the whole row: a wait without its length, and (None, ...) for
#: a batch of which several queueing locks are taken, since any of them may be named.
_SHOWN: dict[str, Callable[[Row], Row]] = {
    "promote_due": lambda row: (row[0], row[1] is None, row[2]),
    "defer_jobs": lambda row: row[:1],
}


class Ear:
    """Listens to the memory's store."""

    owner = None
    channels = frozenset(CHANNELS)

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def put(self, item: Notification) -> None:
        self.heard.append((item.channel, item.payload))


class Sides:
    """A database and a memory, in the same state."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.memory = InMemoryConnector().sync_connector()
        self.store = self.memory._store
        self.ear = Ear()
        self.store.add_listener(self.ear)  # type: ignore[arg-type]
        for channel in CHANNELS:
            self.select(f"listen {channel}")

    def select(self, text: str) -> list[tuple[Any, ...]]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []

    def reset(self) -> None:
        tables = "procrastinate_jobs, procrastinate_locks, procrastinate_workers"
        self.select(f"truncate {tables} restart identity")
        self.memory.reset()

    def align(self) -> None:
        """Set the memory's clock, and its next id: a refused insert has used one up over there."""
        ((now, next_id),) = self.select(
            "select clock_timestamp(), last_value + is_called::integer"
            " from procrastinate_jobs_id_seq"
        )
        self.memory.clock._frozen = now.astimezone(UTC)  # (freezing would promote due jobs)
        self.store._tables.job_ids = itertools.count(next_id)

    def let_two_hours_pass(self) -> None:
        """Move what is scheduled towards us: the server's clock cannot be moved."""
        self.select(
            "update procrastinate_jobs set scheduled_at = scheduled_at - interval '2 hours'"
            " where hold = 'schedule'"
        )
        table = self.store._tables.jobs.committed
        for job_id, row in table.items():
            if row.hold == "schedule" and row.scheduled_at is not None:
                table[job_id] = replace(row, scheduled_at=row.scheduled_at - 2 * HOUR)

    def both(self, make: Callable[[], Flow[Any]]) -> tuple[Outcome, Outcome]:
        return self._in_postgresql(make()), self._in_memory(make())

    def _in_postgresql(self, flow: Flow[Any]) -> Outcome:
        recorder = Recorder(Psycopg2Connector().bind(self.connection))
        value, error = self._run(flow, recorder, self.connection)
        self.select("select")  # what was committed before is heard by now
        heard = sorted((each.channel, each.payload) for each in self.connection.notifies)
        self.connection.notifies.clear()
        columns = ", ".join(
            {"args": "args::text", "status": "status::text", "hold": "hold::text"}.get(name, name)
            for name in _JOB_COLUMNS
        )
        return {
            "value": value,
            "error": error,
            "statements": recorder.seen,
            "heard": heard,
            "jobs": self.select(f"select {columns} from procrastinate_jobs order by id"),
            "locks": self.select("select lock, job_id from procrastinate_locks order by lock"),
            "workers": self.select(
                "select id, name, started_at, last_heartbeat from procrastinate_workers order by id"
            ),
        }

    def _in_memory(self, flow: Flow[Any]) -> Outcome:
        with self.memory.session(transaction=True) as executor:
            recorder = Recorder(executor)
            value, error = self._run(flow, recorder, None)
        heard = sorted(self.ear.heard)
        self.ear.heard.clear()
        tables = self.store._tables
        workers_by_id = sorted(tables.workers.committed.items())
        return {
            "value": value,
            "error": error,
            "statements": recorder.seen,
            "heard": heard,
            "jobs": [_job_tuple(row) for row in self.store.job_rows()],
            "locks": sorted(tables.locks.committed.values()),
            "workers": [tuple(asdict(row).values()) for _, row in workers_by_id],
        }

    def _run(self, flow: Flow[Any], executor: Executor, connection: Any) -> tuple[Any, Any]:
        """Return what a flow returned, or the error that it raised; commits, or rolls back."""
        try:
            value = drive.run(flow, executor)
        except ProcrastinateException as exc:
            if connection is not None:
                connection.rollback()
            cause = exc if isinstance(exc, ConnectorException) else exc.__cause__
            codes = (getattr(cause, "sqlstate", None), getattr(cause, "constraint", None))
            return None, (type(exc), *codes)
        if connection is not None:
            connection.commit()
        return sorted(value, key=repr) if _is_unordered(value) else value, None


_JOB_COLUMNS = [each.name for each in fields(JobRow)]


def _job_tuple(row: JobRow) -> tuple[Any, ...]:
    values = asdict(row) | {"status": row.status.value}
    if row.errors is not None:
        values["errors"] = [json_codec.loads(each) for each in row.errors]
    return tuple(values.values())


def _is_unordered(value: Any) -> bool:
    return isinstance(value, set) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], workers.Recovered)
    )


def _in_statements_of_two(batch: list[NewJob]) -> Flow[list[int]]:
    before, defer.ROWS_PER_STATEMENT = defer.ROWS_PER_STATEMENT, 2
    try:
        return (yield from defer.defer_jobs(sql, batch))
    finally:
        defer.ROWS_PER_STATEMENT = before


# --- the steps -----------------------------------------------------------------------------------

#: How often each is taken.
WEIGHTS = {
    "defer": 5,
    "defer_batch": 2,
    "claim": 7,
    "claim_marked": 2,
    "finish": 4,
    "delete_finished": 1,
    "retry": 4,
    "hand_back": 3,
    "cancel": 3,
    "retry_by_hand": 3,
    "change_by_filter": 4,
    "promote": 2,
    "recover": 2,
    "mend": 3,
    "look_at_worker": 2,
    "come_and_go": 2,
    "look_at_jobs": 2,
    "count": 1,
    "delete_old": 1,
}

Make = Callable[[], Flow[Any]]


class Player:
    """Thinks of steps that fit what is in the tables."""

    def __init__(self, sides: Sides, seed: int) -> None:
        self.sides = sides
        self.random = random.Random(seed)
        self.claimed: dict[int, Job] = {}
        self.workers: list[int] = []

    def next_step(self) -> tuple[str, Make]:
        if len(self.workers) < 2:
            return "register", lambda: workers.register_worker(sql, "worker")
        if self.random.random() < 0.03:
            self.sides.let_two_hours_pass()
        (name,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        self.worker = self.random.choice(self.workers)
        return name, getattr(self, name)()

    def learn(self, value: Any) -> None:
        if len(self.workers) < 2:
            self.workers.append(value)
        if isinstance(value, claim.Claim):
            self.claimed |= {job.id: job for job in value.jobs}

    # Choices

    def maybe(self, *values: Any) -> Any:
        """One of the values, or (as often as not) None."""
        return self.random.choice([*values, *[None] * len(values)])

    def some_ids(self) -> list[int]:
        ids = [row.id for row in self.sides.store.job_rows()] or [1]
        return [self.random.choice(ids) for _ in range(self.random.randint(1, 3))]

    def some_held(self) -> list[Job]:
        """Jobs of this worker's; now and then one that it has lost."""
        rows = self.sides.store.job_rows()
        held = {(row.id, row.attempts) for row in rows if row.worker_id == self.worker}
        theirs = [
            job
            for job in self.claimed.values()
            if job.worker == self.worker
            and ((job.id, job.attempts) in held or self.random.random() < 0.1)
        ]
        return self.random.sample(theirs, min(len(theirs), self.random.randint(1, 3)))

    def new(self) -> NewJob:
        return NewJob(
            f"t{self.random.randint(1, 2)}",
            queue=self.random.choice(QUEUES),
            priority=self.random.randint(-1, 2),
            lock=self.maybe(*LOCKS),
            queueing_lock=self.maybe("q1", "q2"),
            args=self.random.choice(ARGUMENTS),
            schedule_in_us=self.maybe(-5_000_000, HOUR_US, SOON_US),
        )

    def ended(self, job: Job, status: Status, retry: RetryDecision | None = None) -> finish.Ended:
        ending = Ending(status, retry, self.maybe({"message": "é"}))
        return finish.Ended(job, ending, began_us=2_000_000, ended_us=1_000_000)

    # Steps: each returns what makes the flow, once for each side

    def defer(self) -> Make:
        new = self.new()
        return lambda: defer.defer_job(sql, new)

    def defer_batch(self) -> Make:
        batch = [self.new() for _ in range(self.random.randint(1, 5))]
        if self.random.random() < 0.2:
            free = [replace(new, queueing_lock=None) for new in batch]
            return lambda: _in_statements_of_two(free)
        return lambda: defer.defer_jobs(sql, batch)

    def claim(self) -> Make:
        queues = self.random.sample(QUEUES, self.random.randint(1, 3))
        limit = self.random.randint(1, 6)
        return lambda: claim.claim_full(
            sql, queues=queues, worker_id=self.worker, limit=limit, loads=json_codec.loads
        )

    def claim_marked(self) -> Make:
        queues = self.random.sample(QUEUES, self.random.randint(1, 3))
        marks = {
            queue: claim.Mark(self.random.randint(-1, 2), self.random.randint(0, 10))
            for queue in queues
        }
        limit, others = self.random.randint(1, 6), self.maybe(QUEUES)
        return lambda: claim.claim_marked(
            sql,
            marks=marks,
            worker_id=self.worker,
            limit=limit,
            loads=json_codec.loads,
            queues=others or (),
        )

    def finish(self) -> Make:
        statuses = [Status.SUCCEEDED, Status.FAILED, Status.ABORTED]
        ended = [self.ended(job, self.random.choice(statuses)) for job in self.some_held()]
        return lambda: finish.finish_jobs(sql, ended, worker_id=self.worker, dumps=json_codec.dumps)

    def delete_finished(self) -> Make:
        ended = [self.ended(job, Status.SUCCEEDED) for job in self.some_held()]
        return lambda: finish.delete_finished(sql, ended, worker_id=self.worker)

    def retry(self) -> Make:
        held = self.some_held()
        if not held:
            return self.claim()
        retry = RetryDecision(
            retry_in=self.maybe(HOUR, timedelta(seconds=-1), timedelta(seconds=50)),
            priority=self.maybe(5),
            queue=self.maybe("a"),
            lock=self.maybe("k1"),
        )
        ended = self.ended(held[0], Status.TODO, retry)
        return lambda: finish.retry_job(sql, ended, worker_id=self.worker, dumps=json_codec.dumps)

    def hand_back(self) -> Make:
        given = [finish.Unstarted(job, self.random.random() < 0.5) for job in self.some_held()]
        return lambda: finish.hand_back(sql, given, worker_id=self.worker)

    def cancel(self) -> Make:
        ids, abort = self.some_ids(), self.random.random() < 0.5
        delete = self.random.random() < 0.3
        return lambda: jobs.cancel_jobs(sql, ids, abort=abort, delete=delete)

    def retry_by_hand(self) -> Make:
        ids = self.some_ids()
        (now,) = (row[0] for row in self.sides.select("select clock_timestamp()"))
        at = self.maybe(now + HOUR, now - HOUR, now + timedelta(microseconds=SOON_US))
        change = jobs.ByHand(at, self.maybe(3), self.maybe("b"), self.maybe("k2"))
        return lambda: jobs.retry_by_hand(sql, ids, change)

    def promote(self) -> Make:
        return lambda: claim.promote_due(sql)

    def recover(self) -> Make:
        timeout_us = self.random.choice([HOUR_US, HOUR_US, -HOUR_US])
        if self.random.random() < 0.2:
            return lambda: workers.stalled_ids(sql, timeout_us=timeout_us)
        ids = self.maybe(self.some_ids())
        return lambda: workers.recover_jobs(sql, timeout_us=timeout_us, crash_limit=2, ids=ids)

    def mend(self) -> Make:
        """Also of a line that a change past our statements has left parked, and its lock stale."""
        if self.random.random() < 0.5:
            self._damage(*self.some_ids())
        return lambda: workers.mend_lines(sql)

    def _damage(self, job_id: int, *_: int) -> None:
        self.sides.select(
            "update procrastinate_jobs set hold = 'lock'"
            f" where id = {job_id} and lock is not null and status = 'todo' and hold is null"
        )
        self.sides.select(
            f"insert into procrastinate_locks (lock, job_id) values ('k3', {job_id})"
            " on conflict do nothing"
        )
        tables = self.sides.store._tables
        row = tables.jobs.committed.get(job_id)
        if row is not None and row.lock and row.status is Status.TODO and row.hold is None:
            tables.jobs.committed[job_id] = replace(row, hold="lock")
        tables.locks.committed.setdefault("k3", ("k3", job_id))

    def look_at_worker(self) -> Make:
        return self.random.choice(
            [
                lambda: workers.abort_requests(sql, self.worker),
                lambda: claim.held_jobs(sql, worker_id=self.worker),
                lambda: claim.ready_queues(sql),
                lambda: jobs.stalled_jobs(
                    sql, timeout_us=HOUR_US, queue=None, task=None, loads=json_codec.loads
                ),
            ]
        )

    def come_and_go(self) -> Make:
        return self.random.choice(
            [
                lambda: workers.unregister_worker(sql, self.worker),
                lambda: workers.heartbeat(sql, self.worker, "worker"),
                lambda: workers.prune_workers(sql, timeout_us=HOUR_US),
                lambda: workers.prune_workers(sql, timeout_us=-HOUR_US),
            ]
        )

    def look_at_jobs(self) -> Make:
        which = jobs.JobFilter(
            ids=self.maybe(self.some_ids()),
            queue=self.maybe("a"),
            task=self.maybe("t1"),
            statuses=self.maybe([Status.TODO, Status.DOING]),
            lock=self.maybe("k1"),
            queueing_lock=self.maybe("q1"),
            worker_id=self.maybe(self.worker),
        )
        (job_id, *_) = self.some_ids()
        if self.random.random() < 0.3:
            return lambda: jobs.get_job(sql, job_id, json_codec.loads)
        page = jobs.Page(
            after_id=3,
            before_id=self.maybe(12),
            newest_first=self.random.random() < 0.5,
            limit=5,
        )
        return lambda: jobs.list_page(sql, which, page, json_codec.loads)

    def change_by_filter(self) -> Make:
        """Waiting jobs, ended ones, or some by id; now and then waiting for those in hand."""
        statuses = self.random.choice(
            [[Status.TODO], [Status.TODO, Status.DOING], [Status.FAILED, Status.CANCELLED]]
        )
        which = jobs.JobFilter(
            ids=self.maybe(self.some_ids()),
            queue=self.maybe("a"),
            task=self.maybe("t1"),
            statuses=statuses,
        )
        by_hand = jobs.ByHand(priority=self.maybe(3), queue=self.maybe("b"))

        def change(ids: Sequence[int]) -> Flow[set[int]]:
            if Status.DOING in statuses:
                return jobs.cancel_jobs(sql, ids, abort=True, delete=False)
            return jobs.retry_unless_twin_waits(sql, ids, by_hand)

        if which.ids is not None and self.random.random() < 0.5:
            return lambda: bulk.change_when_free(sql, which, change)
        limit = self.random.randint(1, 4)
        return lambda: bulk.change_batch(sql, which, change, after_id=0, limit=limit)

    def count(self) -> Make:
        by = self.random.choice(["list_queues", "list_tasks", "list_locks"])
        queue, task = self.maybe("a"), self.maybe("t1")
        return lambda: jobs.list_counts(sql, by, queue=queue, task=task, lock=None)  # type: ignore[arg-type]

    def delete_old(self) -> Make:
        statuses, queue = [Status.SUCCEEDED, Status.CANCELLED], self.maybe("a")
        ages = dict.fromkeys(statuses, -1_000_000)
        return lambda: bulk.delete_old(sql, ages, queue=queue, after_id=0)
