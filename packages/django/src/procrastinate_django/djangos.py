"""Django's Tasks API: of Django itself from 6.0 on, of the package ``django-tasks`` on 5.2."""

from __future__ import annotations

from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured

if django.VERSION >= (6, 0):
    from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, Task, TaskContext, TaskResult
    from django.tasks import TaskResultStatus as Status
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskError
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    try:
        from django_tasks import DEFAULT_TASK_BACKEND_ALIAS, TaskContext, TaskResult
        from django_tasks import TaskResultStatus as Status
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import Task, TaskError
        from django_tasks.exceptions import InvalidTaskError as InvalidTask
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json
    except ImportError as exc:
        raise ImproperlyConfigured(
            "Django has tasks of its own from 6.0 on: run `pip install django-tasks` for this one"
        ) from exc

__all__ = [
    "DEFAULT_TASK_BACKEND_ALIAS",
    "BaseTaskBackend",
    "InvalidTask",
    "Status",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "changed",
    "normalize_json",
    "task_enqueued",
    "task_finished",
    "task_started",
]


def changed(result: Any, **values: Any) -> Any:
    """Change a result, which Django has frozen, and return it."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
    return result
