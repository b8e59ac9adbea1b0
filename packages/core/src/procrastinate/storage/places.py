"""In which partition jobs are that are known by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from procrastinate.drive import Flow, Request, at
from procrastinate.model.partitions import Partitions

T = TypeVar("T")

#: What is done to jobs of one partition: returns the ids of those that it changed.
Change: TypeAlias = Callable[[Sequence[int]], Flow[set[int]]]


def grouped(ids: Iterable[int], partitions: Partitions) -> Flow[dict[int, list[int]]]:
    """Return these ids by partition, in order of both.

    The jobs whose ids do not tell are looked up; there are none with a single partition. Those that
    are not there are left out.
    """
    places: dict[int, list[int]] = {}
    unknown = []
    for job_id in ids:
        partition = partitions.of_id(job_id)
        if partition is None:
            unknown.append(job_id)
        else:
            places.setdefault(partition, []).append(job_id)
    if unknown:
        for job_id, partition in (yield Request("locate_jobs", ids=unknown)):
            places.setdefault(int(partition), []).append(int(job_id))
    return {partition: sorted(set(places[partition])) for partition in sorted(places)}


def changed(
    ids: Iterable[int], partitions: Partitions, *, change: Change, lock: str | None = None
) -> Flow[set[int]]:
    """Change jobs, partition by partition, and return the ids of those that were changed.

    ``lock`` is one that they get: see `staying`.
    """
    done: set[int] = set()
    for partition, some in (yield from grouped(ids, partitions)).items():
        here = staying(partition, change, lock, partitions)
        done |= yield from at(partition, here(some))
    return done


def staying(partition: int, change: Change, lock: str | None, partitions: Partitions) -> Change:
    """Return a change that gives jobs of a partition a lock, or one that refuses to.

    The refusal is an `InvalidOption`.
    """

    def checked(ids: Sequence[int]) -> Flow[set[int]]:
        partitions.check_move(ids[0], partition, lock)
        return change(ids)

    return change if lock is None else checked


def found(job_id: int, partitions: Partitions, flow: Flow[T]) -> Flow[T]:
    """Return a flow that reads one job, for the partition that the job is in, or else for all."""
    partition = partitions.of_id(job_id)
    return flow if partition is None else at(partition, flow)
