"""Tasks that every app has, without registering them.

They are not among the names that ``app.tasks`` lists, but are found there by name, deferred by
name, and run by every worker that serves their queue, ``builtin``. They are plain functions, which
middleware of both kinds can wrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from procrastinate.errors import InvalidOption, JobAborted
from procrastinate.model.job import Status
from procrastinate.model.queue_names import SPARED
from procrastinate.model.task import TaskDefinition

if TYPE_CHECKING:
    from procrastinate.worker.context import JobContext

QUEUE = SPARED


def remove_old_jobs(
    context: JobContext,
    *,
    max_hours: float | None = None,
    queue: str | None = None,
    remove_failed: bool = False,
    remove_cancelled: bool = False,
    remove_aborted: bool = False,
    policy: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
) -> None:
    """Delete jobs that ended long ago, of one queue or of all.

    Either ``max_hours`` (hours since the end) for jobs that succeeded and those that the flags add;
    or ``policy``, an age for each status: ``{"succeeded": {"days": 7}, "failed": {"days": 90}}``.
    Works in batches that hold up no other session, and ends between two of them when it is
    asked to abort.
    ``timestamp`` is what a periodic task is given, and makes no difference. Raises `InvalidOption`.
    """
    if (max_hours is None) == (policy is None):
        raise InvalidOption(
            "remove_old_jobs needs either max_hours or a policy, not"
            f" max_hours={max_hours!r}, policy={policy!r}"
        )
    if policy is None:
        flags = {
            Status.SUCCEEDED: True,
            Status.FAILED: remove_failed,
            Status.CANCELLED: remove_cancelled,
            Status.ABORTED: remove_aborted,
        }
        policy = {status: {"hours": max_hours} for status, chosen in flags.items() if chosen}
    deleted = context.app.job_manager.apply_retention(
        policy, queue=queue, should_stop=context.should_abort
    )
    import logging  # not at the top: who only defers does without

    logger = logging.getLogger("procrastinate.builtin_tasks")
    logger.info("%d old jobs were removed", deleted, extra={"action": "remove_old_jobs"})
    if context.should_abort():
        raise JobAborted(f"{deleted} old jobs were removed before the abortion")


#: Under the names by which jobs of older releases call them.
BUILTIN_TASKS: Mapping[str, TaskDefinition] = {
    definition.name: definition
    for definition in [
        TaskDefinition(
            func=remove_old_jobs,
            name="builtin:procrastinate.builtin_tasks.remove_old_jobs",
            pass_context=True,
            queue=QUEUE,
        )
    ]
}
