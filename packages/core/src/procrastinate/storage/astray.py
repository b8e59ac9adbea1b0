"""Rows that are in none of the partitions, where no worker looks."""

from __future__ import annotations

from procrastinate.drive import Flow, Script
from procrastinate.errors import SchemaError
from procrastinate.model.partitions import MANY, VALUES, Partitions
from procrastinate.storage.looking import as_far_as_possible

#: Rows of those that no index tells apart by their partition.
LOOKED_AT = 1_000
_SHOWN = 5  # ids in a message, at most


def refuse_rows_astray(partitions: Partitions) -> Flow[None]:
    """Raise `SchemaError` if jobs or locks are in no partition, as far as the role may read them.

    With one partition it reads the ends of indexes, and some rows that no index tells apart. With
    many it reads an entry for each job that waits or runs.
    """
    # In memory there are no other partitions, and a role that may only defer reads no jobs.
    with as_far_as_possible():
        yield from _refuse_of_many() if partitions.are_many else _refuse_of_one()


def _refuse_of_one() -> Flow[None]:
    ((are_astray,),) = yield Script("rows astray", _ASTRAY)
    if are_astray:
        raise SchemaError(_REPAIR)


def _refuse_of_many() -> Flow[None]:
    ids = [str(row[0]) for row in (yield Script("jobs astray", _ASTRAY_OF_MANY))]
    if ids:
        raise SchemaError(
            f"some jobs are in none of the {MANY} partitions, so no worker looks for them. They"
            " were inserted by hand. Delete them, and defer them again by a function of"
            f" procrastinate (ids: {', '.join(ids)})"
        )


_ASTRAY = f"""
with used as (
    select min(partition) as least, max(partition) as greatest
    from {{schema}}.procrastinate_jobs where status = 'todo' and hold is null
    union all
    select min(partition), max(partition)
    from {{schema}}.procrastinate_jobs where status = 'todo' and hold = 'schedule'
    union all
    select min(partition), max(partition)
    from {{schema}}.procrastinate_jobs where status = 'doing'
    union all
    select min(partition), max(partition)
    from (
        select partition
        from {{schema}}.procrastinate_jobs
        where status = 'todo' and hold = 'lock'
            and lock is not null and hold is distinct from 'schedule'  -- as of its index
        order by lock, queue_name, priority desc, id
        limit {LOOKED_AT}
    ) as parked
    union all
    select min(partition), max(partition)
    from (select partition from {{schema}}.procrastinate_locks limit {LOOKED_AT}) as locks
)
select (count(*) filter (where least <> 0 or greatest <> 0) > 0)::integer from used
"""

#: Each part has an index of its own.
_ASTRAY_OF_MANY = f"""
with active as (
    select id, partition from {{schema}}.procrastinate_jobs
    where status = 'todo' and hold is null
    union all
    select id, partition from {{schema}}.procrastinate_jobs
    where status = 'todo' and hold = 'schedule'
    union all
    select id, partition from {{schema}}.procrastinate_jobs
    where lock is not null and status = 'todo' and hold is distinct from 'schedule'
        and hold = 'lock'
    union all
    select id, partition from {{schema}}.procrastinate_jobs where status = 'doing'
)
select id
from active
where partition <> all('{{{",".join(map(str, VALUES))}}}'::smallint[])
order by id
limit {_SHOWN}
"""

_REPAIR = (
    "this database has 1 partition, but some jobs or locks are in another than 0, where no worker"
    " looks: they were probably copied from a distributed database. Stop all workers, run"
    " `update procrastinate_jobs set partition = 0 where partition <> 0` and the same for"
    " procrastinate_locks, and let new ids begin above the others:"
    " `select setval('procrastinate_jobs_id_seq', max(id)) from procrastinate_jobs`"
)
