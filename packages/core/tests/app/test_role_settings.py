"""The whole queue works under whatever settings a role has, as well as under the defaults.

For each of `SETTINGS` there is a role. With it an app defers in every way, runs jobs with locks,
retries, periodic and aborted ones, recovers, reads and changes jobs by hand, and does what it can
in a caller's transaction. Afterwards the same must be in the tables as with the defaults, and not
much more may have been read to get there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions

import procrastinate
from procrastinate import AlreadyEnqueued, JobContext, Status, errors

pytestmark = pytest.mark.slow  # what it shows does not depend on the Python

Rows = list[tuple[Any, ...]]
#: What a role is given: a setting and its value, as ALTER ROLE takes it.
SETTINGS = [
    # What changes the meaning of statements, or their texts.
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "'repeatable read'"),
    ("default_transaction_isolation", "'read uncommitted'"),
    ("default_transaction_deferrable", "on"),
    ("client_encoding", "LATIN1"),
    ("client_encoding", "SQL_ASCII"),
    ("client_encoding", "SJIS"),
    ("array_nulls", "off"),
    ("extra_float_digits", "-15"),
    ("datestyle", "'SQL, DMY'"),
    ("datestyle", "'German'"),
    ("intervalstyle", "sql_standard"),
    ("timezone", "'Asia/Kathmandu'"),
    ("bytea_output", "escape"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("escape_string_warning", "off"),
    ("quote_all_identifiers", "on"),
    ("transform_null_equals", "on"),
    ("xmloption", "document"),
    ("lc_messages", "'C'"),
    ("lc_numeric", "'C'"),
    ("lc_time", "'C'"),
    ("search_path", "elsewhere, public"),
    ("default_toast_compression", "pglz"),
    ("check_function_bodies", "off"),
    ("row_security", "off"),
    ("synchronize_seqscans", "off"),
    # Limits.
    ("statement_timeout", "'20s'"),
    ("lock_timeout", "'10s'"),
    ("idle_in_transaction_session_timeout", "'10s'"),
    ("work_mem", "64"),
    ("hash_mem_multiplier", "1"),
    ("temp_buffers", "100"),
    ("synchronous_commit", "off"),
    ("client_min_messages", "debug1"),
    # The planner's.
    ("jit_above_cost", "0"),
    ("plan_cache_mode", "force_generic_plan"),
    ("plan_cache_mode", "force_custom_plan"),
    ("enable_nestloop", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_seqscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashagg", "off"),
    ("enable_material", "off"),
    ("random_page_cost", "1.1"),
    ("join_collapse_limit", "1"),
    ("from_collapse_limit", "1"),
    ("geqo_threshold", "2"),
    ("constraint_exclusion", "on"),
]


#: What is still wrong. An entry that is no longer needed fails.
FAULTS = {
    "array_nulls": pytest.mark.xfail(
        raises=errors.InvalidArguments, reason="a batch holds NULL in the text of arrays"
    ),
}


@dataclass(frozen=True)
class Place:
    """A database with roles that may do anything in it, and differ in one setting."""

    dsn: str
    query: Callable[..., Rows]
    roles: dict[str, str] = field(default_factory=dict)
    #: What the whole queue does without any setting, once that is known.
    by_default: list[tuple[Any, int]] = field(default_factory=list)

    def dsn_of(self, setting: str = "", value: str = "") -> str:
        """Return the way in for a role that has this setting."""
        key = f"{setting} = {value}" if setting else ""
        if key not in self.roles:
            role = self.roles[key] = f"set_{uuid.uuid4().hex[:12]}"
            self.query(f"create role {role} superuser login password '{role}'")
            if key:
                self.query(f"alter role {role} set {setting} to {value}")
        name = self.roles[key]
        return extensions.make_dsn(self.dsn, user=name, password=name)

    def reads(self) -> int:
        """Return how many rows of ours sessions that have ended have read."""
        self.query("select pg_stat_clear_snapshot()")
        ((rows,),) = self.query(
            "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint"
            " from pg_stat_user_tables where relname like 'procrastinate%'"
        )
        return int(rows)

    async def until_alone(self) -> None:
        """Wait for the end of all other sessions: what they have read is counted then."""
        async with asyncio.timeout(20):
            while self.query(
                "select 1 from pg_stat_activity where datname = current_database()"
                " and backend_type = 'client backend' and pid <> pg_backend_pid()"
            ):
                await asyncio.sleep(0.01)

    def clear(self) -> None:
        self.query("truncate procrastinate_jobs, procrastinate_locks, procrastinate_workers")


@pytest.fixture(scope="module")
def place(procrastinate_server: Any) -> Iterator[Place]:
    with procrastinate_server.database() as dsn, closing(psycopg2.connect(dsn)) as connection:
        with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        connection.autocommit = True

        def query(sql: str, *values: Any) -> Rows:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []

        place = Place(dsn, query)
        query("create schema elsewhere")
        try:
            yield place
        finally:
            for role in place.roles.values():
                query(f"drop role {role}")


# --- What an app does -----------------------------------------------------------------------------

TEXT = "é 雪 🦆 \\ \" ' NULL {} %"


class Tasks:
    """An app and what its tasks have seen."""

    def __init__(self, dsn: str) -> None:
        self.app = app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
        self.ran: list[str | None] = []
        self.began = asyncio.Event()

        @app.task(name="say")
        async def say(text: str | None) -> None:
            self.ran.append(text)

        @app.task(
            name="flaky", retry=procrastinate.RetryStrategy(max_attempts=2), pass_context=True
        )
        def flaky(context: JobContext, text: str) -> None:
            if context.job.attempts == 1:
                raise ValueError(text)

        @app.task(name="bad")
        def bad() -> None:
            raise ValueError(TEXT)

        @app.task(name="endless")
        async def endless() -> None:
            self.began.set()
            await asyncio.Event().wait()

        # Due a minute ago, and then not for a day.
        self.tick = (datetime.now(UTC) - timedelta(minutes=1)).replace(second=0, microsecond=0)

        @app.periodic(cron=f"{self.tick:%M %H} * * *", timezone="UTC")
        @app.task(name="daily", queueing_lock="daily")
        async def daily(timestamp: int) -> None: ...

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[None]:
        running = asyncio.create_task(
            self.app.run_worker_async(install_signal_handlers=False, **options)
        )
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def status_of(self, job_id: int, wanted: Status) -> None:
        async with asyncio.timeout(20):
            while await self.app.job_manager.get_job_status_async(job_id) is not wanted:
                await asyncio.sleep(0.02)


async def everything(place: Place, dsn: str) -> tuple[Rows, list[str | None]]:
    """Use the whole queue, and return what is in the table of jobs then, and what has run."""
    tasks = Tasks(dsn)
    app, jobs = tasks.app, tasks.app.job_manager
    place.query(
        "insert into procrastinate_workers (id, name, last_heartbeat)"
        " values (-1, 'dead', now() - interval '1 day');"
        "insert into procrastinate_jobs"
        " (id, task_name, queue_name, args, status, worker_id, attempts, lease)"
        " values (-1, 'say', 'default', '{\"text\": \"recovered\"}', 'doing', -1, 1, 1);"
        "insert into procrastinate_periodic (task_name, periodic_id, done_until)"
        " values ('daily', '', %s) on conflict (task_name, periodic_id, partition)"
        " do update set done_until = excluded.done_until",
        tasks.tick - timedelta(seconds=1),
    )
    async with app.open_async():
        say = app.tasks["say"]
        await say.defer_async(text=TEXT)
        await say.configure(priority=5, lock="NULL").defer_async(text="lock named NULL")
        await say.configure(lock=TEXT).batch_defer_async({"text": "1"}, {"text": "2"})
        await say.configure(schedule_in=timedelta(milliseconds=1)).defer_async(text=None)
        later = await say.configure(schedule_in=timedelta(hours=1)).defer_async(text="later")
        waiting = say.configure(queueing_lock=TEXT, queue="nobody")
        once = await waiting.defer_async(text="once")
        with pytest.raises(AlreadyEnqueued):
            await waiting.defer_async(text="twice")
        with pytest.raises(AlreadyEnqueued):
            await waiting.batch_defer_async({"text": "three times"})
        await app.tasks["flaky"].configure(lock="a").batch_defer_async({"text": TEXT})
        bad = await app.tasks["bad"].configure(lock="a").defer_async()
        by_caller(dsn)
        await app.run_worker_async(wait=False, queues=["default"], concurrency=3)
        await tasks.status_of(bad, Status.FAILED)

        endless = await app.tasks["endless"].defer_async()
        async with tasks.working(abort_job_polling_interval=0.1, queues=["default"]):
            async with asyncio.timeout(20):
                await tasks.began.wait()
            assert await jobs.cancel_job_by_id_async(endless, abort=True)
            await tasks.status_of(endless, Status.ABORTED)

        assert (await jobs.get_job_async(once)).queueing_lock == TEXT
        assert await jobs.cancel_job_by_id_async(later)
        assert await jobs.retry_job_by_id_async(bad)
        assert len(await jobs.cancel_jobs_async(task="bad")) == 1
        assert len(await jobs.retry_jobs_async(status=["cancelled"], task="bad")) == 1
        assert [job.id for job in await jobs.list_jobs_async(lock=TEXT, status=["succeeded"])]
        assert {each.name for each in await jobs.list_queues_async()} == {"default", "nobody"}
        assert {each.name for each in await jobs.list_locks_async()} == {"a", "NULL", TEXT, "c"}
        assert "bad" in {each.name for each in await jobs.list_tasks_async()}
        assert await jobs.get_stalled_jobs_async() == []
        assert await jobs.delete_old_jobs_async(older_than=timedelta(0), statuses=["aborted"]) == 1
    return (
        place.query(
            "select task_name, args - 'timestamp', queue_name, status::text, hold::text, priority,"
            " lock, queueing_lock, attempts, crashes, errors -> 0 ->> 'message',"
            " started_at between now() - interval '1 minute' and now()"
            " from procrastinate_jobs order by 1, 2, 3, 4, 6, 7"
        ),
        sorted(tasks.ran, key=str),
    )


def by_caller(dsn: str) -> None:
    """Do what can be done in a caller's transaction; it finds its settings as they were."""
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    # Those of plpgsql are there once it is first used.
    settings = "select name, setting from pg_settings where name not like 'plpgsql.%' order by name"
    with app.open(), closing(psycopg2.connect(dsn, client_encoding="UTF8")) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(settings)
            before = cursor.fetchall()
            say = app.configure_task("say", connection=connection)
            say.defer(text="by a caller")
            ids = app.configure_task("say", connection=connection, lock="c").batch_defer(
                {"text": TEXT}, {"text": "cancelled"}
            )
            mixed = app.configure_task("say", connection=connection, queueing_lock="q")
            mixed.batch_defer({"text": "mixed"})
            with pytest.raises(AlreadyEnqueued):
                mixed.defer(text="refused")
            manager = app.job_manager
            assert manager.cancel_job_by_id(ids[1], connection=connection)
            assert manager.retry_job_by_id(ids[1], connection=connection)
            assert manager.cancel_job_by_id(ids[1], connection=connection)
            assert manager.get_job(ids[0], connection=connection).task_kwargs == {"text": TEXT}
            cursor.execute(settings)
            assert cursor.fetchall() == before
        with connection.cursor() as cursor:
            say = app.configure_task("say", connection=connection)
            say.defer(text="rolled back")
            connection.rollback()


# --- The matrix -----------------------------------------------------------------------------------


async def measured(place: Place, setting: str = "", value: str = "") -> tuple[Any, int]:
    """Return what the whole queue left behind and did, and how many rows it has read for it."""
    place.clear()
    await place.until_alone()
    before = place.reads()
    found = await everything(place, place.dsn_of(setting, value))
    await place.until_alone()
    return found, place.reads() - before


@pytest.mark.parametrize(
    ("setting", "value"),
    [pytest.param(*each, id=" = ".join(each), marks=FAULTS.get(each[0], ())) for each in SETTINGS],
)
async def test_the_whole_queue_works_under_a_setting_of_the_role(
    place: Place, setting: str, value: str
) -> None:
    if not place.by_default:
        place.by_default.append(await measured(place))
    expected, expected_reads = place.by_default[0]
    found, reads = await measured(place, setting, value)
    assert found == expected
    assert expected_reads > 100
    assert reads <= 2 * expected_reads


# --- What cannot work -----------------------------------------------------------------------------


async def test_a_role_that_may_only_read_is_told_so(place: Place) -> None:
    dsn = place.dsn_of("default_transaction_read_only", "on")
    app = Tasks(dsn).app
    async with app.open_async():
        with pytest.raises(errors.ConnectionLost, match="default_transaction_read_only is on"):
            await app.tasks["say"].defer_async(text="")
        assert await app.job_manager.list_jobs_async(limit=1) is not None
    plain = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    with (
        plain.open(),
        pytest.raises(errors.ConnectionLost, match="default_transaction_read_only is on"),
    ):
        plain.configure_task("say").defer(text="")
