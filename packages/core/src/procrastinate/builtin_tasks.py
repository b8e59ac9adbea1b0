"""Tasks that every app has, without registering them.

They are not among the names that ``app.tasks`` lists, but are found there by name, deferred by
name, and run by every worker that serves their queue, ``builtin``. They are plain functions, which
middleware of both kinds can wrap.

What stands here under a task's name, such as `remove_old_jobs`, is for code: it is called inside of
a task of one's own, and defers through the process's app.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from procrastinate.errors import ConfigurationError, InvalidOption, JobAborted
from procrastinate.former import missing_from
from procrastinate.model.job import Status
from procrastinate.model.queue_names import SPARED
from procrastinate.model.task import TaskDefinition

if TYPE_CHECKING:
    from procrastinate.app.app import App
    from procrastinate.worker.context import JobContext

QUEUE = SPARED

#: The apps of this process, oldest first. Builtin tasks belong to none of them.
_APPS: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()


def know_app(app: App) -> None:
    """Let builtin tasks be deferred through an app, if it stays the only one."""
    _APPS[app] = None


def _only_app(task_name: str) -> App:
    """Return the one app of this process; of several on the same tasks, the first."""
    apps: list[App] = list(_APPS)
    if len({id(app._registry) for app in apps}) != 1:
        raise ConfigurationError(
            f"there are {len(apps)} apps in this process, so say through which one to defer:"
            f' app.configure_task("{task_name}").defer(...)'
        )
    return apps[0]


class BuiltinTask:
    """A builtin task in the hands of its users: a function to call, and the way to defer jobs.

    There is one: ``procrastinate.builtin_tasks.remove_old_jobs``. ``definition`` has its queue.
    """

    def __init__(self, func: Callable[..., None], name: str) -> None:
        functools.update_wrapper(self, func)
        self.definition = TaskDefinition(func=func, name=name, pass_context=True, queue=QUEUE)

    def __repr__(self) -> str:
        return f"<BuiltinTask {self.name}>"

    def __call__(self, context: JobContext, **kwargs: Any) -> Any:
        """Do the work now: in plain code at once; in a coroutine, ``await`` what this returns."""
        if _in_coroutine():
            import asyncio

            return asyncio.to_thread(self.definition.func, context, **kwargs)
        return self.definition.func(context, **kwargs)

    @property
    def name(self) -> str:
        """The name that its jobs carry."""
        return self.definition.name

    def configure(self, **options: Any) -> Any:
        """Return a deferrer through the process's only app; see `Task.configure`.

        Raises `ConfigurationError` if there is no app, or several that share no tasks.
        """
        return _only_app(self.name).configure_task(self.name, **options)

    def defer(self, **kwargs: Any) -> int:
        """Defer one job and return its id; see `configure`."""
        job_id: int = self.configure().defer(**kwargs)
        return job_id

    async def defer_async(self, **kwargs: Any) -> int:
        """Defer one job and return its id; see `configure`."""
        job_id: int = await self.configure().defer_async(**kwargs)
        return job_id


def _in_coroutine() -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _builtin(name: str) -> Callable[[Callable[..., None]], BuiltinTask]:
    return lambda func: BuiltinTask(func, name)


@_builtin("builtin:procrastinate.builtin_tasks.remove_old_jobs")
def remove_old_jobs(
    context: JobContext,
    *,
    max_hours: float | None = None,
    queue: str | None = None,
    remove_failed: bool | None = False,
    remove_cancelled: bool | None = False,
    remove_aborted: bool | None = False,
    remove_error: bool | None = False,
    policy: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
) -> None:
    """Delete jobs that ended long ago, of one queue or of all.

    Either ``max_hours`` (hours since the end) for jobs that succeeded and those that the flags add;
    or ``policy``, an age for each status: ``{"succeeded": {"days": 7}, "failed": {"days": 90}}``.
    Works in batches that hold up no other session, and ends between two of them when it is
    asked to abort. ``remove_error`` is what releases up to 2.x called ``remove_failed``.
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
            Status.FAILED: remove_failed or remove_error,
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


#: By all names that jobs have for them: those of before blueprints have no ``builtin:``.
BUILTIN_TASKS: Mapping[str, TaskDefinition] = {
    name: task.definition
    for task in [remove_old_jobs]
    for name in (task.name, task.name.removeprefix("builtin:"))
}

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
