"""Faults that a server does to sessions and statements while it runs."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg2

from chaos.cluster import insist
from chaos.faults.base import NETWORK, SERVER, Fault
from chaos.records import Effect

if TYPE_CHECKING:
    from chaos.world import World

OURS = "from pg_stat_activity where usename = 'chaos' and backend_type = 'client backend'"


class Terminate(Fault):
    """pg_terminate_backend of some sessions, or all."""

    name, lane = "sessions: terminate", SERVER

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name) as note:
            share = chance.choice((0.2, 1.0))
            note.seen = terminate(world, share) > 0


class Cancel(Fault):
    """pg_cancel_backend, again and again for a second, until it has met running statements."""

    name, lane = "sessions: cancel", SERVER

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name) as note, log_of(world) as log:
            end = time.monotonic() + chance.uniform(0.5, 2)
            while time.monotonic() < end:
                world.cluster.query(f"select pg_cancel_backend(pid) {OURS} and state = 'active'")
            note.seen = log.says("canceling statement due to user request")


class NoConnections(Fault):
    """All connections are taken, and those of the workers are ended, so that they need new ones."""

    name, lane = "sessions: no connections left", SERVER
    weight = 0.7

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, Effect.AWAY) as note, log_of(world) as log:
            taken: list[Any] = []
            try:
                take_all(world, taken)
                terminate(world, chance.choice((0.3, 1.0)), but=taken)
                take_all(world, taken)
                world.hold(chance.uniform(1, 3))
                note.seen = log.says("remaining connection slots are reserved|too many clients")
            finally:
                for connection in taken:
                    connection.close()


def take_all(world: World, taken: list[Any]) -> None:
    """Open connections until there are no more."""
    while True:
        try:
            taken.append(psycopg2.connect(world.cluster.dsn()))
        except psycopg2.OperationalError:
            return


class RoleSetting(Fault):
    """A setting of the role that ends statements or sessions, for a while."""

    lane = SERVER
    setting: ClassVar[str]
    value: ClassVar[str]
    words: ClassVar[str]  # what the server says where it strikes

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, Effect.AWAY) as note, log_of(world) as log:
            world.cluster.query(f"alter role chaos set {self.setting} = '{self.value}'")
            try:
                terminate(world, 1.0)  # a new session takes it
                self.last(world, chance)
            finally:
                world.cluster.query(f"alter role chaos reset {self.setting}")
                terminate(world, 1.0)
            note.seen = log.says(self.words)

    def last(self, world: World, chance: random.Random) -> None:
        """Let it last."""
        world.hold(chance.uniform(1, 3))


class StatementTimeout(RoleSetting):
    """Most statements take longer than they may."""

    name = "role: statement_timeout"
    setting, value = "statement_timeout", "3ms"
    words = "canceling statement due to statement timeout"


class LockTimeout(RoleSetting):
    """Statements may not wait for a lock, and the table is locked now and then."""

    name = "role: lock_timeout"
    setting, value = "lock_timeout", "20ms"
    words = "canceling statement due to lock timeout"

    def last(self, world: World, chance: random.Random) -> None:
        for _ in range(3):
            with locked(world, "procrastinate_jobs", "exclusive"):
                world.hold(0.4)
            world.hold(0.4)


class IdleTimeout(RoleSetting):
    """A transaction may not pause, and the network is slow."""

    name = "role: idle_in_transaction_session_timeout"
    lane = NETWORK
    setting, value = "idle_in_transaction_session_timeout", "10ms"
    words = "terminating connection due to idle-in-transaction timeout"

    def last(self, world: World, chance: random.Random) -> None:
        world.proxy.delay(0.05)
        world.hold(chance.uniform(2, 4))
        world.proxy.delay(0)


class ReadOnly(RoleSetting):
    """The server takes no writes."""

    name = "role: read-only"
    setting, value = "default_transaction_read_only", "on"
    words = "in a read-only transaction"


class TableLock(Fault):
    """The jobs are locked as by CREATE INDEX: no write passes, and all workers beat on."""

    name, lane = "table lock: jobs", SERVER
    weight = 0.5
    table: ClassVar[str] = "procrastinate_jobs"
    effects: ClassVar[tuple[Effect, ...]] = (Effect.BLOCKS,)

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, *self.effects) as note, locked(world, self.table, "share"):
            world.hold(world.scale.table_lock)
            note.seen = bool(world.cluster.query("select 1 from pg_locks where not granted"))


class WorkersLock(TableLock):
    """The workers' rows are locked: no beat is written."""

    name = "table lock: workers"
    table = "procrastinate_workers"
    effects = (Effect.AWAY,)


class OldSnapshot(Fault):
    """A transaction that keeps its snapshot: nothing that has ended can be vacuumed."""

    name, lane = "old snapshot", SERVER
    weight = 0.5

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name) as note, session(world) as cursor:
            cursor.execute("begin isolation level repeatable read")
            cursor.execute("select count(*) from procrastinate_jobs")
            before = cursor.fetchone()
            world.hold(world.scale.table_lock / 2)
            cursor.execute("select count(*) from procrastinate_jobs")
            now = world.cluster.query("select count(*) from procrastinate_jobs")[0]
            note.seen = cursor.fetchone() == before != now


class Ddl(Fault):
    """Changes of the tables, and their upkeep. Seen if jobs began meanwhile."""

    name, lane = "DDL under load", SERVER

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name) as note, session(world) as cursor:
            before = runs(world)
            for statements in chance.sample(STATEMENTS, 4):
                for statement in statements:
                    run_through(world, cursor, statement)
            note.seen = runs(world) > before


STATEMENTS = (
    (
        "create index concurrently chaos_idx on procrastinate_jobs (task_name)",
        "drop index concurrently if exists chaos_idx",
    ),
    (
        "alter table procrastinate_jobs add column chaos integer default 7",
        "alter table procrastinate_jobs drop column if exists chaos",
    ),
    (
        "alter table procrastinate_workers add column chaos integer",
        "alter table procrastinate_workers drop column if exists chaos",
    ),
    ("vacuum full procrastinate_jobs",),
    ("vacuum analyze procrastinate_jobs",),
    ("reindex table procrastinate_jobs",),
    ("reindex table concurrently procrastinate_jobs",),
    ("cluster procrastinate_jobs using procrastinate_jobs_pkey",),
    ("alter table procrastinate_jobs set (fillfactor = 60)",),
)


def run_through(world: World, cursor: Any, statement: str) -> None:
    """Execute a statement until it is through: a deadlock is no fault of its own."""
    while True:
        try:
            cursor.execute(statement)
            return
        except (psycopg2.errors.DeadlockDetected, psycopg2.errors.LockNotAvailable):
            world.hold(0.05)


# --- Helpers --------------------------------------------------------------------------------------


def runs(world: World) -> int:
    """Return how many runs have begun so far."""
    return int(world.ledger.query("select count(*) from began")[0][0])


def terminate(world: World, share: float, but: list[Any] | None = None) -> int:
    """End sessions of the workers and deferrers; return how many."""
    kept = [connection.get_backend_pid() for connection in but or ()]
    rows = world.cluster.query(
        f"select pg_terminate_backend(pid) {OURS} and pid <> all (%s) and random() < %s",
        kept,
        share,
    )
    return len(rows)


@contextmanager
def session(world: World) -> Iterator[Any]:
    """A session of the superuser's, in autocommit; a server that another fault ended is awaited."""
    connection = insist(lambda: psycopg2.connect(world.cluster.dsn("postgres")))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def locked(world: World, table: str, mode: str) -> Iterator[None]:
    """Hold a lock on a table."""
    with session(world) as cursor:
        cursor.execute("begin")
        cursor.execute(f"lock table {table} in {mode} mode")
        yield
        cursor.execute("rollback")


class Log:
    """What the server has written since a moment."""

    def __init__(self, world: World) -> None:
        self._path = world.cluster.log
        self._from = self._path.stat().st_size

    def says(self, words: str) -> bool:
        """Return whether it has written something like this."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            return re.search(words.encode(), log.read()) is not None


@contextmanager
def log_of(world: World) -> Iterator[Log]:
    """The server's log from now on."""
    yield Log(world)


FAULTS: list[type[Fault]] = [
    Terminate,
    Cancel,
    NoConnections,
    StatementTimeout,
    LockTimeout,
    IdleTimeout,
    ReadOnly,
    TableLock,
    WorkersLock,
    OldSnapshot,
    Ddl,
]
