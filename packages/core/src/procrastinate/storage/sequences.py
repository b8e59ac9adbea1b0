"""Whether the ids that are drawn next are new ones.

A logical replica gets rows and no sequences, and neither does a table that was filled by hand: what
draws ids there begins at 1 again. New jobs are then refused, or come before old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from procrastinate.drive import Flow, Script
from procrastinate.errors import SchemaError
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.storage.looking import as_far_as_possible
from procrastinate.storage.schema_parts import IDS, NUMBERS, WORKER_IDS
from procrastinate.storage.settings import read_settings

_JOBS = "select max(job.id) from {schema}.procrastinate_jobs as job"
#: Rows of dead workers are removed, and the jobs that they held may still say their ids.
_WORKERS = """
select greatest(
    (select max(worker.id) from {schema}.procrastinate_workers as worker),
    (select max(job.worker_id) from {schema}.procrastinate_jobs as job where job.status = 'doing')
)
"""


@dataclass(frozen=True, slots=True)
class _Drawn:
    sequence: str
    greatest: str  # the query for the greatest id of all rows
    what: str


def check_sequences() -> Flow[None]:
    """Raise `SchemaError` if a sequence would give an id that a row has, or a smaller one.

    A role that may not read the rows or the sequence, and the memory, has nothing to check.
    """
    partitions = yield from read_settings()
    for drawn in _drawn(partitions):
        with as_far_as_possible():
            yield from _check(drawn, partitions)


def _drawn(partitions: Partitions) -> Iterator[_Drawn]:
    yield _Drawn(NUMBERS if partitions.are_many else IDS, _JOBS, "job")
    yield _Drawn(WORKER_IDS, _WORKERS, "worker")


def _check(drawn: _Drawn, partitions: Partitions) -> Flow[None]:
    # In this order: rows that come in between have drawn their ids.
    ((greatest,),) = yield Script("the greatest id", drawn.greatest)
    rows = yield Script("the next id", _NEXT.replace("{sequence}", drawn.sequence))
    ((name, following, goes_on),) = rows
    last = greatest or 0
    if drawn.sequence == NUMBERS:
        last = max(last, partitions.boundary_id) // MANY
    if following <= last:
        raise SchemaError(
            f"the next id of a {drawn.what} would be no new one: the sequence {name} gives"
            f" {following}, and {last} is taken. Probably the rows were copied without the sequence"
            f" (a logical replica has none of its values). Run `select setval('{name}', {last})`,"
            " before anything is deferred or a worker starts"
        )
    if not goes_on:
        raise SchemaError(
            f"the sequence {name} does not count up, or begins again at its end, but later"
            f" {drawn.what}s need greater ids: run `alter sequence {name} increment by 1 no cycle"
            " no maxvalue`"
        )


_NEXT = """
select
    made.seqrelid::regclass::text,
    drawn.last_value + case when drawn.is_called then made.seqincrement else 0 end,
    (made.seqincrement > 0 and not made.seqcycle)::integer
from {schema}.{sequence} as drawn
join pg_catalog.pg_sequence as made
    on made.seqrelid = to_regclass('{schema}.{sequence}')::oid
"""
