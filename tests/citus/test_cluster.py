"""Distributed jobs on a real cluster: the command, the statements, the way of a job."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import every_statement
import older_schemas
import psycopg2
import pytest
from psycopg2.extensions import make_dsn

import procrastinate
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.drive import Request
from procrastinate.errors import AlreadyEnqueued, ConnectorException, InvalidArguments, SchemaError
from procrastinate.model.job import NewJob, Status
from procrastinate.model.partitions import MANY, VALUES, Partitions
from procrastinate.storage import defer, migrating, workers
from procrastinate.storage.distributing import check_places
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.schema import migrations
from procrastinate.storage.settings import read_settings
from procrastinate.storage.statements import Statements

Query = Callable[..., list[tuple[Any, ...]]]


# The command


def test_jobs_of_before_keep_their_ids_and_go_to_the_partition_of_their_key(
    plain_app: procrastinate.App, query: Query
) -> None:
    locked = [plain_app.configure_task("t", lock=f"l{n}").defer() for n in range(20)]
    waiting = plain_app.configure_task("t", queueing_lock="q").defer()
    free = plain_app.configure_task("t").defer()
    done = plain_app.schema_manager.distribute()
    assert done.is_new
    assert done.partitions == Partitions(MANY, boundary_id=free, on_cluster=True)
    assert dict(query("select id, partition from procrastinate_jobs")) == {
        **{job_id: done.partitions.of_key(f"l{n}") for n, job_id in enumerate(locked)},
        waiting: done.partitions.of_key("q"),
        free: 0,
    }
    assert not plain_app.schema_manager.distribute().is_new


def test_what_has_its_partitions_in_plain_tables_gets_its_nodes(
    plain_app: procrastinate.App, query: Query
) -> None:
    """As a dump of a distributed database that was restored."""
    plain_app._gateway.run(into_partitions(), transaction=True)
    ids = [plain_app.configure_task("t", lock=f"l{n}").defer() for n in range(20)]
    kept = {"lock": "l", "queueing_lock": "q", "partition_key": "k"}  # which is not in the row
    ids.append(plain_app.configure_task("t", **kept).defer())
    assert plain_app._gateway.run(check_places()) == 0
    done = plain_app.schema_manager.distribute()
    assert done.is_new
    assert done.nodes == plain_app._gateway.run(check_places()) > 0
    assert query("select id from procrastinate_jobs order by id") == [
        (each,) for each in sorted(ids)
    ]
    assert not plain_app.schema_manager.distribute().is_new


def test_shards_are_spread_evenly_and_each_has_one_partition(
    app: procrastinate.App, query: Query
) -> None:
    shards = query(
        "select nodeport, count(*) from citus_shards"
        " where table_name = 'procrastinate_jobs'::regclass group by nodename, nodeport"
    )
    assert sum(count for _, count in shards) == MANY
    assert max(count for _, count in shards) - min(count for _, count in shards) <= 1
    of_partitions = query(
        "select get_shard_id_for_distribution_column('procrastinate_jobs', value)"
        " from unnest(%s::smallint[]) as value",
        list(VALUES),
    )
    assert len(set(of_partitions)) == MANY


def test_partitions_move_to_another_node_while_all_goes_on(
    app: procrastinate.App, query: Query
) -> None:
    """By logical replication, as a node that is added gets some. It refuses unlogged tables."""
    job_id = app.configure_task("t", partition_key="k").defer()
    partition = app._gateway.run(read_settings()).of_key("k")
    placed = (
        "select shardid, nodename, nodeport from citus_shards"
        " where shardid = get_shard_id_for_distribution_column('procrastinate_jobs', %s)"
    )
    ((shard, *here),) = query(placed, partition)
    there, *_ = query(
        "select nodename, nodeport from pg_dist_node where shouldhaveshards and isactive"
        " and (nodename, nodeport) <> (%s, %s) order by nodeport",
        *here,
    )
    query(
        "select citus_move_shard_placement(%s, %s, %s, %s, %s, 'force_logical')",
        *(shard, *here, *there),
    )
    assert query(placed, partition) == [(shard, *there)]
    assert app.job_manager.get_job(job_id).status is Status.TODO
    assert app.configure_task("t", partition_key="k").defer() > job_id


def test_what_earlier_versions_left_unlogged_is_logged_by_the_command(
    app: procrastinate.App, query: Query
) -> None:
    for name in UNLOGGED_ONCE:
        query(f"alter table {name} set unlogged")
    assert not app.schema_manager.distribute().is_new
    assert persistence(query) == ["p"] * len(UNLOGGED_ONCE)


UNLOGGED_ONCE = ("procrastinate_progress", "procrastinate_waits")


def persistence(query: Query) -> list[str]:
    """Return "p" for each of these tables that is logged, and "u" for the others."""
    rows = query(
        "select relpersistence::text from pg_class where relname = any(%s)"
        " and relnamespace = current_schema()::regnamespace",
        list(UNLOGGED_ONCE),
    )
    return [row[0] for row in rows]


def test_it_is_refused_while_a_worker_lives(plain_app: procrastinate.App, query: Query) -> None:
    plain_app._gateway.run(workers.register_worker("the one"))
    with pytest.raises(SchemaError, match="the one"):
        plain_app.schema_manager.distribute()
    assert query("select partitions from procrastinate_settings") == [(1,)]


def test_it_is_refused_for_tables_that_were_distributed_otherwise(
    plain_app: procrastinate.App, query: Query
) -> None:
    query("select create_distributed_table('procrastinate_jobs', 'partition')")
    with pytest.raises(SchemaError, match="distributed already, but not by this command"):
        plain_app.schema_manager.distribute()
    assert query("select partitions from procrastinate_settings") == [(1,)]


def test_who_has_the_tables_in_use_is_named_and_nothing_is_changed(
    plain_app: procrastinate.App, empty: str, query: Query
) -> None:
    other = psycopg2.connect(empty)
    with other.cursor() as cursor:
        cursor.execute("select from procrastinate_workers")
        pid = other.info.backend_pid
        with pytest.raises(SchemaError, match=f"pid {pid} for"):
            plain_app.schema_manager.distribute()
    other.close()
    assert query("select partitions from procrastinate_settings") == [(1,)]
    assert plain_app.schema_manager.distribute().is_new


NODE = (
    "a node of a Citus cluster, .* connect to the cluster's coordinator, which this node knows as "
)
WAYS: dict[str, Callable[[procrastinate.App], Any]] = {
    "apply": lambda app: app.schema_manager.apply_schema(),
    "migrate": lambda app: app.schema_manager.migrate(),
    "distribute": lambda app: app.schema_manager.distribute(),
    "check": lambda app: app.schema_manager.check(),
    "check_connection": lambda app: app.check_connection(),
    "defer": lambda app: app.configure_task("t").defer(),
    "batch": lambda app: app.configure_task("t").batch_defer({}, {}),
}


@pytest.mark.parametrize("distributed", [False, True])
def test_a_node_says_which_server_to_connect_to(
    plain_app: procrastinate.App, empty: str, query: Query, distributed: bool
) -> None:
    if distributed:
        plain_app.schema_manager.distribute()
    ((coordinator,),) = query(
        "select concat_ws(':', nodename, nodeport) from pg_dist_node where groupid = 0"
    )
    (host, port), *_ = query("select nodename, nodeport from pg_dist_node where groupid <> 0")
    there = make_dsn(empty, host=host, port=port)
    with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=there)).open() as app:
        for way in WAYS.values():
            with pytest.raises(SchemaError, match=NODE + re.escape(coordinator)):
                way(app)
    connection = psycopg2.connect(there)
    with connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('procrastinate_jobs') is not null")
        assert cursor.fetchone() == (distributed,)
    connection.close()


# Migrations


NEW_TABLES = {"waits": "h", "progress": "h", "queues": "n", "minutes": "n"}


def test_a_migration_reaches_the_nodes_and_loses_no_job(
    app: procrastinate.App, query: Query
) -> None:
    ids = [app.configure_task("t", lock=f"l{n}").defer() for n in range(20)]
    older_schemas.undo_9(query)
    assert app.schema_manager.migrate() == [each.title for each in migrations()[8:]]
    app.schema_manager.check()
    assert persistence(query) == ["p"] * len(UNLOGGED_ONCE)
    assert app.schema_manager.migrate() == []
    assert [job.id for job in app.job_manager.list_jobs()] == ids
    assert (
        dict(
            query(
                "select substr(logicalrelid::text, 15), partmethod::text from pg_dist_partition"
                " where substr(logicalrelid::text, 15) = any(%s)"
                " and logicalrelid::oid in (select oid from pg_class"
                " where relnamespace = current_schema()::regnamespace)",
                list(NEW_TABLES),
            )
        )
        == NEW_TABLES
    )
    query("update procrastinate_jobs set result = '[1]' where partition = %s", VALUES[7])
    query("insert into procrastinate_waits select id, partition, 1, now() from procrastinate_jobs")
    assert query("select count(*) from procrastinate_waits") == [(20,)]
    with pytest.raises(InvalidArguments, match="procrastinate_jobs_names_check"):
        app._gateway.run(defer.defer_job(NewJob("")))


def test_a_migration_that_is_interrupted_has_changed_nothing_and_is_repeated(
    app: procrastinate.App, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    older_schemas.undo_9(query)
    migration = migrations()[8]
    statements = migrating.statements_of(migration)
    for last in (*range(0, len(statements), 4), len(statements) - 1):
        broken = [*statements[: last + 1], "select 1 / 0"]
        monkeypatch.setattr(migrating, "statements_of", lambda _, broken=broken: broken)
        with pytest.raises(ConnectorException, match="division by zero"):
            app.schema_manager.migrate()
        assert query(
            "select to_regclass('procrastinate_waits'), max(version) from procrastinate_migrations"
        ) == [(None, 8)]
    monkeypatch.undo()
    app.schema_manager.migrate()
    app.schema_manager.check()


# The statements

#: Those that are about no table of jobs or workers, or that draw ids and notify where we are heard;
#: and what seldom changes other tables, which are on the coordinator, in two steps.
ELSEWHERE = frozenset(
    re.findall(
        r"\w+",
        "defer_job defer_job_in defer_job_with_key defer_jobs defer_alike enter_periodics"
        " notify notify_listener ping pause broken_indexes creation_schema get_place"
        " schema_functions schema_looks schema_objects schema_parts table_users"
        " try_lock_migrations sees_progress pause_queue"
        " resume_queue add_to_minute add_to_hours take_old_minutes",
    )
)
#: What is not sent to a distributed database, or has no plan.
NOT_SENT = frozenset(
    {"defer_ticks", "create_schema", "set_savepoint", "drop_savepoint", "return_to_savepoint"}
)


def test_each_statement_is_one_task_without_subplans(app: procrastinate.App, empty: str) -> None:
    connection = psycopg2.connect(empty)
    split = {}
    with connection, connection.cursor() as cursor:
        for name in every_statement.names(without=ELSEWHERE | NOT_SENT):
            query = every_statement.query(name, partition=7)
            cursor.execute(f"explain {query.sql}", every_statement.literal(query))
            plan = "\n".join(row[0] for row in cursor.fetchall())
            tasks = re.findall(r"Task Count: (\d+)", plan)
            if "Subplan" in plan or tasks != ["1"]:
                split[name] = [*tasks, *re.findall("Subplan", plan)]
    connection.close()
    assert split == {}


def test_each_statement_whose_plan_is_kept_is_one_task_whatever_its_values(
    app: procrastinate.App, empty: str
) -> None:
    statements = Statements(None, app._gateway.run(read_settings())).at(7)
    connection = psycopg2.connect(empty)
    planned = {}
    with connection, connection.cursor() as cursor:
        for name in every_statement.names(without=ELSEWHERE | NOT_SENT):
            values = every_statement.query(name, partition=7).params
            for more in ({}, {"unknown_names": ["t"]}, {"paused": ["q"]}):
                query = statements(Request(name, **{**values, **more}))
                plans = Plans(Permission())
                if not (query.is_sent_often and plans.may_keep(query)):
                    continue
                prepare, execute = plans.sent(query)
                cursor.execute(query.set_local() + prepare.replace("%%", "%"))
                cursor.execute(f"explain {execute}", every_statement.literal(query))
                plan = "\n".join(row[0] for row in cursor.fetchall())
                cursor.execute("deallocate all")
                planned[name, *more] = ("Task Count: 1" in plan, "Subplan" in plan)
    connection.close()
    assert len(planned) > 50
    assert set(planned.values()) == {(True, False)}


# The way of a job


def test_a_violated_constraint_is_told_by_the_name_of_the_schema(app: procrastinate.App) -> None:
    app.configure_task("t", queueing_lock="q").defer()
    with pytest.raises(AlreadyEnqueued):
        app.configure_task("t", queueing_lock="q").defer()
    with pytest.raises(AlreadyEnqueued):
        jobs = [NewJob("t", queueing_lock="p"), NewJob("t", queueing_lock="q")]
        app._gateway.run(defer.defer_jobs(jobs), transaction=True)
    assert app.job_manager.list_jobs(queueing_lock="p") == []


def test_jobs_of_all_partitions_run_once_and_those_of_a_lock_in_order(
    app: procrastinate.App, empty: str, query: Query
) -> None:
    async_app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=empty))
    ran: list[int] = []

    @async_app.task(name="t")
    async def task(n: int) -> None:
        ran.append(n)

    app.configure_task("t").batch_defer(*({"n": -1 - n} for n in range(500)))
    for n in range(200):
        app.configure_task("t").defer(n=1_000 + n)
    for n in range(60):
        app.configure_task("t", lock=f"l{n % 3}").defer(n=n)
    async_app.run_worker(wait=False, concurrency=10)
    assert sorted(ran) == [*range(-500, 0), *range(60), *range(1_000, 1_200)]
    for rest in range(3):
        assert [n for n in ran if 0 <= n < 60 and n % 3 == rest] == list(range(rest, 60, 3))
    assert query("select status::text, count(*) from procrastinate_jobs group by 1") == [
        ("succeeded", 760)
    ]
    assert query("select from procrastinate_locks where job_id is not null") == []
    ((used,),) = query("select count(distinct partition) from procrastinate_jobs")
    assert used > 50


@pytest.mark.parametrize("waits", [False, True])
async def test_periodic_tasks_are_deferred(app: procrastinate.App, empty: str, waits: bool) -> None:
    """By the worker's own thread, or when a worker that does not wait begins."""
    async_app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=empty))
    came = asyncio.Event()

    @async_app.periodic(cron="* * * * * *")
    @async_app.task(name="t", queueing_lock="q")
    async def task(timestamp: int) -> None:
        came.set()

    async def work() -> None:
        async with async_app.open_async():
            while not came.is_set():
                await async_app.run_worker_async(wait=waits, install_signal_handlers=False)

    worker = asyncio.create_task(work())
    await asyncio.wait_for(came.wait(), 60)
    worker.cancel()
    await asyncio.wait([worker])
    assert {job.queueing_lock for job in app.job_manager.list_jobs(task="t")} == {"q"}


def test_a_queue_is_paused_and_resumed(app: procrastinate.App) -> None:
    manager = app.queue_manager
    manager.pause("mail", reason="r")
    assert [(each.queue, each.reason) for each in manager.list_pauses()] == [("mail", "r")]
    assert manager.resume("mail")
    assert not manager.resume("mail")
    assert manager.list_pauses() == []


def test_operations_by_hand_reach_every_job(app: procrastinate.App) -> None:
    ids = [app.configure_task("t", lock=f"l{n}").defer() for n in range(30)]
    assert [job.id for job in app.job_manager.list_jobs()] == ids
    assert app.job_manager.get_job(ids[3]).lock == "l3"
    assert app.job_manager.cancel_job_by_id(ids[3])
    assert app.job_manager.get_job(ids[3]).status is Status.CANCELLED
    app.job_manager.retry_job_by_id(ids[3])
    assert app.job_manager.get_job(ids[3]).status is Status.TODO
