"""In which partition claimed jobs are."""

from __future__ import annotations

import pytest

from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import VALUES, Partitions
from procrastinate.worker.database.places import Places


def jobs(*ids: int) -> list[Job]:
    return [Job(id, Status.DOING, "q", "task", {}) for id in ids]


def test_ids_say_where_jobs_are_and_older_ones_are_noted() -> None:
    places = Places(Partitions(64, boundary_id=100))
    places.note(jobs(7, 100, 101), 31)
    assert (places.of(7), places.of(100)) == (31, 31)
    assert places.of(101) == VALUES[101 % 64]
    places.forget([7, 101])
    assert places.of(100) == 31
    with pytest.raises(KeyError):
        places.of(7)


def test_with_one_partition_all_are_in_it() -> None:
    places = Places(Partitions())
    places.note(jobs(7), 0)
    places.forget([7])
    assert places.of(7) == 0
