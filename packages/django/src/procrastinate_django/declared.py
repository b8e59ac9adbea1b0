"""Django's tasks as tasks of procrastinate.

Rules

1. A task of Django's is a task of procrastinate, named by its ``module_path``. It is registered
   when it is first needed, that is when it is enqueued or when a worker begins, so that `job` may
   still say more of it after ``@task`` has made it.
2. Its jobs have the arguments ``args`` and ``kwargs``, since Django's tasks take positional
   arguments too, and ``enqueued_at``, with ``backend`` and ``run_after`` if they are not what is
   usual. Results are built from these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procrastinate import App, Blueprint, InvalidOption, TaskNotFound
from procrastinate_django.known import LOCK, Declared, declare, every

_OPTIONS = ("retry", "lock", "queueing_lock", "partition_key", "timeout", "middleware")


def job(**options: Any) -> Callable[[Any], Any]:
    """Say more of one of Django's tasks than Django's ``@task`` can: it stands above that.

    The options are those of procrastinate's tasks: ``retry``, ``lock``, ``queueing_lock``,
    ``partition_key``, ``timeout`` (seconds, or a timedelta) and ``middleware``. Raises
    `InvalidOption` for others, and unless it stands directly above ``@task``.
    """
    for name in options:
        if name not in _OPTIONS:
            raise InvalidOption(f"@job takes {', '.join(_OPTIONS)}, and not {name!r}")

    def add(task: Any) -> Any:
        from procrastinate_django.djangos import Task  # not at the top: Django 5.2 may have none

        if not isinstance(task, Task):
            raise InvalidOption(f"@job stands above Django's @task, and not above {task!r}")
        known = declare(task)
        if known.is_registered:
            raise InvalidOption(f"@job comes too late for {task.module_path}, which was enqueued")
        define(Blueprint(), task, options)  # raises what it would raise in production
        known.options |= options
        return task

    return add


def register(app: App, known: Declared) -> None:
    """Register a task, unless it is registered. Raises what `Blueprint.task` raises."""
    with LOCK:
        if known.is_registered:
            return
        task = known.task
        if not _has(app, task.module_path):
            define(app, task, known.options)
        known.is_registered = True


def define(tasks: Blueprint, task: Any, options: dict[str, Any]) -> None:
    """Define a task of Django's as a task of procrastinate."""
    from procrastinate_django.running import runner

    tasks.task(
        name=task.module_path,
        pass_context=True,
        queue=task.queue_name,
        priority=task.priority,
        result="strict",
        **options,
    )(runner(task))


def _has(app: App, path: str) -> bool:
    try:
        app.tasks[path]
    except TaskNotFound:
        return False
    return True


def register_all(app: App) -> None:
    """Register all tasks that ``@task`` has made so far."""
    for known in every():
        register(app, known)
