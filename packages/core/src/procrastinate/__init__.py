"""procrastinate: a job queue that lives in your PostgreSQL database.

Rules

1. What a program needs to define tasks and to defer jobs is imported at once. All else that this
   module exports is imported when it is first asked for: see `_LATER`.
2. Connectors are attributes of this module too (``procrastinate.AiopgConnector``): each is imported
   from its own package when it is first asked for. Type checkers know those of this project, and
   report others as unknown: import those from their packages.
"""

from __future__ import annotations

import procrastinate_entry as _entry  # noqa: F401  before all others: rule 3 there

# isort: split
import sys
from typing import TYPE_CHECKING, Any

from procrastinate import connectors, errors, later
from procrastinate.app.app import App
from procrastinate.app.blueprint import Blueprint
from procrastinate.app.statement import Statement
from procrastinate.errors import (
    AlreadyEnqueued,
    AppNotOpen,
    ConfigurationError,
    ConnectorException,
    ConnectorNotInstalled,
    InvalidArguments,
    InvalidOption,
    InvalidTimestamp,
    JobAborted,
    JobFailed,
    JobNotFound,
    JobUnsuccessful,
    JobWasAborted,
    JobWasCancelled,
    LoadFromPathError,
    ProcrastinateException,
    ResultLost,
    ResultNotKept,
    SyncConnectorConfigurationError,
    TaskAlreadyRegistered,
    TaskNotFound,
    TaskTimeout,
    UnboundTaskError,
    UniqueViolation,
    WorkerFailed,
)
from procrastinate.model.endings.retry import BaseRetryStrategy, RetryDecision, RetryStrategy
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.progress import Progress
from procrastinate.model.states import State
from procrastinate.observing.observer import Observer
from procrastinate.time_limits import time_limit

if TYPE_CHECKING:
    from procrastinate.model.endings.outcome import AbortReason as AbortReason
    from procrastinate.model.monitoring.failures import FailureGroup as FailureGroup
    from procrastinate.model.monitoring.fleet import ScheduleInfo as ScheduleInfo
    from procrastinate.model.monitoring.fleet import WorkerInfo as WorkerInfo
    from procrastinate.model.monitoring.minutes import Durations as Durations
    from procrastinate.model.monitoring.minutes import Throughput as Throughput
    from procrastinate.model.monitoring.queue_info import QueueInfo as QueueInfo
    from procrastinate.model.monitoring.search import Count as Count
    from procrastinate.model.monitoring.search import JobPage as JobPage
    from procrastinate.model.monitoring.why import WaitReason as WaitReason
    from procrastinate.model.queues import Pause as Pause
    from procrastinate.worker.context import AsyncCallNext as AsyncCallNext
    from procrastinate.worker.context import AsyncMiddleware as AsyncMiddleware
    from procrastinate.worker.context import CallNext as CallNext
    from procrastinate.worker.context import JobContext as JobContext
    from procrastinate.worker.context import Middleware as Middleware
    from procrastinate.worker.context import RunningWorker as RunningWorker
    from procrastinate.worker.worker import Worker as Worker
    from procrastinate_aiopg import AiopgConnector as AiopgConnector
    from procrastinate_asyncpg import AsyncpgConnector as AsyncpgConnector
    from procrastinate_django import DjangoConnector as DjangoConnector
    from procrastinate_psycopg import PsycopgConnector as PsycopgConnector
    from procrastinate_psycopg import SyncPsycopgConnector as SyncPsycopgConnector
    from procrastinate_psycopg2 import Psycopg2Connector as Psycopg2Connector
    from procrastinate_sqlalchemy import SQLAlchemyConnector as SQLAlchemyConnector
    from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector as SQLAlchemyPsycopg2Connector
    from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector as SQLAlchemyAsyncConnector

    __version__: str

__all__ = [
    "AbortReason",
    "AlreadyEnqueued",
    "App",
    "AppNotOpen",
    "AsyncCallNext",
    "AsyncMiddleware",
    "BaseRetryStrategy",
    "Blueprint",
    "CallNext",
    "ConfigurationError",
    "ConnectorException",
    "ConnectorNotInstalled",
    "Count",
    "Durations",
    "FailureGroup",
    "InvalidArguments",
    "InvalidOption",
    "InvalidTimestamp",
    "Job",
    "JobAborted",
    "JobContext",
    "JobFailed",
    "JobNotFound",
    "JobPage",
    "JobUnsuccessful",
    "JobWasAborted",
    "JobWasCancelled",
    "LoadFromPathError",
    "Middleware",
    "NewJob",
    "Observer",
    "Pause",
    "ProcrastinateException",
    "Progress",
    "QueueInfo",
    "ResultLost",
    "ResultNotKept",
    "RetryDecision",
    "RetryStrategy",
    "RunningWorker",
    "ScheduleInfo",
    "State",
    "Statement",
    "Status",
    "SyncConnectorConfigurationError",
    "TaskAlreadyRegistered",
    "TaskNotFound",
    "TaskTimeout",
    "Throughput",
    "UnboundTaskError",
    "UniqueViolation",
    "WaitReason",
    "Worker",
    "WorkerFailed",
    "WorkerInfo",
    "connectors",
    "errors",
    "time_limit",
]


#: Where to find the exports of rule 1 that are not imported yet.
_LATER = {
    "AbortReason": "model.endings.outcome",
    "AsyncCallNext": "worker.context",
    "AsyncMiddleware": "worker.context",
    "CallNext": "worker.context",
    "Count": "model.monitoring.search",
    "Durations": "model.monitoring.minutes",
    "FailureGroup": "model.monitoring.failures",
    "JobContext": "worker.context",
    "JobPage": "model.monitoring.search",
    "Middleware": "worker.context",
    "Pause": "model.queues",
    "QueueInfo": "model.monitoring.queue_info",
    "RunningWorker": "worker.context",
    "ScheduleInfo": "model.monitoring.fleet",
    "Throughput": "model.monitoring.minutes",
    "WaitReason": "model.monitoring.why",
    "Worker": "worker.worker",
    "WorkerInfo": "model.monitoring.fleet",
}


_imported = later.imported(__name__, _LATER)


def _attribute(name: str) -> Any:
    """Return an export of this module, the version, or an installed connector class by its name."""
    if name in _LATER:
        return _imported(name)
    if name == "__version__":
        from importlib import metadata

        return metadata.version("procrastinate")
    if name.startswith("_"):
        raise AttributeError(f"module 'procrastinate' has no attribute {name!r}")
    try:
        found = connectors.by_class_name(name)
    except errors.ConnectorNotInstalled as exc:
        if _asked_by_import():
            raise
        raise errors.ConnectorAttributeError(str(exc)) from exc
    if found is None:
        from procrastinate.former import former_attribute

        return former_attribute(name, asked_by_import=_asked_by_import())
    return found


if not TYPE_CHECKING:  # who could call it would take every name for a known one
    __getattr__ = _attribute


def __dir__() -> list[str]:
    own = {*_LATER, *globals()} - {"TYPE_CHECKING", "Any", "later", "sys"}
    return sorted({*own, *connectors.class_names()})


def _asked_by_import() -> bool:
    """Whether ``from procrastinate import name`` is asking, and not attribute access.

    Python looks a name up through importlib first, and would turn an AttributeError into an
    ImportError that says nothing of what to install.
    """
    caller = sys._getframe(2).f_globals.get("__name__")
    return caller in ("importlib._bootstrap", "_frozen_importlib")
