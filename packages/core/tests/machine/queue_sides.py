"""The two sides that the machine drives: a PostgreSQL database, and the in-memory connector.

Each runs a storage flow in a transaction of its own and shows all that can be seen of it: the value
or error, the rows of every statement, the notifications, and the whole of the tables afterwards.

Time. The memory's clock is virtual; the server's cannot be moved. So when time passes, the memory's
clock goes forward, and every time in PostgreSQL's tables goes back by the same amount. Both then
hold the same ages, and ages are what is compared. Before each step the memory's clock is set to the
server's, plus all that has passed; delays and limits differ by minutes, so that the moments
between two statements decide nothing but an order. For that, the memory's clock goes forward by a
moment before each statement, as the server's does. Else a time that a step was given, and the same
time reckoned by a statement, would be equal in memory only, and ids would decide there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar

from procrastinate import drive
from procrastinate.connector import Executor, Notification, Query, Row, Rows
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException, ProcrastinateException
from procrastinate.model.job import Status
from procrastinate.storage import claim, waits
from procrastinate.storage.statements import Statements
from procrastinate.storage.workers import Recovered
from procrastinate.testing import InMemoryConnector
from procrastinate.testing._engine.store import STATEMENTS
from procrastinate.testing._engine.values import JobRow, PeriodicRow, ProgressRow, WorkerRow
from procrastinate_psycopg2.sessions import bound

CHANNELS = ("procrastinate_jobs", "procrastinate_schedule", "procrastinate_aborts")
WAITER = 7  # the number of a program that waits for jobs
ENDS = waits.CHANNEL.format(waiter=WAITER)
TOLERANCE = timedelta(seconds=30)
MOMENT = timedelta(microseconds=1)  # between two statements in memory; less than any takes

#: A schedule: the name of a task, and the periodic_id.
Key: TypeAlias = tuple[str, str]

#: Makes the flow of a step, given the time on the side that will run it.
Make: TypeAlias = Callable[[datetime], Flow[Any]]

K = TypeVar("K")
R = TypeVar("R", JobRow, PeriodicRow)

sql = Statements()


@dataclass(frozen=True)
class State:
    """All rows of all tables, and the time at which their ages are reckoned."""

    now: datetime
    jobs: dict[int, JobRow]
    locks: dict[str, int]
    workers: dict[int, WorkerRow]
    periodics: dict[Key, PeriodicRow] = field(default_factory=dict)
    progress: dict[int, ProgressRow] = field(default_factory=dict)

    def waiting(self) -> list[JobRow]:
        return [job for job in self.jobs.values() if job.status is Status.TODO]

    def running(self) -> list[JobRow]:
        return [job for job in self.jobs.values() if job.status is Status.DOING]

    def aged(self, by: timedelta) -> State:
        """Return the same rows with all times moved back, as `PostgreSQL.let_pass` moves them."""
        return replace(
            self,
            jobs=_aged(self.jobs, _TIMES["procrastinate_jobs"], by),
            periodics=_aged(self.periodics, _TIMES["procrastinate_periodic"], by),
        )


def _aged(rows: Mapping[K, R], columns: Sequence[str], by: timedelta) -> dict[K, R]:
    aged = {}
    for key, row in rows.items():
        times = {name: getattr(row, name) for name in columns}
        aged[key] = replace(row, **{name: at and at - by for name, at in times.items()})
    return aged


@dataclass(frozen=True)
class Shown:
    """What one side showed of a step."""

    value: Any
    error: tuple[Any, ...] | None
    statements: list[tuple[str, list[Any]]]
    heard: list[tuple[str, str]]
    state: State
    woken: list[int] = field(default_factory=list)  # the jobs whose ends the program is told


# --- comparing -----------------------------------------------------------------------------------


def differences_of(expected: Shown, actual: Shown) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs: where, in PostgreSQL, in memory."""
    for part in ("value", "error", "heard"):
        yield from _differing(part, expected, actual, part)
    statements = (_compared(each.statements) for each in (expected, actual))
    for one, other in itertools.zip_longest(*statements):
        if not alike(one, other, expected.state.now, actual.state.now):
            yield ("statement", one, other)
    for part in ("jobs", "locks", "workers", "periodics", "progress"):
        rows, other_rows = getattr(expected.state, part), getattr(actual.state, part)
        for key in sorted(rows.keys() | other_rows.keys(), key=str):
            one, other = rows.get(key), other_rows.get(key)
            if not alike(one, other, expected.state.now, actual.state.now):
                yield (f"{part} {key}", one, other)


def _compared(statements: Sequence[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """Leave out what the memory, in which nobody waits, has no reason for."""
    return [each for each in statements if each[0] != "wake_waiters"]


def _differing(name: str, one: Shown, other: Shown, part: str) -> Iterator[Any]:
    pair = getattr(one, part), getattr(other, part)
    if not alike(*pair, one.state.now, other.state.now):
        yield (name, *pair)


def alike(one: Any, other: Any, now: datetime, other_now: datetime) -> bool:
    """Whether two values are equal, where times are equal if their ages nearly are."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs((now - one) - (other_now - other)) < TOLERANCE
    if is_dataclass(one) and type(one) is type(other):
        names = [each.name for each in fields(one)]
        return all(
            alike(getattr(one, name), getattr(other, name), now, other_now) for name in names
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            alike(one[key], other[key], now, other_now) for key in one
        )
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(
            alike(*pair, now, other_now) for pair in zip(one, other, strict=True)
        )
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

    def __init__(self, executor: Executor, before: Callable[[], None] = lambda: None) -> None:
        self.executor = executor
        self.before = before
        self.seen: list[tuple[str, list[Any]]] = []

    def execute(self, query: Query, /) -> Rows:
        self.before()
        rows = self.executor.execute(query)
        shown = sorted(map(_SHOWN.get(query.name, tuple), rows), key=_without_ages)
        self.seen.append((query.name, shown))
        return rows


def _with_its_moment(row: Row) -> Row:
    moment_us = row[-1]
    return (*row[:-1], None if moment_us is None else datetime.fromtimestamp(moment_us / 1e6, UTC))


def _unawaited(row: Row) -> Row:
    return row[:-1]


#: What is compared where it is not the whole row: a wait without its length, (None, ...) for a
#: batch of which several queueing locks are taken, since any of them may be named, a claim's
#: moment as a time, and an ending without whether somebody waits for it.
_SHOWN: dict[str, Callable[[Row], Row]] = {
    "promote_due": lambda row: (row[0], row[1] is None, row[2]),
    "sweep": lambda row: (*row[:3], row[3] is None, row[4]),
    "defer_jobs": lambda row: row[:1],
    **dict.fromkeys((name for name in STATEMENTS if name.startswith("claim_")), _with_its_moment),
    **{
        name: lambda row: _with_its_moment((*row[:-2], row[-1]))
        for name in ("hand_over", "hand_over_with_results")
    },
    **dict.fromkeys(
        (
            "finish_jobs",
            "finish_jobs_that_returned_nothing",
            "finish_jobs_with_results",
            "settle_jobs",
            "settle_jobs_with_results",
            "delete_finished",
        ),
        _unawaited,
    ),
}


def _without_ages(row: Row) -> str:
    return repr([value for value in row if not isinstance(value, datetime)])


def _in_order(value: Any) -> Any:
    """Give what has no order of its own one that both sides share."""
    unordered = isinstance(value, list) and bool(value) and isinstance(value[0], Recovered)
    return sorted(value, key=repr) if unordered or isinstance(value, set) else value


def _error_of(exc: ProcrastinateException) -> tuple[Any, ...]:
    cause = exc if isinstance(exc, ConnectorException) else exc.__cause__
    return (type(exc), getattr(cause, "sqlstate", None), getattr(cause, "constraint", None))


# --- PostgreSQL ----------------------------------------------------------------------------------

_COLUMNS = {
    "errors": "case when errors is not null"
    " then array(select each::text from jsonb_array_elements(errors) as each) end",
    **{name: f"{name}::text" for name in ("args", "status", "hold", "meta", "result")},
}
_JOB_COLUMNS = ", ".join(_COLUMNS.get(each.name, each.name) for each in fields(JobRow))
_WORKER_COLUMNS = ", ".join(each.name for each in fields(WorkerRow))
_PERIODIC_COLUMNS = ", ".join(each.name for each in fields(PeriodicRow))
_TIMES = {
    "procrastinate_jobs": (
        "deferred_at",
        "scheduled_at",
        "started_at",
        "finished_at",
        "unknown_since",
        "first_started_at",
    ),
    "procrastinate_workers": ("started_at", "last_heartbeat", "blocked_since"),
    "procrastinate_periodic": ("done_until", "last_tick", "seen_at"),
    "procrastinate_progress": ("updated_at",),
}

#: The columns of each table that are compared. The partition is always 0; of the migrations, the
#: memory has but what it needs.
COMPARED = {
    "procrastinate_jobs": {each.name for each in fields(JobRow)},
    "procrastinate_locks": {"lock", "job_id"},
    "procrastinate_workers": {each.name for each in fields(WorkerRow)},
    "procrastinate_periodic": {each.name for each in fields(PeriodicRow)},
    "procrastinate_progress": {"job_id", "lease", "fraction", "message", "data", "updated_at"},
}


class PostgreSQL:
    """A database, on one connection that stays open."""

    def __init__(self, connection: Any) -> None:
        connection.autocommit = True
        self.connection = connection
        self.executor = bound(connection)
        for channel in (*CHANNELS, ENDS):
            self.select(f"listen {channel}")

    def select(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    def reset(self) -> None:
        self.select(f"truncate {', '.join(COMPARED)}, procrastinate_waits restart identity")

    def now_and_next_id(self) -> tuple[datetime, int]:
        ((self.now, next_id),) = self.select(
            "select clock_timestamp(), last_value + is_called::integer"
            " from procrastinate_jobs_id_seq"
        )
        return self.now, next_id

    def run(self, make: Make) -> Shown:
        recorder = Recorder(self.executor)
        value, error = None, None
        self.select("begin")
        try:
            value = drive.run(make(self.now), recorder, sql)
            self.select("commit")
        except ProcrastinateException as exc:
            error = _error_of(exc)
            self.select("rollback")
        return self._outcome(_in_order(value), error, recorder.seen)

    def _outcome(self, value: Any, error: Any, seen: list[Any]) -> Shown:
        state = self._state()  # after which what was committed has been heard, too
        said = [(each.channel, each.payload) for each in self.connection.notifies]
        self.connection.notifies.clear()
        heard = sorted({each for each in said if each[0] != ENDS})
        ends = " ".join(payload for channel, payload in said if channel == ENDS)
        return Shown(value, error, seen, heard, state, sorted(map(int, ends.split())))

    def _state(self) -> State:
        rows = self.select(f"select {_JOB_COLUMNS} from procrastinate_jobs order by id")
        workers = self.select(f"select {_WORKER_COLUMNS} from procrastinate_workers order by id")
        periodics = self.select(f"select {_PERIODIC_COLUMNS} from procrastinate_periodic")
        progress = self.select(
            "select job_id, lease, round(fraction * 1000000)::integer, message, data::text,"
            " updated_at from procrastinate_progress"
        )
        return State(
            self.now,
            {row[0]: _job_row(row) for row in rows},
            dict(self.select("select lock, job_id from procrastinate_locks")),
            {row[0]: WorkerRow(*row) for row in workers},
            {row[:2]: PeriodicRow(*row) for row in periodics},
            {row[0]: ProgressRow(*row) for row in progress},
        )

    def let_pass(self, amount: timedelta) -> Shown:
        """Move all times back, and do what the memory does when its clock moves."""
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{column} = {column} - %s" for column in columns)
            self.select(f"update {table} set {moved}", *[amount] * len(columns))
        outcome = self.run(lambda now: claim.promote_due())
        return replace(outcome, value=None, statements=[])

    def park(self, job_id: int) -> None:
        self.select("update procrastinate_jobs set hold = 'lock' where id = %s", job_id)

    def delete(self, job_id: int) -> None:
        self.select("delete from procrastinate_jobs where id = %s", job_id)

    def set_ahead(self, key: Key, by: timedelta) -> None:
        self.select(
            "update procrastinate_periodic set done_until = %s, seen_at = %s"
            " where (task_name, periodic_id) = (%s, %s)",
            *(self.now + by, self.now + by, *key),
        )

    def delete_schedule(self, key: Key) -> None:
        self.select(
            "delete from procrastinate_periodic where (task_name, periodic_id) = (%s, %s)", *key
        )


def _job_row(row: tuple[Any, ...]) -> JobRow:
    job = JobRow(*row)
    errors = None if job.errors is None else tuple(job.errors)
    return replace(job, status=Status(job.status), errors=errors)


# --- memory --------------------------------------------------------------------------------------


class Memory:
    """The in-memory connector, through its synchronous half."""

    def __init__(self) -> None:
        self.connector = InMemoryConnector().sync_connector()
        self.store = self.connector._store
        self.heard: set[tuple[str, str]] = set()
        self.store.add_listener(self)  # type: ignore[arg-type]

    owner = None
    channels = frozenset(CHANNELS)

    def put(self, item: Notification) -> None:
        self.heard.add((item.channel, item.payload))

    def reset(self) -> None:
        self.connector.reset()
        self.ahead = timedelta()

    def align(self, now: datetime, next_id: int) -> None:
        """Set the clock, and the next id: a refused insert has used one up over there."""
        self.now = now.astimezone(UTC) + self.ahead
        self._set_clock(self.now)
        self.store._tables.job_ids = itertools.count(next_id)

    def run(self, make: Make) -> Shown:
        value, error, seen = None, None, []
        try:
            with self.connector.session(transaction=True) as executor:
                recorder = Recorder(executor, self._let_a_moment_pass)
                seen = recorder.seen
                value = drive.run(make(self.now), recorder, sql)
        except ProcrastinateException as exc:
            error = _error_of(exc)
        return self._outcome(_in_order(value), error, seen)

    def _let_a_moment_pass(self) -> None:
        self._set_clock(self.connector.clock.now() + MOMENT)

    def _set_clock(self, now: datetime) -> None:
        self.connector.clock._frozen = now  # (freezing would promote due jobs)

    def _outcome(self, value: Any, error: Any, seen: list[Any]) -> Shown:
        heard = sorted(self.heard)
        self.heard.clear()
        tables = self.store._tables
        state = State(
            self.now,
            {row.id: row for row in self.store.job_rows()},
            dict(tables.locks.committed.values()),
            dict(sorted(tables.workers.committed.items())),
            dict(tables.periodics.committed),
            dict(tables.progress.committed),
        )
        return Shown(value, error, seen, heard, state)

    def let_pass(self, amount: timedelta) -> Shown:
        self.ahead += amount
        self.now = self.connector.clock.move(amount)
        return self._outcome(None, None, [])

    def park(self, job_id: int) -> None:
        table = self.store._tables.jobs.committed
        table[job_id] = replace(table[job_id], hold="lock")

    def delete(self, job_id: int) -> None:
        del self.store._tables.jobs.committed[job_id]

    def set_ahead(self, key: Key, by: timedelta) -> None:
        table = self.store._tables.periodics.committed
        table[key] = replace(table[key], done_until=self.now + by, seen_at=self.now + by)

    def delete_schedule(self, key: Key) -> None:
        del self.store._tables.periodics.committed[key]


# --- both ----------------------------------------------------------------------------------------


class Sides:
    """A database and a memory, which are to stay in the same state."""

    def __init__(self, connection: Any) -> None:
        self.postgresql = PostgreSQL(connection)
        self.memory = Memory()

    def reset(self) -> None:
        self.postgresql.reset()
        self.memory.reset()

    def run(self, make: Make) -> Shown:
        """Run a flow on both and return what PostgreSQL showed. Raises where they differ."""
        self._align()
        return _agreed(self.postgresql.run(make), self.memory.run(make))

    def let_pass(self, amount: timedelta) -> Shown:
        """Let time pass, and what has become due be ready."""
        self._align()
        return _agreed(self.postgresql.let_pass(amount), self.memory.let_pass(amount))

    def park(self, job_id: int) -> None:
        """Damage: park a job that waits for nobody."""
        self.postgresql.park(job_id)
        self.memory.park(job_id)

    def delete(self, job_id: int) -> None:
        """Damage: delete a job, and leave its lock."""
        self.postgresql.delete(job_id)
        self.memory.delete(job_id)

    def set_ahead(self, key: Key, by: timedelta) -> None:
        """Damage: what a schedule's row tells lies ahead, as after a clock was set back."""
        self.postgresql.set_ahead(key, by)
        self.memory.set_ahead(key, by)

    def delete_schedule(self, key: Key) -> None:
        """Damage: delete a schedule's row."""
        self.postgresql.delete_schedule(key)
        self.memory.delete_schedule(key)

    def ahead_of_server(self, now: datetime) -> timedelta:
        """How far the clock of the side whose time is ``now`` is ahead of the server's."""
        return now - self.postgresql.now

    def _align(self) -> None:
        self.memory.align(*self.postgresql.now_and_next_id())


def _agreed(expected: Shown, actual: Shown) -> Shown:
    differences = [
        f"{where}\n    PostgreSQL: {one}\n    memory:     {other}"
        for where, one, other in differences_of(expected, actual)
    ]
    assert not differences, "they differ in " + "\n".join(differences)
    return expected
