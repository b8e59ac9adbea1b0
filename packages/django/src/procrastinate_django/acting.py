"""What users of the admin do to jobs: done one by one, told, and noted with the user's name.

It is noted twice: in Django's log of changes, which the history of a job shows, and in the log of
the program, as the dashboard does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry

from procrastinate import AlreadyEnqueued
from procrastinate.errors import ProcrastinateException
from procrastinate.model.text.printable import line

logger = logging.getLogger("procrastinate.admin")

#: Ids in one line of the program's log, at most.
NAMED = 20


def act(request: Any, jobs: Iterable[Any], done: str, change: Callable[[int], bool]) -> None:
    """Change each job, and say of how many that was ``done``, a participle."""
    asked = list(jobs)
    changed = [job for job in asked if _change(request, job.pk, change)]
    if changed:
        _note(request, changed, done)
    level = messages.SUCCESS if len(changed) == len(asked) else messages.WARNING
    messages.add_message(request, level, f"{len(changed)} of {len(asked)} jobs were {done}")


def _change(request: Any, job_id: int, change: Callable[[int], bool]) -> bool:
    try:
        return change(job_id)
    except AlreadyEnqueued:  # a twin waits: it will do the work
        return False
    except ProcrastinateException as exc:
        messages.error(request, f"job {job_id}: {exc}")
        return False


def _note(request: Any, jobs: list[Any], done: str) -> None:
    LogEntry.objects.log_actions(request.user.pk, jobs, CHANGE, done.capitalize())
    user = line(request.user.get_username(), 80)
    ids = ", ".join(str(job.pk) for job in jobs[:NAMED]) + (", ..." if len(jobs) > NAMED else "")
    logger.info(
        "%s from %s: %s %d jobs in the admin (ids: %s)",
        user,
        request.META.get("REMOTE_ADDR") or "?",
        done,
        len(jobs),
        ids,
        extra={"action": "admin_action", "user": user},
    )
