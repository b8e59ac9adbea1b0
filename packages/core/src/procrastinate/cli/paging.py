"""Reading jobs page by page, from either end, so that memory holds one page of millions.

The job manager reads upwards by id. Reading downwards looks at one window of ids after the other,
from the newest on. A window in which little was found makes the next one wider, and one in which
there is more than a page is narrowed: what is read stays in proportion to what is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from procrastinate.app.job_manager import JobManager
from procrastinate.model.job import Job

PAGE = 500  # jobs
LARGEST_ID = 2**63 - 1


def oldest_first(
    manager: JobManager, which: dict[str, Any], *, after_id: int, page: int
) -> Iterator[Job]:
    """Yield the jobs that match and have ids above ``after_id``, in order of id."""
    while True:
        found = manager.list_jobs(**which, after_id=after_id, limit=page)
        yield from found
        if len(found) < page:
            return
        after_id = found[-1].id


def newest_first(
    manager: JobManager, which: dict[str, Any], *, below_id: int | None, page: int
) -> Iterator[Job]:
    """Yield the jobs that match and have ids below ``below_id`` (None: all), the newest first."""
    below = _last_id(manager) + 1 if below_id is None else below_id
    width = page
    while below > 1:
        after_id = max(below - 1 - width, 0)
        found = manager.list_jobs(**which, after_id=after_id, limit=page)
        inside = [job for job in found if job.id < below]
        if len(inside) == page and width > page:
            width = max(width // 2, page)  # the newest of the window may be missing
            continue
        yield from reversed(inside)
        below = after_id + 1
        if len(inside) < page // 4:
            width *= 2


def _last_id(manager: JobManager) -> int:
    """Return the largest id, by halving: each look reads one row of the primary key."""
    low, high = 0, 1
    while above := manager.list_jobs(after_id=high, limit=1):
        low, high = above[0].id, min(above[0].id * 2, LARGEST_ID)
    while low < high:
        middle = (low + high) // 2
        if above := manager.list_jobs(after_id=middle, limit=1):
            low = above[0].id
        else:
            high = middle
    return low
