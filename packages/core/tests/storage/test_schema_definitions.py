"""Parts of tables that have the names of ours, and are other things, are found and told."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import errors
from procrastinate.drive import Flow, Request
from procrastinate.model.partitions import MANY, ONE, Partitions
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.schema import TABLES
from procrastinate.storage.schema_definitions import changed, definitions, plain, told, traits
from procrastinate.storage.schema_parts import parts
from procrastinate.storage.settings import read_settings

Query = Callable[..., list[tuple[Any, ...]]]


def rows() -> Flow[dict[str, str]]:
    """Return what the database has."""
    found: dict[str, str] = dict((yield Request("schema_parts", names=list(TABLES))))
    return found


def test_the_file_says_what_the_server_says_of_one_and_of_many_partitions(
    sync_app: procrastinate.App, query: Query
) -> None:
    """Whatever the session's time zone, style of dates, quoting and search_path."""
    run = sync_app._gateway.run
    partitions = run(read_settings())
    while True:
        had = run(rows())
        ours = definitions(partitions)
        theirs = {"default of procrastinate_jobs.partition"} if partitions.are_many else set()
        defined = {part for part in parts(partitions) if had[part]} - theirs
        assert ours == {part: plain(had[part]) for part in defined}
        assert set(traits()) <= had.keys()
        if partitions.are_many:
            break
        partitions = run(into_partitions(), transaction=True)
    ((home,),) = query(
        "select relnamespace::integer from pg_class where oid = 'procrastinate_jobs'::regclass"
    )
    query("set timezone = 'Pacific/Apia'; set datestyle = 'German'; set search_path = ''")
    query("set quote_all_identifiers = on")
    text = (
        "select 'constraint ' || conname, pg_get_constraintdef(oid) from pg_constraint"
        f" where conname ~ '^procrastinate' and contype in ('c', 'p') and connamespace = {home}"
        " union all select 'index ' || relname, pg_get_indexdef(oid) from pg_class"
        f" where relname ~ '^procrastinate' and relkind = 'i' and relnamespace = {home}"
    )
    found: dict[str, str] = dict(query(text))
    query("reset all")
    assert len(found) > 20
    assert (
        changed({**had, **{name: found[name] for name in found if name in had}}, partitions) == {}
    )


JOBS = "alter table procrastinate_jobs"
#: What was done, what is told of it, and how to undo it if no statement is told.
CHANGES: list[tuple[str, str, str]] = [
    (
        (
            f"{JOBS} alter deferred_at drop default, alter deferred_at type timestamp;"
            f"{JOBS} alter deferred_at set default statement_timestamp()"
        ),
        (
            "the column procrastinate_jobs.deferred_at is timestamp without time zone instead of"
            " timestamp with time zone: restore"
        ),
        f"{JOBS} alter deferred_at type timestamptz",
    ),
    (
        f"{JOBS} add column extra int not null",
        "the column procrastinate_jobs.extra, which procrastinate does not know, is not null",
        "",
    ),
    (
        (
            "drop index procrastinate_jobs_ready_idx;"
            "create index procrastinate_jobs_ready_idx on procrastinate_jobs (id)"
        ),
        "the index procrastinate_jobs_ready_idx is CREATE INDEX",
        "",
    ),
    (
        (
            "drop index procrastinate_jobs_queueing_lock_key; create unique index"
            " procrastinate_jobs_queueing_lock_key on procrastinate_jobs (queueing_lock, partition)"
            " where status = 'doing'"
        ),
        "the unique index procrastinate_jobs_queueing_lock_key is CREATE UNIQUE INDEX",
        "",
    ),
    (
        f"{JOBS} alter priority set default 7",
        "the default of procrastinate_jobs.priority is 7 instead of 0",
        "",
    ),
    (
        (
            "alter table procrastinate_queues drop constraint procrastinate_queues_names_check,"
            " add constraint procrastinate_queues_names_check check (char_length(queue_name) > 0)"
        ),
        "the constraint procrastinate_queues_names_check is CHECK char_length queue_name > 0",
        "",
    ),
    (
        (
            "alter table procrastinate_locks drop constraint procrastinate_locks_pkey,"
            " add constraint procrastinate_locks_pkey primary key (lock, partition) deferrable"
        ),
        "the constraint procrastinate_locks_pkey is PRIMARY KEY lock, partition DEFERRABLE",
        "",
    ),
    (
        "create rule quiet as on insert to procrastinate_progress do instead nothing",
        "procrastinate_progress has a rule that replaces statements: drop the rules",
        "drop rule quiet on procrastinate_progress",
    ),
    (
        (
            "alter table procrastinate_queues rename to theirs;"
            "create view procrastinate_queues as select * from theirs"
        ),
        "procrastinate_queues is not a plain table",
        "drop view procrastinate_queues; alter table theirs rename to procrastinate_queues",
    ),
    (
        "create table archive () inherits (procrastinate_jobs)",
        "procrastinate_jobs has child tables, whose rows are taken for its own: run `alter table",
        "drop table archive",
    ),
    (
        "alter type procrastinate_hold rename value 'lock' to 'key'",
        "the column procrastinate_jobs.hold is procrastinate_hold of schedule, key instead of",
        "alter type procrastinate_hold rename value 'key' to 'lock'",
    ),
    (
        "create schema types; alter type procrastinate_hold set schema types",
        "is procrastinate_hold of schedule, lock in the schema types instead of",
        "alter type types.procrastinate_hold set schema public",
    ),
]
#: What keeps a worker from its work, in their order.
VITAL = [True, True, False, True, False, False, True, False, True, False, True, True]


@pytest.mark.one_partition("a cluster does not do all of it")
def test_what_has_the_name_of_a_part_is_told_with_what_undoes_it(
    sync_app: procrastinate.App, query: Query
) -> None:
    vital = []
    for change, said, undo in CHANGES:
        query(change)
        with pytest.raises(errors.SchemaError) as caught:
            sync_app.schema_manager.check()
        assert said in str(caught.value)
        try:
            vital.append(not sync_app.check_connection())
        except errors.SchemaError:
            vital.append(True)
        for statement in [undo] if undo else re.findall(r"`(.*?)`", str(caught.value)):
            query(statement)
        sync_app.schema_manager.check()
    assert vital == VITAL


def test_a_constraint_is_renewed_by_one_change_at_a_time_on_a_cluster() -> None:
    """It takes no statement with "drop constraint ..., add constraint ..."."""
    part = "constraint procrastinate_locks_pkey"
    locks = "alter table public.procrastinate_locks"
    drop, add = f"drop constraint {part[11:]}", f"add {part} primary key (lock, partition)"
    for partitions, statements in (
        (ONE, [f"{locks} {drop}, {add}"]),
        (Partitions(MANY), [f"{locks} {drop}", f"{locks} {add}"]),
    ):
        words = told({part: "PRIMARY KEY lock"}, "public", partitions).replace('"public"', "public")
        assert re.findall(r"`(.*?)`", words) == statements


def test_a_role_that_writes_jobs_and_may_not_check_them_is_told(
    sync_app: procrastinate.App, procrastinate_dsn: str, query: Query
) -> None:
    """A worker refuses to start; a role that may only defer has no need of the right."""
    query("revoke execute on function procrastinate_job_fits from public")
    query("create role procrastinate_unfit login")
    ((home,),) = query("select current_schema()")  # public, but not on a cluster
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn, user="procrastinate_unfit")
    try:
        query(f"grant usage on schema {home} to procrastinate_unfit")
        query("grant select on procrastinate_migrations to procrastinate_unfit")
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.check()
            query("grant select, insert, update on procrastinate_jobs to procrastinate_unfit")
            for look in (app.schema_manager.check, app.check_connection):
                with pytest.raises(
                    errors.SchemaError, match="no EXECUTE on the function"
                ) as caught:
                    look()
            query(re.findall(r"`(.*?)`", str(caught.value))[0])
            assert app.check_connection()
    finally:
        query("drop owned by procrastinate_unfit")
        query("drop role procrastinate_unfit")
