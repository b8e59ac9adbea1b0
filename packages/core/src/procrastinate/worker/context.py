"""What a running job knows about itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from procrastinate.connector import Connector
from procrastinate.model.job import Job
from procrastinate.model.task import TaskDefinition


class RunningApp(Protocol):
    """What a task may ask of the app that runs it: an excerpt of `procrastinate.App`."""

    @property
    def connector(self) -> Connector: ...

    @property
    def job_manager(self) -> Any: ...

    @property
    def tasks(self) -> Mapping[str, Any]: ...

    def configure_task(self, *args: Any, **options: Any) -> Any: ...


class AbortReason(enum.StrEnum):
    """Why a running job should end."""

    USER_REQUEST = "user_request"
    SHUTDOWN = "shutdown"


@dataclass(slots=True)
class JobContext:
    """What a task with ``pass_context=True`` gets as its first argument.

    ``start_timestamp`` is the attempt's start in seconds since the epoch. ``should_abort`` may be
    asked from any thread, as often as one likes: it costs nothing.
    """

    app: RunningApp
    worker_name: str
    job: Job
    task: TaskDefinition
    start_timestamp: float
    additional_context: Mapping[str, Any] = field(default_factory=dict)
    _abort_reason: AbortReason | None = field(default=None, repr=False)

    def should_abort(self) -> bool:
        """Whether the task should end soon: by raising `JobAborted`, or by returning."""
        return self._abort_reason is not None

    def abort_reason(self) -> AbortReason | None:
        """Why the task should end, or None while it should not."""
        return self._abort_reason
