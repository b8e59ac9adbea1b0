"""The grants that the documentation lists suffice, and the enqueue-only role gets no further.

The statements are taken from the page as they stand there; only the names of the roles are made
unique, since roles belong to the whole server.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.drive import Flow
from procrastinate.storage.distributing import check_places
from procrastinate.storage.partitioning import into_partitions

PAGE = Path(__file__).parents[4] / "docs" / "howto" / "schema.md"
ENQUEUER = "enqueue-only role"
WORKER = "worker role"
READER = "reader role"
FUNCTIONS = ("defer_alike", "defer_job", "defer_job_with_key", "defer_jobs")
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
#: The others say the schema of each name; tests/storage/test_name_resolution.py sees to that.
PATHS = {name: ["search_path=pg_catalog, pg_temp"] for name in ("defer_alike", "defer_jobs")}


def grants() -> dict[str, str]:
    """Return the page's blocks of grants, by the comment that heads each."""
    fence = r"^```(?:plpg)?sql\n-- (.+)\n([^`]+)^```$"
    blocks = re.findall(fence, PAGE.read_text("utf-8"), re.MULTILINE)
    return {head: text for head, text in blocks if "GRANT" in text}


def statements(text: str) -> list[str]:
    """Return the statements of a block: each ends at the end of a line."""
    return [" ".join(each.split()) for each in re.split(r";$", text, flags=re.M) if each.strip()]


def test_the_page_lists_the_grants_of_three_roles_in_two_schemas():
    assert sorted(grants()) == [
        "enqueue-only role",
        "enqueue-only role, schema queue",
        "reader role",
        "reader role, schema queue",
        "worker role",
        "worker role, schema queue",
    ]
    kinds = {each.split()[0] for text in grants().values() for each in statements(text)}
    assert kinds == {"DO", "GRANT"}


def test_the_page_counts_what_there_is(sync_app: procrastinate.App, query: Any):
    """Types and tables have others of their own: of arrays and rows, and for TOAST."""
    ((tables, sequences, types, functions),) = query(
        "select count(*) filter (where relkind = 'r'), count(*) filter (where relkind = 'S'),"
        " (select count(*) from pg_type where typtype = 'e' and starts_with(typname, 'procras')),"
        " (select count(*) from pg_proc where starts_with(proname, 'procras'))"
        " from pg_class where starts_with(relname, 'procrastinate_')"
    )
    words = re.search(
        r"in (\w+) tables, (\w+) sequences, (\w+) types and (\w+) functions",
        PAGE.read_text("utf-8"),
    )
    assert words is not None
    numbers = [WORDS.index(each) + 1 for each in words.groups()]
    assert numbers == [tables, sequences, types, functions]


@pytest.mark.parametrize("role", [ENQUEUER, WORKER, READER])
def test_the_grants_for_a_schema_are_those_for_public_with_its_name(role: str):
    in_public = [each.replace("SCHEMA public", "SCHEMA queue") for each in _of(role)]
    assert _of(f"{role}, schema queue") == [
        re.sub(r"\bprocrastinate_", "queue.procrastinate_", each) for each in in_public
    ]


def _of(head: str) -> list[str]:
    return statements(grants()[head])


@dataclass
class Place:
    """A database with procrastinate's tables in some schema, and who may do what there."""

    dsn: str
    schema: str | None
    roles: dict[str, str]
    query: Callable[..., list[tuple[Any, ...]]]

    def dsn_of(self, role: str) -> str:
        name = self.roles[role]
        return psycopg2.extensions.make_dsn(self.dsn, user=name, password=name)

    def table(self, name: str) -> str:
        return f"{self.schema or 'public'}.procrastinate_{name}"

    def owner(self) -> procrastinate.App:
        return procrastinate.App(
            connector=procrastinate.Psycopg2Connector(dsn=self.dsn, schema=self.schema)
        )

    def app(self, role: str, connector: str = "Psycopg2Connector") -> procrastinate.App:
        kind = getattr(procrastinate, connector)
        return procrastinate.App(connector=kind(dsn=self.dsn_of(role), schema=self.schema))

    def as_(self, role: str, sql: str) -> None:
        """Run SQL as a role."""
        connection = psycopg2.connect(self.dsn_of(role))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()


@pytest.fixture(params=[None, "queue"])
def place(
    request: pytest.FixtureRequest,
    procrastinate_dsn: str,
    query: Callable[..., list[tuple[Any, ...]]],
) -> Iterator[Place]:
    """The tables, and two roles with nothing but the page's grants."""
    with _granted(procrastinate_dsn, request.param, query) as place:
        yield place


@pytest.fixture(params=[None, "queue"])
def wide_place(
    request: pytest.FixtureRequest,
    procrastinate_dsn: str,
    query: Callable[..., list[tuple[Any, ...]]],
) -> Iterator[Place]:
    """The same with the jobs in 64 partitions when the grants were given."""
    with _granted(procrastinate_dsn, request.param, query, into_partitions()) as place:
        yield place


@contextmanager
def _granted(
    dsn: str,
    schema: str | None,
    query: Callable[..., list[tuple[Any, ...]]],
    before: Flow[Any] | None = None,
) -> Iterator[Place]:
    """Make the tables, drive a flow on them, and grant; take the roles away at the end."""
    owner = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn, schema=schema))
    with owner.open():
        owner.schema_manager.apply_schema()
        if before is not None:
            owner._gateway.run(before, transaction=True)
    query("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    unique = uuid.uuid4().hex[:12]
    roles = {
        ENQUEUER: f"shop_web_{unique}",
        WORKER: f"shop_worker_{unique}",
        READER: f"shop_reader_{unique}",
    }
    try:
        for head, name in roles.items():
            query(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
            query(_renamed(grants()[head + (", schema queue" if schema else "")], unique))
        yield Place(dsn, schema, roles, query)
    finally:
        for name in roles.values():
            if query("SELECT 1 FROM pg_roles WHERE rolname = %s", name):
                query(f"DROP OWNED BY {name}")
                query(f"DROP ROLE {name}")


def _renamed(text: str, unique: str) -> str:
    return re.sub(r"\b(shop_web|shop_worker|shop_reader)\b", rf"\1_{unique}", text)


# --- The reader's role ----------------------------------------------------------------------------


def test_the_reader_s_role_lists_everything_and_changes_nothing(place: Place):
    with place.owner().open() as owner:
        job_id = owner.configure_task("add", lock="one").defer(a=1)
    with place.app(READER).open() as app:
        app.schema_manager.check()
        manager = app.job_manager
        assert [job.id for job in manager.list_jobs()] == [job_id]
        assert [queue.name for queue in manager.list_queues()] == ["default"]
        assert [task.name for task in manager.list_tasks()] == ["add"]
        assert len(manager.list_locks()) == 1
        assert manager.get_stalled_jobs() == []
        assert app.queue_manager.list_pauses() == []
        for change in (
            lambda: app.configure_task("add").defer(a=1),
            lambda: manager.cancel_job_by_id(job_id),
            lambda: manager.retry_job_by_id(job_id),
            lambda: app.queue_manager.pause("mail"),
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                change()
    rights = place.query(
        "SELECT DISTINCT privilege_type::text FROM information_schema.table_privileges"
        " WHERE grantee = %s",
        place.roles[READER],
    )
    assert rights == [("SELECT",)]


# --- The enqueue-only role ------------------------------------------------------------------------


def test_the_enqueue_only_role_defers_in_every_way(place: Place):
    with place.app(ENQUEUER).open() as app:
        every_way(app)
        assert app.check_connection()
    place.as_(ENQUEUER, f"SELECT {place.table('defer_job')}('add', queueing_lock => 'other')")
    counts = place.query(
        f"SELECT status::text, hold::text, count(*) FROM {place.table('jobs')}"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert counts == [("todo", "lock", 1), ("todo", "schedule", 2), ("todo", None, 5)]


def test_the_enqueue_only_role_checks_the_schema(place: Place):
    with place.app(ENQUEUER).open() as app:
        state = app.schema_manager.check()
        assert (state.partitions.count, app._gateway.run(check_places())) == (1, 0)


def every_way(app: procrastinate.App) -> None:
    """Defer one, many, later, with locks, and where a job waits already."""
    app.configure_task("add", queue="sums", priority=1, lock="one").defer(a=1)
    app.configure_task("add", schedule_in=timedelta(seconds=5)).defer(a=1)
    app.configure_task("add", partition_key="mine").defer(a=1)
    app.configure_task("add", lock="one").batch_defer({"a": 1}, {"a": 2})
    app.configure_task("add", schedule_in=timedelta(hours=1)).batch_defer({"a": 1})
    once = app.configure_task("add", queueing_lock="once")
    once.defer(a=1)
    with pytest.raises(errors.AlreadyEnqueued, match="'once'"):
        once.defer(a=1)
    with pytest.raises(errors.AlreadyEnqueued, match="'once'"):
        once.batch_defer({"a": 1})


async def test_the_enqueue_only_role_defers_asynchronously(place: Place):
    async with place.app(ENQUEUER, "AiopgConnector").open_async() as app:
        once = app.configure_task("add", queueing_lock="once")
        await once.defer_async(a=1)
        with pytest.raises(errors.AlreadyEnqueued):
            await once.batch_defer_async({"a": 1})


def test_the_enqueue_only_role_is_granted_four_functions_and_needs_all(place: Place):
    role = place.roles[ENQUEUER]
    on_columns = place.query(
        "SELECT table_name::text, column_name::text FROM information_schema.column_privileges"
        " WHERE grantee = %s AND table_name <> 'procrastinate_migrations'",
        role,
    )
    assert on_columns == []
    with place.app(ENQUEUER).open() as app:
        for name in FUNCTIONS:
            place.query(f"REVOKE EXECUTE ON FUNCTION {place.table(name)} FROM {role}")
            with pytest.raises(errors.InsufficientPrivilege, match=name):
                every_way(app)
            place.query(f"GRANT EXECUTE ON FUNCTION {place.table(name)} TO {role}")
            place.query(f"DELETE FROM {place.table('jobs')}")
        every_way(app)


def test_the_functions_are_for_those_they_are_granted_to(place: Place):
    """They belong to the owner of the tables, and take no names from the caller's search_path."""
    rows = place.query(
        "SELECT proname::text, prosecdef, proowner = relowner, proconfig,"
        " has_function_privilege('public', proc.oid, 'EXECUTE')"
        " FROM pg_proc AS proc JOIN pg_class ON pg_class.oid = %s::regclass"
        " WHERE pronamespace = relnamespace AND proname <> 'procrastinate_job_fits' ORDER BY 1",
        place.table("jobs"),
    )
    assert rows == [
        (f"procrastinate_{name}", True, True, PATHS.get(name), False) for name in FUNCTIONS
    ]


def test_migrating_grants_the_functions_to_every_role_that_could_insert_jobs(
    place: Place, query: Callable[..., Any]
):
    """Whether it was granted the table, or columns, or everybody was."""
    role, jobs = place.roles[ENQUEUER], place.table("jobs")

    def may_defer() -> bool:
        ((may,),) = query(
            "SELECT has_function_privilege(%s, %s::regproc, 'EXECUTE')",
            role,
            place.table("defer_jobs"),
        )
        return bool(may)

    with place.owner().open() as owner:
        for grant, may in (
            (None, False),
            (f"INSERT ON {jobs} TO {role}", True),
            (f"INSERT (task_name) ON {jobs} TO {role}", True),
            (f"SELECT ON {jobs} TO {role}", False),
            (f"INSERT ON {jobs} TO PUBLIC", True),
        ):
            query(f"REVOKE ALL ON {jobs} FROM {role}, PUBLIC")
            if grant is not None:
                query(f"GRANT {grant}")
            for name in FUNCTIONS:
                query(f"DROP FUNCTION {place.table(name)}")
            assert owner.schema_manager.migrate() == ["functions"]
            assert may_defer() is may, grant


FORBIDDEN = [
    "SELECT args FROM {jobs}",
    "SELECT task_name, lock, errors, attempts, worker_id FROM {jobs}",
    "SELECT * FROM {jobs}",
    "INSERT INTO {jobs} (queue_name, task_name) VALUES ('q', 't')",
    "INSERT INTO {jobs} (id, queue_name, task_name) VALUES (5, 'q', 't')",
    "SELECT id FROM {jobs}",
    "SELECT nextval('{jobs_id_seq}')",
    "INSERT INTO {jobs} (queue_name, task_name, status) VALUES ('q', 't', 'succeeded')",
    "UPDATE {jobs} SET priority = 1",
    "UPDATE {jobs} SET status = 'cancelled'",
    "SELECT id FROM {jobs} FOR UPDATE",
    "DELETE FROM {jobs}",
    "TRUNCATE {jobs}",
    "LOCK TABLE {jobs} IN ACCESS EXCLUSIVE MODE",
    "SELECT * FROM {workers}",
    "INSERT INTO {workers} (name) VALUES ('intruder')",
    "SELECT * FROM {locks}",
    "SELECT * FROM {periodic}",
    "UPDATE {periodic} SET done_until = now()",
    "DELETE FROM {locks}",
    "DELETE FROM {migrations}",
    "SELECT setval('{jobs_id_seq}', 1)",
]


def test_the_enqueue_only_role_can_do_nothing_else(place: Place):
    """Every other statement is refused; all are tried, and those that pass are told."""
    tables = {
        name: place.table(name)
        for name in ("jobs", "workers", "locks", "periodic", "migrations", "jobs_id_seq")
    }
    passed = []
    for sql in FORBIDDEN:
        try:
            place.as_(ENQUEUER, sql.format(**tables))
        except psycopg2.errors.InsufficientPrivilege:
            continue
        passed.append(sql)
    assert passed == []


def test_the_job_manager_tells_the_enqueue_only_role_what_it_lacks(place: Place):
    with place.app(ENQUEUER).open() as app:
        job_id = app.configure_task("add").defer(a=1)
        with pytest.raises(errors.InsufficientPrivilege, match="procrastinate_jobs"):
            app.job_manager.get_job(job_id)
        with pytest.raises(errors.InsufficientPrivilege, match="procrastinate_jobs"):
            app.job_manager.cancel_job_by_id(job_id)
        with pytest.raises(errors.InsufficientPrivilege, match="procrastinate_queues"):
            app.queue_manager.pause("mail")


# --- The worker role ------------------------------------------------------------------------------


@pytest.fixture
def at_work(working: Callable[..., Any]) -> Callable[..., Any]:
    """Run a worker in an app of the worker role's, with a quick heartbeat, for a block."""

    @asynccontextmanager
    async def run(app: procrastinate.App, **options: Any) -> AsyncIterator[None]:
        quick = {
            "update_heartbeat_interval": 0.1,
            "stalled_worker_timeout": 1.0,
            "abort_job_polling_interval": 0.1,
        }
        async with app.open_async(), working(app, **quick, **options):
            yield

    return run


def worker_app(place: Place) -> procrastinate.App:
    app = place.app(WORKER, "AiopgConnector")

    @app.task(name="add")
    async def add(a: int) -> None:
        return None

    @app.task(name="flaky", retry=1, pass_context=True)
    def flaky(context: procrastinate.JobContext) -> None:
        if context.job.attempts == 1:
            raise ValueError("the first time")

    @app.task(name="deferring")
    async def deferring() -> None:
        await app.configure_task("add", queueing_lock="once").defer_async(a=1)

    @app.task(name="endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    return app


def statuses(place: Place) -> dict[str, int]:
    rows = place.query(f"SELECT status::text, count(*) FROM {place.table('jobs')} GROUP BY 1")
    return dict(rows)


async def test_the_worker_role_runs_what_the_enqueue_only_role_defers(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    """Locks, schedules, retries, and tasks that defer jobs themselves."""
    with place.app(ENQUEUER).open() as web:
        web.configure_task("add", lock="one").batch_defer({"a": 1}, {"a": 2}, {"a": 3})
        web.configure_task("add", schedule_in=timedelta(milliseconds=100)).defer(a=4)
        web.configure_task("flaky", lock="one").defer()
        web.configure_task("deferring").defer()
    async with at_work(worker_app(place), concurrency=4):
        await until(lambda: statuses(place) == {"succeeded": 7})
    assert place.query(f"SELECT count(*) FROM {place.table('locks')}") == [(0,)]
    assert place.query(f"SELECT count(*) FROM {place.table('workers')}") == [(0,)]


async def test_the_worker_role_defers_periodic_tasks(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    """Also of a schedule that was not at work for more than a day."""
    app = worker_app(place)
    app.periodic(cron="* * * * * *", task_kwargs={"a": 1}, queueing_lock="once")(
        app.task(name="second")(lambda timestamp, a: None)
    )
    place.query(
        f"INSERT INTO {place.table('periodic')} (task_name, periodic_id, done_until, seen_at)"
        " VALUES ('second', '', now(), now() - interval '2 days')"
    )
    async with at_work(app):
        await until(lambda: statuses(place).get("succeeded", 0) >= 2)
    assert place.query(
        f"SELECT last_tick > now() - interval '1 minute' FROM {place.table('periodic')}"
    ) == [(True,)]


async def test_the_grants_suffice_on_a_distributed_database(
    wide_place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    with wide_place.app(ENQUEUER).open() as web:
        web.configure_task("add", lock="one").batch_defer({"a": 1}, {"a": 2})
        web.configure_task("add", partition_key="key").defer(a=3)
        web.configure_task("deferring").defer()
    app = worker_app(wide_place)
    app.periodic(cron="* * * * * *", task_kwargs={"a": 1}, lock="once")(
        app.task(name="second")(lambda timestamp, a: None)
    )
    async with at_work(app, concurrency=4):
        await until(lambda: statuses(wide_place).get("succeeded", 0) >= 7)
    names = wide_place.query(f"SELECT DISTINCT task_name FROM {wide_place.table('jobs')}")
    assert sorted(name for (name,) in names) == ["add", "deferring", "second"]
    (numbers,) = wide_place.query(
        f"SELECT has_sequence_privilege('{wide_place.roles[WORKER]}', name, 'USAGE')"
        f" FROM pg_get_serial_sequence('{wide_place.table('jobs')}', 'id') AS name"
        " WHERE name LIKE '%procrastinate_jobs_number_seq'"
    )
    assert numbers == (True,)


async def test_the_worker_role_reports_progress_and_the_reader_role_sees_it_if_it_may(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    app = worker_app(place)
    may_end = asyncio.Event()

    @app.task(name="halfway", pass_context=True)
    async def halfway(context: procrastinate.JobContext) -> None:
        context.progress(0.5)
        await may_end.wait()

    with place.app(ENQUEUER).open() as web:
        job_id = web.configure_task("halfway").defer()
    table = place.table("progress")
    async with at_work(app):
        await until(lambda: place.query(f"SELECT job_id FROM {table}") == [(job_id,)])
        with place.app(READER).open() as reader:
            seen = reader.job_manager.get_job(job_id).progress
            place.query(f"REVOKE SELECT ON {table} FROM {place.roles[READER]}")
            unseen = reader.job_manager.get_job(job_id)
        may_end.set()
    assert seen is not None
    assert seen.fraction == 0.5
    assert (unseen.status, unseen.progress) == (procrastinate.Status.DOING, None)
    assert place.query(f"SELECT job_id FROM {table}") == []


async def test_the_worker_role_recovers_the_jobs_of_a_dead_worker(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    with place.app(ENQUEUER).open() as web:
        lost = web.configure_task("add", lock="one").defer(a=1)
    jobs, workers, locks = (place.table(name) for name in ("jobs", "workers", "locks"))
    place.query(
        f"INSERT INTO {workers} (id, name, last_heartbeat) VALUES (99, 'dead', '2020-01-01');"
        f"INSERT INTO {locks} (lock, job_id) VALUES ('one', {lost});"
        f"UPDATE {jobs} SET status = 'doing', worker_id = 99, attempts = 1"
    )
    async with at_work(worker_app(place)):
        await until(lambda: statuses(place) == {"succeeded": 1})
        await until(lambda: place.query(f"SELECT name FROM {workers} WHERE id = 99") == [])
    assert place.query(f"SELECT attempts, crashes FROM {jobs}") == [(2, 1)]


async def test_the_worker_role_cancels_aborts_retries_and_deletes_jobs(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    with place.app(ENQUEUER).open() as web:
        waiting = web.configure_task("add", schedule_in=timedelta(hours=1)).defer(a=1)
        running = web.configure_task("endless").defer()
    app = worker_app(place)
    async with at_work(app):
        await until(lambda: statuses(place) == {"todo": 1, "doing": 1})
        assert await app.job_manager.cancel_job_by_id_async(waiting)
        assert await app.job_manager.cancel_job_by_id_async(running, abort=True)
        await until(lambda: statuses(place) == {"cancelled": 1, "aborted": 1})
        assert await app.job_manager.retry_job_by_id_async(waiting)
        await until(lambda: statuses(place) == {"succeeded": 1, "aborted": 1})
        assert await app.job_manager.get_stalled_jobs_async() == []
        await app.queue_manager.pause_async("mail")
        assert await app.queue_manager.resume_async("mail")
        deleted = await app.job_manager.delete_old_jobs_async(
            older_than=timedelta(0), statuses=["succeeded", "aborted"]
        )
    assert (deleted, statuses(place)) == (2, {})


async def test_the_worker_role_deletes_jobs_that_ended(
    place: Place, at_work: Callable[..., Any], until: Callable[..., Any]
):
    with place.app(ENQUEUER).open() as web:
        web.configure_task("add", lock="one").batch_defer({"a": 1}, {"a": 2})
    async with at_work(worker_app(place), delete_jobs="always"):
        await until(lambda: statuses(place) == {})
