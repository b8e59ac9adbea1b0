"""What ``procrastinate import`` takes from tables of releases up to 3.x, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import older_schemas
import psycopg2
import pytest

import procrastinate
from procrastinate import drive, errors
from procrastinate.errors import SchemaError
from procrastinate.storage import import_texts, importing, old_tables
from procrastinate.storage.importing import ROOM, Imported, Left, are_running
from procrastinate.storage.partitioning import into_partitions

Query = Callable[..., list[tuple[Any, ...]]]
pytestmark = pytest.mark.one_partition("it makes tables of its own, which are not distributed")

OLD = old_tables.OldTables("public", "queue", has_priority=True, knows_cancelled=True)
RELEASES = ("0.33", "2.15", "3.10")
TAKEN = {"0.33": "failed", "2.15": "cancelled", "3.10": "cancelled"}


@pytest.fixture
def release(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "3.10")


@pytest.fixture
def app(procrastinate_dsn: str, query: Query, release: str) -> Iterator[procrastinate.App]:
    """An app with tables in the schema "queue", beside those of an old release in "public"."""
    query(older_schemas.release(release))
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn, schema="queue")
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
        yield app


class Old:
    """The old tables."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def add(self, **columns: Any) -> int:
        """Add a job with these columns; its queue is "mail" and its task "send" if not said."""
        columns = {"queue_name": "mail", "task_name": "send", **columns}
        names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
        into = f"insert into public.procrastinate_jobs ({names}) values ({marks}) returning id"
        ((job_id,),) = self._query(into, *columns.values())
        return int(job_id)

    def statuses(self) -> dict[int, str]:
        return dict(self._query("select id, status::text from public.procrastinate_jobs"))


@pytest.fixture
def old(query: Query) -> Old:
    return Old(query)


def rows(query: Query) -> list[tuple[Any, ...]]:
    """Return everything in all tables that an import may change."""
    tables = ("queue.procrastinate_jobs", "queue.procrastinate_periodic")
    tables += ("public.procrastinate_jobs", "public.procrastinate_events")
    return [row for table in tables for row in query(f"select * from {table} order by 1, 2")]


LATER = datetime(2100, 1, 1, tzinfo=UTC)
BEFORE = datetime(2020, 1, 1, tzinfo=UTC)


# What is taken


@pytest.mark.parametrize("release", RELEASES, indirect=True)
def test_every_row_goes_where_it_should(
    app: procrastinate.App, query: Query, old: Old, release: str
) -> None:
    plain = old.add(args='{"to": "ann"}', attempts=2)
    locked = old.add(lock="l", queueing_lock="q")
    later, before = old.add(scheduled_at=LATER), old.add(scheduled_at=BEFORE)
    running = old.add(status="doing")
    ended = [old.add(status="succeeded"), old.add(status="failed")]
    query("update public.procrastinate_events set at = '2024-05-01 12:00+00' where job_id = 1")

    done = app.schema_manager.import_jobs(leave_running=True)
    above = running + 2 + ROOM
    assert done == Imported(3, 1, 0, 0, 1, (), ids_above=above)
    assert old.statuses() == {
        **dict.fromkeys((plain, locked, later, before), TAKEN[release]),
        running: "doing",
        ended[0]: "succeeded",
        ended[1]: "failed",
    }
    jobs = {job.id: job for job in app.job_manager.list_jobs()}
    assert jobs.keys() == {plain, locked, later, before}
    job = jobs[plain]
    assert (job.task_kwargs, job.attempts, job.queue, job.task_name) == (
        *({"to": "ann"}, 2, "mail", "send"),
    )
    assert job.deferred_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert (job.first_started_at, jobs[before].first_started_at) == (None, None)
    assert (jobs[locked].lock, jobs[locked].queueing_lock) == ("l", "q")
    assert (jobs[later].scheduled_at, jobs[before].scheduled_at) == (LATER, BEFORE)
    held = dict(query("select id, hold::text from queue.procrastinate_jobs"))
    assert held == {plain: None, locked: None, later: "schedule", before: None}
    assert app.configure_task("send").defer() == above + 1


def test_the_first_start_comes_from_the_old_events(
    app: procrastinate.App, query: Query, old: Old
) -> None:
    waits, ended, once = old.add(attempts=2), old.add(), old.add()
    query(f"update public.procrastinate_jobs set status = 'failed' where id in ({ended}, {once})")
    starts = [(waits, 3), (waits, 1), (waits, 2), (ended, 4), (ended, 5), (once, 6)]
    for job_id, day in starts:
        query(
            "insert into public.procrastinate_events (job_id, type, at)"
            f" values ({job_id}, 'started', '2024-05-0{day} 12:00+00')"
        )
    app.schema_manager.import_jobs(history=True)
    found = {
        job.id: [each and each.day for each in (job.first_started_at, job.started_at)]
        for job in app.job_manager.list_jobs()
    }
    assert found == {waits: [1, None], ended: [4, 5], once: [6, 6]}


@pytest.mark.parametrize("release", ["2.15", "3.10"], indirect=True)
def test_priorities_are_kept(app: procrastinate.App, old: Old, release: str) -> None:
    job_id = old.add(priority=7)
    app.schema_manager.import_jobs()
    assert app.job_manager.get_job(job_id).priority == 7


def test_what_was_imported_runs_in_its_order(
    app: procrastinate.App, old: Old, procrastinate_dsn: str
) -> None:
    ran: list[int] = []

    @app.task(name="send")
    def send(n: int) -> None:
        ran.append(n)

    for n, lock in [(1, "l"), (2, None), (3, "l")]:
        old.add(args=f'{{"n": {n}}}', lock=lock)
    app.schema_manager.import_jobs()
    worker = procrastinate.AiopgConnector(dsn=procrastinate_dsn, schema="queue")
    app.with_connector(worker).run_worker(wait=False)
    assert ran == [1, 2, 3]


def test_workers_are_told(app: procrastinate.App, old: Old, procrastinate_dsn: str) -> None:
    old.add()
    old.add(queue_name="later", scheduled_at=LATER)
    listening = psycopg2.connect(procrastinate_dsn)
    listening.autocommit = True
    with listening.cursor() as cursor:
        cursor.execute("listen procrastinate_jobs")
        app.schema_manager.import_jobs()
        cursor.execute("select 1")
    assert "mail" in {each.payload for each in listening.notifies}
    listening.close()


def test_history_comes_along_if_asked_for(app: procrastinate.App, query: Query, old: Old) -> None:
    waiting = old.add()
    failed, cancelled = old.add(status="failed"), old.add()
    query("update public.procrastinate_jobs set status = 'cancelled' where id = %s", cancelled)
    query(
        "insert into public.procrastinate_events (job_id, type, at) values"
        " (%s, 'started', '2024-05-01 12:00+00'), (%s, 'failed', '2024-05-01 12:01+00')",
        *(failed, failed),
    )
    assert app.schema_manager.import_jobs().ended == 0
    assert app.schema_manager.import_jobs(dry_run=True, history=True).ended == 2
    assert app.schema_manager.import_jobs(history=True).ended == 2
    assert app.schema_manager.import_jobs(history=True).ended == 0
    jobs = {job.id: job for job in app.job_manager.list_jobs()}
    assert {job_id: job.status.value for job_id, job in jobs.items()} == {
        waiting: "todo",
        failed: "failed",
        cancelled: "cancelled",
    }
    assert jobs[failed].started_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert jobs[failed].finished_at == datetime(2024, 5, 1, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("release", ["0.33"], indirect=True)
def test_what_was_cancelled_before_there_was_a_status_for_it(
    app: procrastinate.App, query: Query, old: Old, release: str
) -> None:
    job_id = old.add()
    query("update public.procrastinate_jobs set status = 'failed'")
    app.schema_manager.import_jobs(history=True)
    assert app.job_manager.get_job(job_id).status is procrastinate.Status.CANCELLED


def test_marks_of_schedules_come_along_and_never_go_back(
    app: procrastinate.App, query: Query, old: Old
) -> None:
    job_id = old.add(task_name="report")
    query(
        "insert into public.procrastinate_periodic_defers"
        " (task_name, periodic_id, defer_timestamp, job_id)"
        " values ('report', 'x', 1700000000, null), ('report', 'x', 1700000060, %s),"
        " ('other', '', 1700000000, null), ('never', '', null, null)",
        job_id,
    )
    assert app.schema_manager.import_jobs(dry_run=True).schedules == 2
    assert app.schema_manager.import_jobs().schedules == 2

    def marks() -> dict[str, tuple[Any, ...]]:
        found = query(
            "select task_name, periodic_id, extract(epoch from done_until)::bigint, job_id"
            " from queue.procrastinate_periodic"
        )
        return {row[0]: row[1:] for row in found}

    assert marks() == {"report": ("x", 1700000060, job_id), "other": ("", 1700000000, None)}
    query(
        "update queue.procrastinate_periodic"
        " set done_until = done_until + interval '1 day', last_tick = last_tick + interval '1 day'"
    )
    app.schema_manager.import_jobs()
    assert marks()["report"] == ("x", 1700000060 + 86_400, job_id)


# Again, and in part


def test_it_can_be_done_again(app: procrastinate.App, old: Old) -> None:
    first = old.add()
    assert app.schema_manager.import_jobs().ready == 1
    second = old.add()  # by a program of the old release, which goes on
    done = app.schema_manager.import_jobs()
    assert (done.ready, done.ids_above) == (1, first + ROOM)
    assert [job.id for job in app.job_manager.list_jobs()] == [first, second]


def test_a_dry_run_says_the_same_and_changes_nothing(
    app: procrastinate.App, query: Query, old: Old
) -> None:
    for columns in [{}, {"scheduled_at": LATER}, {"lock": "l" * 513}, {"status": "failed"}]:
        old.add(**columns)
    before = rows(query)
    said = app.schema_manager.import_jobs(dry_run=True, history=True)
    assert rows(query) == before
    assert app.schema_manager.import_jobs(history=True) == said
    assert rows(query) != before


def test_what_interrupts_it_leaves_everything_as_it_was(
    app: procrastinate.App, query: Query, old: Old
) -> None:
    old.add()
    old.add(scheduled_at=LATER)
    old.add(status="failed")
    query(
        "insert into public.procrastinate_periodic_defers (task_name, defer_timestamp)"
        " values ('send', 1700000000)"
    )
    before = rows(query)
    statements = 0

    class Interrupted(Exception):
        pass

    def interrupted(flow: drive.Flow[Imported], after: int) -> drive.Flow[Imported]:
        answer: Any = None
        for _ in range(after):
            try:
                answer = yield flow.send(answer)
            except StopIteration as stop:
                return stop.value
        flow.close()
        raise Interrupted

    while True:
        import_ = importing._import(
            old_tables.OldTables("public", "queue", True, True), True, False
        )
        try:
            done = app._gateway.run(interrupted(import_, statements), transaction=True)
            break
        except Interrupted:
            assert rows(query) == before
            statements += 1
    assert statements == 11
    assert (done.waiting, done.ended, done.schedules) == (2, 1, 1)


# What stays


def test_jobs_that_do_not_fit_stay_and_are_named(
    app: procrastinate.App, query: Query, old: Old
) -> None:
    app.schema_manager.prepare_import()
    fits = [old.add(lock="l" * 512, queueing_lock="q" * 512), old.add(task_name="t" * 128)]
    unnamed, listed = old.add(task_name=""), old.add(args="[1]")
    long, never = old.add(queueing_lock="q" * 513), old.add(scheduled_at="infinity")
    twin = old.add(queueing_lock="twin")
    app.configure_task("send", queueing_lock="twin").defer()
    taken = old.add()
    query(
        "insert into queue.procrastinate_jobs (id, queue_name, task_name) values (%s, 'q', 't')",
        taken,
    )
    done = app.schema_manager.import_jobs()
    assert done.ready == len(fits)
    assert done.left == (
        Left("a job with the same queueing lock waits here", 1, (twin,)),
        Left("another job here has its id", 1, (taken,)),
        Left("it is scheduled for a time that not every driver can read", 1, (never,)),
        Left("its arguments are not a JSON object", 1, (listed,)),
        Left("its lock or its queueing lock is longer than 512 characters", 1, (long,)),
        Left("its queue or its task has no name", 1, (unnamed,)),
    )
    stay = {unnamed, listed, long, never, twin, taken}
    assert {each for each, status in old.statuses().items() if status == "todo"} == stay


def test_jobs_that_run_are_not_left_behind_unasked(app: procrastinate.App, old: Old) -> None:
    waiting = old.add()
    old.add(status="doing")
    old.add(status="aborting")
    with pytest.raises(SchemaError, match="2 jobs in the schema public are running"):
        app.schema_manager.import_jobs()
    assert old.statuses()[waiting] == "todo"
    assert app.schema_manager.import_jobs(dry_run=True).running == 2
    assert app.schema_manager.import_jobs(leave_running=True).running == 2
    assert sorted(old.statuses().values()) == ["aborting", "cancelled", "doing"]


def test_one_job_is_running_and_two_are() -> None:
    assert are_running(1, "old").startswith("1 job in the schema old is running: stop the old")
    assert are_running(2, "old").startswith("2 jobs in the schema old are running: stop the old")


# Ids


def test_prepared_ids_begin_above_the_old_ones(app: procrastinate.App, old: Old) -> None:
    last = old.add()
    above = app.schema_manager.prepare_import()
    assert above == last + ROOM
    assert app.configure_task("t").defer() == above + 1
    old.add()
    assert app.schema_manager.prepare_import() == above + 1  # which is above already
    assert app.schema_manager.import_jobs().ready == 2


# Where the old tables are: their triggers find their names by the search_path


PLACES = [  # the old schema, the app's, whether its connector says so, and the search_path
    ("public", "queue", True, ""),
    ("old one", "queue", True, ""),
    ("old one", "queue", True, '"$user", public'),
    ("public", "queue", True, "pg_catalog"),
    ("public", "queue", False, "queue"),
    ("old one", "queue", False, "queue, public"),
    ("old one", 'new % "x"', False, '"new % ""x"""'),
]


@pytest.fixture
def elsewhere(
    request: pytest.FixtureRequest, procrastinate_dsn: str, query: Query, release: str
) -> Iterator[tuple[str, procrastinate.App]]:
    """The old schema, with a job of each kind, and an app in another one."""
    source, own, is_said, path = request.param
    quoted = own.replace('"', '""')
    query(f'create schema if not exists "{source}"; create schema if not exists "{quoted}"')
    query(f'set search_path to "{source}"; {older_schemas.release(release)}; reset search_path')
    jobs = f'"{source}".procrastinate_jobs'
    query("select set_config('search_path', %s, false)", f'"{source}"')
    for scheduled_at in (None, LATER):
        query(
            f"insert into {jobs} (queue_name, task_name, scheduled_at) values ('q', 't', %s)",
            scheduled_at,
        )
    query(f"insert into {jobs} (queue_name, task_name, status) values ('q', 't', 'failed')")
    query("reset search_path")
    options = "-c search_path=" + path.replace(" ", "\\ ")
    connector = procrastinate.Psycopg2Connector(
        dsn=procrastinate_dsn, options=options, schema=own if is_said else None
    )
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
        yield source, app


@pytest.mark.parametrize("release", RELEASES, indirect=True)
@pytest.mark.parametrize("elsewhere", PLACES, indirect=True)
def test_old_tables_may_be_anywhere(
    elsewhere: tuple[str, procrastinate.App], query: Query, release: str
) -> None:
    source, app = elsewhere
    said = app.schema_manager.import_jobs(source, history=True, dry_run=True)
    assert (said.ready, said.scheduled, said.ended) == (1, 1, 1)
    events = f'select type::text from "{source}".procrastinate_events order by id'
    before = query(events)
    assert app.schema_manager.import_jobs(source, history=True) == said
    assert [job.id for job in app.job_manager.list_jobs()] == [1, 2, 3]
    assert query(events) == [*before, ("cancelled",), ("cancelled",)]
    found = query(f'select status::text from "{source}".procrastinate_jobs order by id')
    assert found == [(TAKEN[release],), (TAKEN[release],), ("failed",)]


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_search_path_is_as_it_was_afterwards(
    app: procrastinate.App, old: Old, dry_run: bool
) -> None:
    old.add()

    def flow() -> drive.Flow[tuple[Any, Any]]:
        before = yield drive.Script("before", "show search_path")
        if dry_run:
            yield from importing._survey(OLD, True)
        else:
            yield from importing._import(OLD, True, False)
        return before, (yield drive.Script("after", "show search_path"))

    before, after = app._gateway.run(flow(), transaction=True)
    assert list(before) == list(after)


def test_functions_of_the_old_schema_do_not_stand_in_for_the_server_s(
    app: procrastinate.App, query: Query, old: Old, procrastinate_dsn: str
) -> None:
    job_id = old.add(args='{"a": 1}')
    query(
        "create function public.jsonb_typeof(jsonb) returns text language sql as $$"
        " select 'another'::text $$"
    )
    options = "-c search_path=queue,pg_catalog"
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn, options=options)
    with procrastinate.App(connector=connector).open() as other:
        assert other.schema_manager.import_jobs().left == ()
        assert other.job_manager.get_job(job_id).status is procrastinate.Status.TODO


def test_a_dry_run_finds_what_would_fail(app: procrastinate.App, query: Query, old: Old) -> None:
    old.add()
    query("alter table public.procrastinate_events rename column type to kind")
    query("alter table public.procrastinate_events add column type text")
    query("alter table public.procrastinate_events alter column kind set not null")
    before = rows(query)
    for dry_run in (True, False):
        with pytest.raises(errors.ConnectorException, match="kind"):
            app.schema_manager.import_jobs(dry_run=dry_run)
        assert rows(query) == before


def test_a_dry_run_waits_for_no_worker(
    app: procrastinate.App, old: Old, procrastinate_dsn: str
) -> None:
    old.add()
    other = psycopg2.connect(procrastinate_dsn)
    with other, other.cursor() as cursor:
        cursor.execute("update public.procrastinate_jobs set status = 'doing'")
        assert app.schema_manager.import_jobs(dry_run=True).ready == 1
    other.close()


# What is refused


def test_ids_that_leave_no_room_are_refused(app: procrastinate.App, query: Query, old: Old) -> None:
    job_id = old.add(id=2**63 - 1)
    manager = app.schema_manager
    for call in (
        manager.prepare_import,
        manager.import_jobs,
        lambda: manager.import_jobs(dry_run=True),
    ):
        with pytest.raises(
            SchemaError, match="the old id 9,223,372,036,854,775,807 leaves no room"
        ):
            call()
    assert old.statuses() == {job_id: "todo"}


def test_two_at_once_are_refused(app: procrastinate.App, old: Old, procrastinate_dsn: str) -> None:
    old.add()
    other = psycopg2.connect(procrastinate_dsn)
    with other, other.cursor() as cursor:
        cursor.execute("select pg_try_advisory_xact_lock(7238463502)")
        with pytest.raises(SchemaError, match="another process imports jobs"):
            app.schema_manager.import_jobs()
    other.close()
    assert app.schema_manager.import_jobs().ready == 1


def test_tables_in_use_are_not_waited_for_for_ever(
    app: procrastinate.App, old: Old, procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = old.add()
    monkeypatch.setattr(import_texts, "LOCK", import_texts.LOCK.replace("'10s'", "'10ms'"))
    other = psycopg2.connect(procrastinate_dsn)
    with other, other.cursor() as cursor:
        cursor.execute("update public.procrastinate_jobs set status = 'doing'")
        with pytest.raises(SchemaError, match="were not to be had within 10 s"):
            app.schema_manager.import_jobs()
    other.close()
    assert old.statuses() == {job_id: "doing"}


REFUSED = {
    "nowhere": "there is no schema named nowhere",
    "queue": "are those of this app",
    "empty": "the schema empty has no table procrastinate_jobs",
    "second": "are of this design already",
    **dict.fromkeys(("a'b", 'a"b', "", "a" * 64), "schema"),
}


def test_what_is_no_schema_with_old_tables_is_refused(app: procrastinate.App, query: Query) -> None:
    query("create schema empty; create schema second")
    query("create table second.procrastinate_jobs (like queue.procrastinate_jobs)")
    for refused in (app.schema_manager.import_jobs, app.schema_manager.prepare_import):
        for source, said in REFUSED.items():
            with pytest.raises((SchemaError, errors.InvalidOption), match=said):
                refused(source)


def test_distributed_jobs_are_no_place_for_old_ids(app: procrastinate.App, old: Old) -> None:
    old.add()
    app._gateway.run(into_partitions(), transaction=True)
    with pytest.raises(SchemaError, match="the jobs here are distributed"):
        app.schema_manager.import_jobs()


def test_it_needs_tables_to_import_into(procrastinate_dsn: str, query: Query) -> None:
    query(older_schemas.release("3.10"))
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    said = r"take over those that wait by `procrastinate import`"
    with (
        procrastinate.App(connector=connector).open() as app,
        pytest.raises(errors.SchemaForeign, match=said),
    ):
        app.schema_manager.import_jobs()


def test_memory_has_nothing_to_import() -> None:
    with (
        procrastinate.App(connector="memory").open() as app,
        pytest.raises(SchemaError, match="in memory"),
    ):
        app.schema_manager.import_jobs()


async def test_the_asynchronous_half_does_the_same(
    app: procrastinate.App, old: Old, procrastinate_dsn: str
) -> None:
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn, schema="queue")
    job_id = old.add()
    async with app.with_connector(connector).open_async() as asynchronous:
        manager = asynchronous.schema_manager
        assert await manager.prepare_import_async() == job_id + ROOM
        assert (await manager.import_jobs_async(dry_run=True)).ready == 1
        assert (await manager.import_jobs_async()).ready == 1


# Which tables are there

COLUMNS = [(table, column) for table, read in old_tables._READ.items() for column in sorted(read)]
LABELS = ("todo", "doing", "succeeded", "failed")


@pytest.mark.parametrize(
    ("columns", "labels", "said"),
    [
        ([], (), "has no table procrastinate_jobs"),
        (
            [each for each in COLUMNS if each[0] != "procrastinate_events"],
            LABELS,
            r"lack procrastinate_events\.at, .*not all of their migrations have run",
        ),
        (
            [each for each in COLUMNS if each[1] != "periodic_id"],
            LABELS,
            r"lack procrastinate_periodic_defers\.periodic_id: they are of a release before 0\.33",
        ),
        ([*COLUMNS, ("procrastinate_jobs", "shade")], LABELS, "have shade, .* of a newer one"),
        (COLUMNS, (*LABELS, "paused"), "have the status 'paused', which"),
    ],
)
def test_tables_that_are_no_old_release_s_are_refused(
    columns: list[tuple[str, str]], labels: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SchemaError, match=said):
        old_tables.old_tables("public", "queue", columns, labels)


def test_old_tables_are_told_apart() -> None:
    with_priority = [*COLUMNS, ("procrastinate_jobs", "priority")]
    found = old_tables.old_tables
    assert found("s", "t", COLUMNS, LABELS) == old_tables.OldTables("s", "t", False, False)
    assert found("s", "t", with_priority, (*LABELS, "cancelled")) == old_tables.OldTables(
        "s", "t", True, True
    )
