"""What `schema --distribute` refuses, and who defers meanwhile. It needs no cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import drive
from procrastinate.errors import PartitionAway, SchemaError, SchemaNotApplied
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.storage import defer, workers
from procrastinate.storage.distributing import STALLED_AFTER, let_be_logged, script, to_drain
from procrastinate.storage.partitioning import into_partitions

Query = Callable[..., list[tuple[Any, ...]]]
pytestmark = pytest.mark.one_partition("these make the partitions themselves")


def refusal(app: procrastinate.App) -> str:
    with pytest.raises(SchemaError) as refused:
        app.schema_manager.distribute()
    assert app.schema_manager.check().partitions == Partitions()
    return str(refused.value)


def test_it_is_refused_without_the_extension(sync_app: procrastinate.App) -> None:
    assert "the extension citus is not in this database" in refusal(sync_app)


async def test_the_asynchronous_half_refuses_the_same(app: procrastinate.App) -> None:
    with pytest.raises(SchemaError, match="the extension citus is not in this database"):
        await app.schema_manager.distribute_async()


def test_what_is_distributed_is_logged_first(sync_app: procrastinate.App, query: Query) -> None:
    """Unlogged tables could not move to a node that is added. A plain server keeps them."""
    unlogged = "select relname::text from pg_class where relpersistence = 'u' and relkind = 'r'"
    assert sorted(query(unlogged)) == [("procrastinate_progress",), ("procrastinate_waits",)]
    for _ in range(2):
        sync_app._gateway.run(let_be_logged(), transaction=True)
        assert query(unlogged) == []


def test_ctrl_c_is_heard_although_the_cluster_sends_notices(sync_app: procrastinate.App) -> None:
    """psycopg2 drops what is raised while it decodes a notice, and the jobs were distributed."""
    noisy = "do $$ begin perform pg_sleep(0.5); raise notice 'copying'; end $$"

    def distribute() -> drive.Flow[None]:
        yield script("as the nodes", noisy)

    interrupted = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    interrupted.start()
    with pytest.raises(KeyboardInterrupt):
        sync_app._gateway.run(distribute(), transaction=True)
    interrupted.join()


def test_it_is_refused_without_tables(procrastinate_dsn: str) -> None:
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    with procrastinate.App(connector=connector).open() as app, pytest.raises(SchemaNotApplied):
        app.schema_manager.distribute()


def test_it_is_refused_while_a_worker_lives(sync_app: procrastinate.App, query: Query) -> None:
    sync_app._gateway.run(workers.register_worker("the one"))
    said = refusal(sync_app)
    assert said.startswith("the extension citus is not in this database")
    assert "Besides, workers are alive (the one)" in said
    query(
        "update procrastinate_workers set last_heartbeat = now() - %s * interval '1 s'",
        STALLED_AFTER + 1,
    )
    assert "alive" not in refusal(sync_app)


def test_it_is_refused_while_jobs_have_locks_of_different_partitions(
    sync_app: procrastinate.App, query: Query
) -> None:
    """With a partition key, later ones are elsewhere: both would run at once."""
    locks = {"lock": "l", "queueing_lock": "q"}
    assert Partitions(MANY).of_key("l") != Partitions(MANY).of_key("q")
    sync_app.configure_task("t", lock="l", queueing_lock="l").defer()
    waiting = sync_app.configure_task("t", **locks).defer()
    running = sync_app.configure_task("t", **locks | {"queueing_lock": "q2"}).defer()
    query("update procrastinate_jobs set status = 'doing' where id = %s", running)
    said = f"different partitions belong to 2 jobs waiting or running (ids: {waiting}, {running})."
    assert said in refusal(sync_app)
    with pytest.raises(SchemaError, match="different partitions belong to 2 jobs"):
        sync_app._gateway.run(to_drain())
    query("update procrastinate_jobs set status = 'succeeded' where id <> %s", waiting)
    assert f" 1 job waiting or running (ids: {waiting})." in refusal(sync_app)
    query("update procrastinate_jobs set status = 'cancelled' where id = %s", waiting)
    assert "extension citus" in refusal(sync_app)


def test_a_distributed_database_has_kept_the_keys(sync_app: procrastinate.App) -> None:
    sync_app.configure_task("t", lock="l", queueing_lock="q").defer()
    with pytest.raises(SchemaError):
        sync_app._gateway.run(to_drain())
    sync_app._gateway.run(into_partitions(), transaction=True)
    assert sync_app._gateway.run(to_drain()) == {}


@pytest.fixture
def stranger(dsn: str, query: Query) -> Iterator[procrastinate.App]:
    """An app of a role that may write all tables and owns none."""
    name = f"stranger_{uuid.uuid4().hex[:12]}"  # tests of other databases share the server
    query(f"create role {name} login")
    query(f"grant all on all tables in schema public to {name}")
    connector = procrastinate.Psycopg2Connector(dsn=dsn, user=name)
    with procrastinate.App(connector=connector).open() as app:
        yield app
    query(f"drop owned by {name}")
    query(f"drop role {name}")


def test_it_is_refused_to_another_role_than_the_owner(stranger: procrastinate.App) -> None:
    assert "only the owner of procrastinate's tables can distribute them" in refusal(stranger)


KINDS: dict[str, Callable[[], drive.Flow[Any]]] = {
    "one": lambda: defer.defer_job(defer.NewJob("t", lock="l")),
    "batch": lambda: defer.defer_jobs([defer.NewJob("t", lock="l"), defer.NewJob("u", lock="l")]),
    "alike": lambda: defer.defer_alike(defer.NewJob("t", lock="l"), "[{}, {}]"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_to_wait_defers_into_the_right_partition(
    sync_app: procrastinate.App, query: Query, until: Callable[..., Any], kind: str
) -> None:
    """The function that it calls has begun, and knew of one partition."""
    gateway = sync_app._gateway
    with gateway.sync_connector().session(transaction=True) as session:
        lock = drive.Script("the lock", "lock table {schema}.procrastinate_jobs")
        session.execute(gateway.statements(lock))
        waiting = asyncio.create_task(asyncio.to_thread(gateway.run, KINDS[kind]()))
        await until(
            lambda: query(
                "select pid from pg_locks where not granted and database ="
                " (select oid from pg_database where datname = current_database())"
            )
        )
        drive.run(into_partitions(), session, gateway.statements)
    await waiting
    rows = query("select partition, id from procrastinate_jobs")
    assert len(rows) == (1 if kind == "one" else 2)
    theirs = Partitions(MANY).of_key("l")
    assert {(partition, Partitions(MANY).of_id(job_id)) for partition, job_id in rows} == {
        (theirs, theirs)
    }


def test_who_has_a_transaction_of_its_own_is_told_to_defer_again(
    sync_app: procrastinate.App, dsn: str
) -> None:
    """The check keeps a job out that no worker would find."""
    sync_app._gateway.run(into_partitions(), transaction=True)
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.CheckViolation) as refused:
            cursor.execute(
                "insert into procrastinate_jobs (queue_name, task_name) values ('a', 'b')"
            )
        assert refused.value.diag.constraint_name == defer.PARTITION_CHECK
    connection.close()


@pytest.fixture
def away(sync_app: procrastinate.App, query: Query) -> Callable[[int], None]:
    """Let the nodes of so many next inserts be away, as a cluster reports it."""
    sync_app._gateway.run(into_partitions(), transaction=True)
    query("create sequence tries")
    query(
        "create function fail() returns trigger language plpgsql as $$ begin"
        " if nextval('public.tries') <= 0 then raise 'no node' using errcode = '08006'; end if;"
        " return new; end $$"
    )
    query(
        "create trigger fail before insert on procrastinate_jobs for each statement"
        " execute function fail()"
    )

    def make(times: int) -> None:
        query("alter sequence tries minvalue -10 restart with %s", 1 - times)

    return make


def one(app: procrastinate.App, **options: Any) -> list[int]:
    return [app.configure_task("t", **options).defer()]


def alike(app: procrastinate.App, **options: Any) -> list[int]:
    return app.configure_task("t", **options).batch_defer({}, {})


@pytest.mark.parametrize("make", [one, alike])
def test_a_job_without_a_key_goes_to_another_node_if_one_is_away(
    sync_app: procrastinate.App,
    query: Query,
    away: Callable[[int], None],
    make: Callable[..., list[int]],
) -> None:
    away(4)
    ids = make(sync_app)
    assert query("select id from procrastinate_jobs order by id") == [(each,) for each in ids]
    away(5)
    with pytest.raises(PartitionAway):
        make(sync_app)
    assert query("select count(*) from procrastinate_jobs") == [(len(ids),)]


@pytest.mark.parametrize("make", [one, alike])
@pytest.mark.parametrize("key", ["lock", "partition_key"])
def test_a_job_with_a_key_is_refused_if_its_node_is_away(
    sync_app: procrastinate.App,
    query: Query,
    away: Callable[[int], None],
    make: Callable[..., list[int]],
    key: str,
) -> None:
    away(1)
    with pytest.raises(PartitionAway):
        make(sync_app, **{key: "k"})
    assert query("select from procrastinate_jobs") == []
    assert make(sync_app, **{key: "k"})
