"""What a claim touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Place = Any  # of conftest.py, which cannot be imported by name
Defer = Callable[..., int]


def test_a_claim_over_many_queues_locks_no_job_that_it_does_not_take(place: Place) -> None:
    """Other workers would pass over it."""
    place.query(
        "insert into procrastinate_jobs (task_name, queue_name, args)"
        """ select 'noted', 'q' || n % 10, '{"seconds": 30}' from generate_series(1, 1000) as n"""
    )
    place.start("claiming", concurrency=20, queues=[f"q{n}" for n in range(10)])
    place.until(lambda: place.query("select count(*) from runs")[0][0] == 20)
    ((touched,),) = place.query(
        "select count(*) from procrastinate_jobs where status = 'todo' and xmax <> 0"
    )
    assert touched <= 10
