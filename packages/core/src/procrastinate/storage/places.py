"""In which partition jobs are that are known by id."""

from __future__ import annotations

from collections.abc import Iterable

from procrastinate.drive import Flow, Request
from procrastinate.model.partitions import Partitions


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
