"""Reading jobs page by page, so that memory holds one page of millions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from procrastinate.app.job_manager import JobManager
from procrastinate.model.job import Job

PAGE = 500  # jobs


def oldest_first(
    manager: JobManager, which: dict[str, Any], *, after_id: int | None, page: int = PAGE
) -> Iterator[Job]:
    """Yield the jobs that match and have ids above ``after_id`` (None: all), in order of id."""
    while found := manager.list_jobs(**which, after_id=after_id or 0, limit=page):
        yield from found
        if len(found) < page:
            return
        after_id = found[-1].id


def newest_first(
    manager: JobManager, which: dict[str, Any], *, before_id: int | None, page: int = PAGE
) -> Iterator[Job]:
    """Yield the jobs that match and have ids below ``before_id`` (None: all), the newest first."""
    while found := manager.list_jobs(**which, newest_first=True, before_id=before_id, limit=page):
        yield from found
        if len(found) < page:
            return
        before_id = found[-1].id
