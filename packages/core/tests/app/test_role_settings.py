"""The whole queue works under whatever settings a role has, as well as under the defaults.

For each of `SETTINGS` there is a role. With it an app defers in every way, runs jobs with locks,
retries, periodic and aborted ones, recovers, reads and changes jobs by hand, and does what it can
in a caller's transaction. Afterwards the same must be in the tables as with the defaults, and not
much more may have been read to get there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions
from whole_queue import Tasks, everything

import procrastinate
from procrastinate import errors

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
        for table in ("jobs", "locks", "workers", "periodic"):  # else plans change in between
            query(f"alter table procrastinate_{table} set (autovacuum_enabled = off)")
        try:
            yield place
        finally:
            for role in place.roles.values():
                query(f"drop role {role}")


# --- The matrix -----------------------------------------------------------------------------------


async def measured(place: Place, setting: str = "", value: str = "") -> tuple[Any, int]:
    """Return what the whole queue left behind and did, and how many rows it has read for it."""
    place.clear()
    await place.until_alone()
    before = place.reads()
    found = await everything(place.query, place.dsn_of(setting, value))
    await place.until_alone()
    return found, place.reads() - before


@pytest.mark.parametrize(
    ("setting", "value"),
    [pytest.param(*each, id=" = ".join(each)) for each in SETTINGS],
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
    assert reads <= 3 * expected_reads  # it looks for what it waits for, too


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


# --- Together -------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["serializable", "'repeatable read'"])
async def test_workers_and_callers_do_not_get_in_each_others_way_at_another_isolation_level(
    place: Place, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is refused, and nothing has to be tried again."""
    place.clear()
    dsn = place.dsn_of("default_transaction_isolation", level)
    apps = [Tasks(dsn) for _ in range(3)]
    with caplog.at_level("WARNING", "procrastinate"):
        async with (
            apps[0].app.open_async(),
            apps[1].app.open_async(),
            apps[2].app.open_async(),
            apps[0].working(concurrency=5),
            apps[1].working(concurrency=5),
        ):
            await asyncio.gather(*(batches(apps[n % 3], f"lock {n % 2}") for n in range(6)))
            async with asyncio.timeout(30):
                while len(apps[0].ran) + len(apps[1].ran) < 6 * 30:
                    await asyncio.sleep(0.02)
    assert [record.getMessage() for record in caplog.records] == []
    assert place.query(
        "select status::text, count(*) from procrastinate_jobs where task_name = 'say' group by 1"
    ) == [("succeeded", 6 * 30)]  # a minute that begins meanwhile brings a periodic one


async def batches(tasks: Tasks, lock: str) -> None:
    for n in range(10):
        say = tasks.app.tasks["say"].configure(lock=lock if n % 2 else None)
        await say.batch_defer_async(*[{"text": str(n)}] * 2)
        await say.defer_async(text=str(n))
