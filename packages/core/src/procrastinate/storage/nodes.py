"""The nodes of a cluster: which of them does not answer, and which partitions it has.

A node that is dead refuses, and a statement for it fails at once. One that is silent, as a machine
that stands still, lets a statement wait. The coordinator cannot end it either on a connection that
was in use before, because it waits until the node has heard of the cancellation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from procrastinate.drive import Flow, Limit, NoAnswer, Script, Step, Steps, at
from procrastinate.errors import ConnectorException, may_be_of_one_node
from procrastinate.model.partitions import VALUES
from procrastinate.storage.workers import probe_partition

#: For a question that costs nothing.
PROBE = Limit(server=1.0, client=2.0)

_IS_CLUSTER = "select exists (select from pg_catalog.pg_extension where extname = 'citus')::integer"

#: The coordinator knows this without asking the nodes.
_NODES = f"""
select placement.groupid, value::integer
from unnest('{{{",".join(map(str, VALUES))}}}'::smallint[]) as value
join pg_catalog.pg_dist_placement as placement
    on placement.shardid = get_shard_id_for_distribution_column(
        to_regclass('{{schema}}.procrastinate_jobs'), value
    )
where exists (
    select from pg_catalog.pg_dist_partition
    where logicalrelid = to_regclass('{{schema}}.procrastinate_jobs') and partmethod = 'h'
)
"""


#: The coordinator as this node knows it. There is no row on a coordinator, and none on a node with
#: plain tables of its own.
_COORDINATOR = """
select coalesce(coordinator.nodename::text || ':' || coordinator.nodeport, '')
from pg_catalog.pg_dist_local_group as here
left join pg_catalog.pg_dist_node as coordinator
    on coordinator.groupid = 0 and coordinator.noderole::text = 'primary'
where here.groupid <> 0 and (
    to_regclass('{schema}.procrastinate_jobs') is null
    or exists (
        select from pg_catalog.pg_dist_partition as known
        where known.logicalrelid = to_regclass('{schema}.procrastinate_jobs')
    )
)
"""


def coordinator_elsewhere() -> Flow[str | None]:
    """Return where the coordinator is if this server is one of its nodes, or else None.

    The text is empty if the node does not know. A node with plain tables of its own counts as a
    server like any other.
    """
    ((is_cluster,),) = yield Script("whether it is a cluster", _IS_CLUSTER)
    rows = (yield Script("the coordinator", _COORDINATOR)) if is_cluster else []
    return rows[0][0] if rows else None


def partitions_by_node() -> Flow[Sequence[Sequence[int]]]:
    """Return the partitions of each node; nothing if the partitions are in plain tables."""
    ((is_cluster,),) = yield Script("whether it is a cluster", _IS_CLUSTER)
    if not is_cluster:
        return []
    of_nodes: defaultdict[int, list[int]] = defaultdict(list)
    for node, partition in (yield Script("the partitions of the nodes", _NODES)):
        of_nodes[node].append(partition)
    return list(of_nodes.values())


def partitions_away() -> Steps[Mapping[int, ConnectorException]]:
    """Ask each node, and return the partitions of those that fail, with what each has said.

    Raises `ConnectorException` if the database itself does not answer.
    """
    away: dict[int, ConnectorException] = {}
    for partitions in (yield Step(partitions_by_node(), limit=PROBE)):
        try:
            yield Step(at(partitions[0], probe_partition()), limit=PROBE)
        except ConnectorException as exc:
            if not may_be_node(exc):
                raise
            away |= dict.fromkeys(partitions, exc)
    return away


def may_be_node(exc: BaseException) -> bool:
    """Return whether an error may be about a node, also if nothing was said (`NoAnswer`)."""
    return isinstance(exc, NoAnswer) or may_be_of_one_node(exc)
