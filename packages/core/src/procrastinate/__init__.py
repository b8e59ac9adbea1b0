"""procrastinate: a job queue that lives in your PostgreSQL database.

Connectors are attributes of this module too (``procrastinate.AiopgConnector``): each is imported
from its own package when it is first asked for.
"""

from __future__ import annotations

import procrastinate_entry as _entry  # noqa: F401  before all others: rule 3 there

# isort: split
import sys
from typing import TYPE_CHECKING, Any

from procrastinate import connectors, errors
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
from procrastinate.model.failures import FailureGroup
from procrastinate.model.fleet import ScheduleInfo, WorkerInfo
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.minutes import Durations, Throughput
from procrastinate.model.outcome import AbortReason
from procrastinate.model.progress import Progress
from procrastinate.model.queue_info import QueueInfo
from procrastinate.model.queues import Pause
from procrastinate.model.retry import BaseRetryStrategy, RetryDecision, RetryStrategy
from procrastinate.model.search import Count, JobPage
from procrastinate.model.states import State
from procrastinate.model.why import WaitReason
from procrastinate.observing.observer import Observer
from procrastinate.time_limits import time_limit
from procrastinate.worker.context import (
    AsyncCallNext,
    AsyncMiddleware,
    CallNext,
    JobContext,
    Middleware,
    RunningWorker,
)

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Return an installed connector class by its name, or the version."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("procrastinate")
    if name == "Worker":  # not at the top: programs that only defer do without asyncio
        from procrastinate.worker.worker import Worker

        return Worker
    if name.startswith("_"):
        raise AttributeError(f"module 'procrastinate' has no attribute {name!r}")
    try:
        found = connectors.by_class_name(name)
    except errors.ConnectorNotInstalled as exc:
        if _asked_by_import():
            raise
        raise errors.ConnectorAttributeError(str(exc)) from exc
    if found is None:
        raise AttributeError(f"module 'procrastinate' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    own = {"Worker", *globals()} - {"TYPE_CHECKING", "Any", "sys"}
    return sorted({*own, *connectors.class_names()})


def _asked_by_import() -> bool:
    """Whether ``from procrastinate import name`` is asking, and not attribute access.

    Python looks a name up through importlib first, and would turn an AttributeError into an
    ImportError that says nothing of what to install.
    """
    caller = sys._getframe(2).f_globals.get("__name__")
    return caller in ("importlib._bootstrap", "_frozen_importlib")
