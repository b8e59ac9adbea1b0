"""Putting the jobs of a database into many partitions: what of it any PostgreSQL can do.

A plain server has no use for it, but the same code runs there, so most tests of a distributed
database need no cluster.
"""

from __future__ import annotations

from procrastinate.drive import Flow, Script
from procrastinate.model.partitions import MANY, VALUES, Partitions
from procrastinate.storage.migrating import renew_functions
from procrastinate.storage.schema_parts import JOB_ID, NO_PARTITION, NUMBERS, partition_check
from procrastinate.storage.settings import read_settings

_VALUES = ",".join(map(str, VALUES))


def into_partitions() -> Flow[Partitions]:
    """Put each job with a key, and each deferred from now on, into one of 64; return these.

    All others stay where they are. Needs a transaction, and a lock on the tables against all who
    write. Repeated, it changes nothing.
    """
    partitions = yield from read_settings()
    if partitions.are_many:
        return partitions
    yield Script("the partitions", MOVE)
    yield from renew_functions()
    return (yield from read_settings())


def place_of(key: str) -> str:
    """Return the SQL for the place in `VALUES` of a key's partition, as ``of_key`` computes it."""
    return f"get_byte(sha256(convert_to({key}, 'UTF8')), 0) % {MANY}"


#: Jobs with a key move to its partition, also those that have ended: one may be retried by hand.
#: The check refuses what others write who do not know yet. The partition's default is none of the
#: partitions: a function that began before this, and waits for its lock, would put jobs with a lock
#: where no other job of that lock is. Who waits for jobs will look by itself: no worker lives now.
MOVE = f"""
do $make$
declare
    partitions constant smallint[] := '{{{_VALUES}}}';
    boundary bigint;
begin
    update {{schema}}.procrastinate_jobs as job
    set partition = partitions[{place_of("keyed.key")} + 1]
    from (
        select id, partition, coalesce(lock, queueing_lock) as key
        from {{schema}}.procrastinate_jobs
    ) as keyed
    where keyed.key is not null and job.id = keyed.id and job.partition = keyed.partition;
    update {{schema}}.procrastinate_locks
    set partition = partitions[{place_of("lock")} + 1];
    delete from {{schema}}.procrastinate_waits;
    delete from {{schema}}.procrastinate_progress;
    select greatest(
        case when drawn.is_called then drawn.last_value else 0 end,
        (select max(id) from {{schema}}.procrastinate_jobs)
    )
    into boundary
    from {{schema}}.procrastinate_jobs_id_seq as drawn;
    perform setval('{{schema}}.procrastinate_jobs_id_seq', greatest(boundary, 1), boundary > 0);
    alter sequence {{schema}}.procrastinate_jobs_id_seq rename to {NUMBERS};
    alter table {{schema}}.procrastinate_jobs
        alter column id set default {JOB_ID},
        alter column partition set default {NO_PARTITION};
    execute replace(
        $check$alter table {{schema}}.procrastinate_jobs add {partition_check("BOUNDARY")}$check$,
        'BOUNDARY', boundary::text
    );
    update {{schema}}.procrastinate_settings set partitions = {MANY}, boundary_id = boundary;
end
$make$;
"""
