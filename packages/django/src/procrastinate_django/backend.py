"""``TASKS = {"default": {"BACKEND": "procrastinate_django.ProcrastinateBackend"}}``."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.utils import timezone

from procrastinate import App, InvalidArguments, JobNotFound
from procrastinate.errors import ConfigurationError
from procrastinate.model import checks
from procrastinate.model.text.printable import shown
from procrastinate_django.declared import register
from procrastinate_django.djangos import (
    DEFAULT_TASK_BACKEND_ALIAS,
    BaseTaskBackend,
    InvalidTask,
    Status,
    TaskResult,
    TaskResultDoesNotExist,
    normalize_json,
    task_enqueued,
)
from procrastinate_django.known import Declared, declare
from procrastinate_django.project import project_app
from procrastinate_django.results import is_of_backend, result_of

logger = logging.getLogger(__name__)

#: The largest id that a job can have.
_LARGEST = 2**63 - 1
_NUMBER = re.compile(r"[0-9]{1,19}")


class ProcrastinateBackend(BaseTaskBackend):
    """A backend for Django's tasks, on the app of this package.

    A task is enqueued in the transaction of the database that holds the jobs. Its result stays
    until the job is deleted. ``QUEUES`` names the queues that are allowed. It has no ``OPTIONS``.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Any) -> None:
        """Raise ``InvalidTask`` for a task that no worker could run."""
        super().validate_task(task)
        try:
            checks.check_name("name", task.module_path)
            checks.check_name("queue_name", task.queue_name)
        except ConfigurationError as exc:
            raise InvalidTask(str(exc)) from exc
        declare(task)

    def enqueue(self, task: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
        """Defer the job of a task, and return its result, which is ``READY``.

        Raises ``InvalidTask``, TypeError or ValueError for arguments that are not JSON, and
        `InvalidArguments` for those that do not fit the function or cannot be stored.
        """
        self.validate_task(task)
        arguments = _as_json(task, {"args": list(args), "kwargs": dict(kwargs)})
        _check_arguments(task, arguments["args"], arguments["kwargs"])
        app = project_app()
        known = declare(task)
        _warn_of_late(known, app)
        register(app, known)
        deferrer = app.configure_task(
            task.module_path,
            queue=task.queue_name,
            priority=task.priority,
            schedule_at=_aware(task.run_after),
        )
        now = timezone.now()
        job_id = deferrer.defer(**arguments, **self._besides(task, now))
        return self._enqueued(task, job_id, now, arguments)

    def _besides(self, task: Any, now: datetime) -> dict[str, str]:
        """Return what else a job keeps, of which its result is built."""
        kept = {"enqueued_at": now.isoformat()}
        if self.alias != DEFAULT_TASK_BACKEND_ALIAS:
            kept["backend"] = self.alias
        if task.run_after is not None:
            kept["run_after"] = task.run_after.isoformat()
        return kept

    def _enqueued(self, task: Any, job_id: int, now: datetime, arguments: Mapping[str, Any]) -> Any:
        result = TaskResult(
            task=task,
            id=str(job_id),
            status=Status.READY,
            enqueued_at=now,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            backend=self.alias,
            errors=[],
            worker_ids=[],
            **arguments,
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task by its id, the id of its job.

        Raises ``TaskResultDoesNotExist`` if there is no such job, if it is no task of this backend,
        and if its task cannot be imported any more.
        """
        number = str(result_id)
        if not (_NUMBER.fullmatch(number) and int(number) <= _LARGEST):
            raise TaskResultDoesNotExist(result_id)
        try:
            job = project_app().job_manager.get_job(int(number))
        except JobNotFound as exc:
            raise TaskResultDoesNotExist(result_id) from exc
        if not is_of_backend(job, self.alias):
            raise TaskResultDoesNotExist(
                f"the job {result_id} is no task of the backend {self.alias!r}"
            )
        return result_of(job, self.alias)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with the backend's entry in ``TASKS``."""
        if apps.is_installed("procrastinate_django"):
            return []  # `checks.check_tasks` looks, with every release of Django
        return [
            Error(
                f"the backend {self.alias!r} of TASKS needs 'procrastinate_django' in"
                " INSTALLED_APPS",
                id="procrastinate_django.E010",
            )
        ]


def _warn_of_late(known: Declared, app: App) -> None:
    """Say once of a task that workers may not find."""
    module = known.task.func.__module__
    if known.is_late and not known.is_registered and module not in app.import_paths:
        logger.warning(
            "the task %s was made when Django was set up already: if no module called 'tasks'"
            " imports %s, workers do not know it. Name it in PROCRASTINATE['IMPORT_PATHS']",
            known.task.module_path,
            module,
        )


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment)


def _as_json(task: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        fit = {name: normalize_json(value) for name, value in arguments.items()}
        _check_keys(task, fit)
    except RecursionError as exc:
        raise InvalidArguments(
            f"the arguments of the task {task.module_path} are too deep for JSON, or hold"
            " themselves"
        ) from exc
    return fit


def _check_keys(task: Any, value: Any) -> None:
    """Raise `InvalidArguments` for a dict whose keys JSON would make texts of.

    The function would get others than it was given, and of 1 and "1" only one.
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidArguments(
                    f"the arguments of the task {task.module_path} have a dict with the key"
                    f" {shown(key)}, of which JSON makes a text: give it texts for keys"
                )
        value = value.values()
    elif not isinstance(value, list):
        return
    for each in value:
        _check_keys(task, each)


def _check_arguments(task: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(task.func)
    try:
        signature.bind(*([None] if task.takes_context else []), *args, **kwargs)
    except TypeError as exc:
        raise InvalidArguments(
            f"the arguments do not fit the task {task.module_path}{signature}: {exc}"
        ) from exc
