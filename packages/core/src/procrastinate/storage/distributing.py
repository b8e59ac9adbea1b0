"""Distributing the jobs over the nodes of a Citus cluster: ``schema --distribute``.

Rules

1. It is one transaction. What interrupts it, at whatever step, leaves the tables as they were.
2. It holds the lock of migrations and locks all tables. A program that defers meanwhile waits, and
   finds the tables distributed: the functions that insert jobs know it then.
3. No worker may live: it would go on to look for jobs in one partition only. One that registers
   meanwhile waits for the lock, and reads the settings after that.
4. No job may wait or run whose lock and queueing lock belong to different partitions: jobs with a
   partition key, deferred later, would be in another one, where these locks are not seen.
5. What belongs to jobs is distributed with them, by their partition. All other tables stay on the
   coordinator, where every node can reach them.
6. What is distributed is logged. Citus moves the partitions to a new node by logical replication,
   which leaves out unlogged tables: no node could be added.
7. Partitions and nodes are two things: a dump of a distributed database, restored, has its 64
   partitions in plain tables. There, only the nodes are still to be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Script, Step, Steps
from procrastinate.errors import ConnectorException, SchemaError
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.model.text.printable import counted
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage.astray import refuse_rows_astray
from procrastinate.storage.migrating import IN_USE, SEQUENTIAL, table_users
from procrastinate.storage.partitioning import into_partitions, place_of
from procrastinate.storage.schema import TABLES, check_schema
from procrastinate.storage.settings import read_settings
from procrastinate.storage.statements import HELD_STATUSES

LOCKS_WITHIN = 10  # seconds
#: Names or ids in a message, at most.
SHOWN = 5
#: Seconds without a sign of life after which a worker is dead, unless its options say otherwise.
STALLED_AFTER = WorkerOptions().stalled_worker_timeout
#: They have a partition and are as many as the jobs, or are read and written together with them.
DISTRIBUTED = (
    "procrastinate_jobs",
    "procrastinate_locks",
    "procrastinate_waits",
    "procrastinate_progress",
)
LOCAL = tuple(name for name in TABLES if name not in DISTRIBUTED)


def _for_each(function: str, names: Sequence[str]) -> str:
    return "\n".join(f"select {function}('{{schema}}.{name}');" for name in names)


def _beside_the_jobs(names: Sequence[str]) -> str:
    beside = "colocate_with := '{schema}.procrastinate_jobs'"
    return "\n".join(
        f"select create_distributed_table('{{schema}}.{name}', 'partition', {beside});"
        for name in names
    )


_OWNER = """
select
    pg_catalog.pg_has_role(class.relowner, 'usage')::integer,
    class.relowner::regrole::text,
    exists (select from pg_catalog.pg_extension where extname = 'citus')::integer
from pg_catalog.pg_class as class
where class.oid = to_regclass('{schema}.procrastinate_jobs')::oid
"""

_ALIVE = f"""
select worker.name
from {{schema}}.procrastinate_workers as worker
where worker.last_heartbeat > statement_timestamp() - interval '{STALLED_AFTER:g} seconds'
order by worker.name
"""

_ACTIVE = f"job.status in ('todo', {HELD_STATUSES})"  # those that wait or run

_SPLIT = f"""
select count(*), (array_agg(job.id order by job.id))[:{SHOWN + 1}]
from {{schema}}.procrastinate_jobs as job
where {_ACTIVE} and {place_of("job.lock")} <> {place_of("job.queueing_lock")}
"""

_LOCKED = f"""
select job.task_name, count(*)
from {{schema}}.procrastinate_jobs as job
where {_ACTIVE} and coalesce(job.lock, job.queueing_lock) is not null
group by job.task_name
"""

_CLUSTER = """
select
    (select (groupid = 0)::integer from pg_catalog.pg_dist_local_group),
    exists (select from pg_catalog.pg_dist_node where groupid = 0)::integer,
    (
        select count(*) from pg_catalog.pg_dist_node
        where groupid <> 0 and noderole::text = 'primary' and isactive and shouldhaveshards
    ),
    exists (
        select from pg_catalog.pg_dist_partition
        where logicalrelid = to_regclass('{schema}.procrastinate_jobs')
    )::integer
"""

_LOCK = f"""
set local lock_timeout = '{LOCKS_WITHIN}s';
lock table {", ".join(f"{{schema}}.{name}" for name in TABLES)} in access exclusive mode;
{SEQUENTIAL}
"""

_SPREAD = f"""
select create_distributed_table(
    '{{schema}}.procrastinate_jobs', 'partition', shard_count := {MANY}, colocate_with := 'none'
);
{_beside_the_jobs(DISTRIBUTED[1:])}
{_for_each("citus_add_local_table_to_metadata", LOCAL)}
{_for_each("truncate_local_data_after_distributing_table", DISTRIBUTED)}
"""

_UNLOGGED = f"""
select class.relname::text
from pg_catalog.pg_class as class
where class.relpersistence = 'u'
    and class.oid in ({", ".join(f"to_regclass('{{schema}}.{name}')" for name in DISTRIBUTED)})
order by class.relname
"""

#: Without a limit of the role's: jobs are copied to their nodes. And without notices, which Citus
#: sends: if psycopg2 decodes one after Ctrl-C, it drops the KeyboardInterrupt, and all goes on.
_UNDER = {"transaction_isolation": "read committed", "statement_timeout": "0"} | {
    "client_min_messages": "warning"
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """What `distribute` found or made: the partitions, and how many nodes have some of them."""

    partitions: Partitions
    nodes: int
    is_new: bool = True


def distribute() -> Steps[Distribution]:
    """Distribute the jobs over the nodes. Needs the lock of migrations.

    Raises `SchemaError` if that cannot be done; then nothing was changed.
    """
    state = yield Step(check_schema(whole=True))
    nodes = yield Step(nodes_in_use())
    if state.partitions.are_many and nodes:
        yield Step(let_be_logged(), transaction=True)  # earlier versions did not
        return Distribution(state.partitions, nodes, is_new=False)
    yield Step(_refuse())
    try:
        done: Distribution = yield Step(_distribute(), transaction=True)
    except ConnectorException as exc:
        if exc.sqlstate not in IN_USE:
            raise
        users = yield Step(table_users())
        raise SchemaError(
            f"the tables were not to be had within {LOCKS_WITHIN} s, because transactions have them"
            f" in use ({users or 'they have ended now'}): end these"
            " (`select pg_terminate_backend(PID)`), or distribute later; nothing was changed"
        ) from exc
    return done


def check_places() -> Flow[int]:
    """Return how many nodes have jobs of ours, as `nodes_in_use` does.

    Raises `SchemaError` if rows are in none of the partitions, as far as the role may read them, or
    if nodes have jobs, and do not know all other tables.
    """
    partitions = yield from read_settings()
    nodes = 0
    if partitions.are_many:
        nodes = yield from nodes_in_use()
        if nodes:
            yield from _refuse_tables_elsewhere()
    yield from refuse_rows_astray(partitions)
    return nodes


def nodes_in_use() -> Flow[int]:
    """Return how many nodes have jobs of ours; none if the partitions are in plain tables."""
    ((_, _, is_citus),) = yield Script("the owner", _OWNER)
    if not is_citus:
        return 0
    ((count,),) = yield Script("the nodes in use", _NODES_IN_USE)
    return int(count)


_NODES_IN_USE = """
select count(distinct placement.groupid)
from pg_catalog.pg_dist_shard as shard
join pg_catalog.pg_dist_placement as placement on placement.shardid = shard.shardid
join pg_catalog.pg_dist_partition as its_table
    on its_table.logicalrelid = shard.logicalrelid and its_table.partmethod = 'h'
where shard.logicalrelid = to_regclass('{schema}.procrastinate_jobs')
"""


def _refuse_tables_elsewhere() -> Flow[None]:
    names = [row[0] for row in (yield Script("tables elsewhere", _ELSEWHERE))]
    if names:
        beside = "'partition', colocate_with := 'procrastinate_jobs'"
        makes = [
            f"`select create_distributed_table('{name}', {beside})`"
            if name in DISTRIBUTED
            else f"`select citus_add_local_table_to_metadata('{name}')`"
            for name in names
        ]
        raise SchemaError(
            f"the jobs are distributed, and of the other tables the nodes do not know"
            f" {', '.join(names)}: stop all workers and run {', '.join(makes)}"
        )


_ELSEWHERE = f"""
select wanted.name
from pg_catalog.unnest('{{{",".join(TABLES)}}}'::text[]) with ordinality as wanted(name, place)
where not exists (
    select from pg_catalog.pg_dist_partition as known
    where known.logicalrelid = to_regclass('{{schema}}.' || wanted.name)
        and (known.partmethod = 'h')
            = (wanted.name = any('{{{",".join(DISTRIBUTED)}}}'::text[]))
)
order by wanted.place
"""


def to_drain() -> Flow[dict[str, int]]:
    """Return how many jobs of each task wait or run with a lock or a queueing lock.

    If their task has a partition key, `distribute` would put them elsewhere than later ones,
    because a database that is not distributed does not keep the key. A distributed one does, so
    there are none. Raises `SchemaError` as `distribute` does for jobs with split locks (rule 4).
    """
    if (yield from read_settings()).are_many:
        return {}
    yield from _refuse_split_locks()
    rows = yield Script("jobs with locks", _LOCKED).under(statement_timeout="0")
    return {name: int(count) for name, count in rows}


def _distribute() -> Flow[Distribution]:
    yield script("the locks", _LOCK)
    yield from _refuse_while_workers_live()  # one may have come before the lock
    yield from _refuse_split_locks()
    partitions = yield from into_partitions()
    yield from let_be_logged()
    yield script("the nodes", _SPREAD)
    return Distribution(partitions, (yield from nodes_in_use()))


def let_be_logged() -> Flow[None]:
    """Let the tables that are distributed be logged (rule 6)."""
    names = [row[0] for row in (yield Script("unlogged tables", _UNLOGGED))]
    if names:
        yield script("one connection to each node", SEQUENTIAL)
    for name in names:
        # Without settings in its message: nodes get the text of all of it.
        yield Script("logged", f"alter table {{schema}}.{name} set logged")


def script(name: str, text: str) -> Any:
    return Script(name, text).under(**_UNDER)


# What is refused


_NO_CITUS = (
    "the extension citus is not in this database, so there is nothing to distribute over: let an"
    " administrator of a Citus cluster run `create extension citus` in this database on every node,"
    " and `select citus_add_node(HOST, PORT)` on the coordinator for each"
)


def _refuse() -> Flow[None]:
    ((is_ours, owner, is_citus),) = yield Script("the owner", _OWNER)
    if not is_ours:
        raise SchemaError(
            f"only the owner of procrastinate's tables can distribute them: connect as {owner}"
        )
    try:
        yield from _refuse_while_workers_live()
        yield from _refuse_split_locks()
    except SchemaError as exc:
        if is_citus:
            raise
        raise SchemaError(f"{_NO_CITUS}. Besides, {exc}") from exc
    if not is_citus:
        raise SchemaError(_NO_CITUS)
    _refuse_without_nodes((yield Script("the cluster", _CLUSTER)))


def _refuse_while_workers_live() -> Flow[None]:
    names = [row[0] for row in (yield Script("live workers", _ALIVE))]
    if names:
        raise SchemaError(
            f"workers are alive ({_some(names)}), and none may be while jobs move: stop them, and"
            f" distribute again (one that died is forgotten after {STALLED_AFTER:g} s)"
        )


def _refuse_split_locks() -> Flow[None]:
    if (yield from read_settings()).are_many:  # they have a partition_key
        return
    ((count, ids),) = yield Script("jobs with split locks", _SPLIT).under(statement_timeout="0")
    if count:
        raise SchemaError(
            "a lock and a queueing lock of different partitions belong to"
            f" {counted(int(count), 'job')} waiting or running (ids:"
            f" {_some([f'{each}' for each in ids])}). Jobs deferred later with a partition_key"
            " would not see these locks: defer no more of them, let these run or cancel them, and"
            " distribute again"
        )


def _refuse_without_nodes(rows: Rows) -> None:
    ((is_coordinator, is_known, nodes, is_distributed),) = rows
    if not is_coordinator:
        raise SchemaError(
            "this server is a node of the cluster and not its coordinator: connect to that one"
        )
    if is_distributed:
        raise SchemaError(
            "the table procrastinate_jobs was distributed already, but not by this command: take"
            " that back by `select undistribute_table('procrastinate_jobs')`, and distribute again"
        )
    if not nodes:
        raise SchemaError(
            "the cluster has no node that takes shards: let an administrator run"
            " `select citus_add_node(HOST, PORT)` on the coordinator for each node"
        )
    if not is_known:
        raise SchemaError(
            "the nodes do not know their coordinator, which keeps the tables of workers and"
            " schedules: let an administrator run `select citus_set_coordinator_host(HOST, PORT)`"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
