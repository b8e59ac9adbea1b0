"""What ends jobs by SQL as the statements of a worker do, and tells those who wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Query = Callable[..., list[tuple[Any, ...]]]
End = Callable[..., None]
Wake = Callable[..., None]

WAKE = """
select pg_notify('procrastinate_ends_' || waiter, string_agg(job_id::text, ' '))
from procrastinate_waits where job_id = any(%s) group by waiter
"""


@pytest.fixture
def wake(query: Query) -> Wake:
    """Tell those who wait for these jobs that they have ended."""

    def told(*ids: int) -> None:
        query(WAKE, list(ids))

    return told


@pytest.fixture
def end(query: Query, wake: Wake) -> End:
    """Set the status of jobs, and tell those who wait for them unless ``quietly``."""

    def ended(*ids: int, status: str = "succeeded", quietly: bool = False) -> None:
        query(
            "update procrastinate_jobs set status = %s, finished_at = now(), attempts = 1"
            " where id = any(%s)",
            *(status, list(ids)),
        )
        if not quietly:
            wake(*ids)

    return ended


@pytest.fixture
def waiting(query: Query) -> Callable[[], list[int]]:
    """Return the ids of the jobs for which a process has a row."""
    return lambda: [row[0] for row in query("select job_id from procrastinate_waits order by 1")]
