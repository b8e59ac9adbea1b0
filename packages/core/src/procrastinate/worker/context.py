"""What a running job knows about itself, and what its middleware is given."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from procrastinate import json_codec
from procrastinate.connector import Connector
from procrastinate.former import HasFormerNames
from procrastinate.model.endings.outcome import AbortReason, stronger
from procrastinate.model.job import Error, Job
from procrastinate.model.progress import Report, report
from procrastinate.model.task import TaskDefinition

if TYPE_CHECKING:
    from procrastinate.app.app import App
    from procrastinate.app.task import Task


class RunningApp(Protocol):
    """What a worker needs of the app that it runs for: an excerpt of `procrastinate.App`."""

    @property
    def connector(self) -> Connector: ...

    @property
    def job_manager(self) -> Any: ...

    @property
    def tasks(self) -> Mapping[str, Any]: ...

    def configure_task(self, *args: Any, **options: Any) -> Any: ...


class RunningWorker(Protocol):
    """What middleware may ask of the worker that runs it."""

    @property
    def name(self) -> str:
        """The worker's name, as in its logs."""

    def stop(self) -> None:
        """Let the worker end gracefully, as the first SIGTERM does. From any thread.

        Asking again, also after the end, changes nothing.
        """


#: Returns what observers want to enter around an attempt's code.
AroundAttempt: TypeAlias = Callable[[Job], AbstractContextManager[None]]


def _never() -> bool:
    return False


def unheard(context: JobContext, report: Report) -> None:
    """Take a report of progress that no worker is there to write."""


@dataclass(slots=True)
class JobContext(HasFormerNames):
    """What a task with ``pass_context=True`` gets as its first argument, and all middleware.

    ``app`` is the app that the worker runs for, and ``task`` the job's task: both can defer jobs.
    ``start_timestamp`` is the attempt's start in seconds since the epoch. ``should_abort`` may be
    asked from any thread, as often as one likes: it costs nothing. ``additional_context`` holds the
    worker's option: one read-only mapping for all of the worker's jobs, and in it the very objects
    that were given, not copies.
    """

    app: App
    worker_name: str
    job: Job
    task: Task[..., ..., Any]
    start_timestamp: float
    additional_context: Mapping[str, Any] = field(default_factory=dict)
    _abort_reason: AbortReason | None = field(default=None, repr=False)
    _is_doubtful: Callable[[], bool] = field(default=_never, repr=False)
    _say: Callable[[JobContext, Report], None] = field(default=unheard, repr=False)

    def progress(self, fraction: float, message: str | None = None, **data: Any) -> None:
        """Say how far the job is: it is shown as ``Job.progress`` while the job runs.

        ``fraction`` is from 0 to 1, ``message`` up to 1,000 characters; ``data`` is whatever else
        people want to see, up to 8 KiB of JSON. From any thread, as often as one likes: the last
        report is kept in memory, and the worker writes those of all its jobs once a second. The
        first one goes at once. After the attempt's end this does nothing.

        Raises `InvalidOption` for another fraction or message, and `InvalidArguments` for data that
        is not JSON or too large. A database that is away is never waited for.
        """
        dumps = self.app.connector.json_dumps
        said_at = time.monotonic()
        self._say(self, report(fraction, message, data, said_at=said_at, dumps=dumps))

    def should_abort(self) -> bool:
        """Whether the task should end soon: by raising `JobAborted`, or by returning."""
        return self._abort_reason is not None or self._is_doubtful()

    def abort_reason(self) -> AbortReason | None:
        """Why the task should end, or None while it should not.

        A stronger reason that comes later takes the place of a weaker one. Only
        ``LEASE_DOUBTFUL`` may pass again.
        """
        if self._abort_reason is None and self._is_doubtful():
            return AbortReason.LEASE_DOUBTFUL
        return self._abort_reason

    def _ask_to_end(self, reason: AbortReason) -> None:
        self._abort_reason = stronger(self._abort_reason, reason)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the contexts of all of a worker's jobs have in common."""

    app: RunningApp
    worker: RunningWorker
    additional_context: Mapping[str, Any]
    #: Returns the errors of a job by its id; from any thread.
    read_errors: Callable[[int], list[Error]]
    #: Whether other workers may have taken over what runs here; from any thread.
    is_doubtful: Callable[[], bool] = _never
    #: None if no observer enters anything around attempts.
    around: AroundAttempt | None = None
    #: Encodes what tasks return.
    dumps: Callable[[Any], str] = json_codec.dumps
    #: Takes an attempt's report of its progress; from any thread.
    say: Callable[[JobContext, Report], None] = unheard
    _tasks: dict[str, Task[..., ..., Any]] = field(default_factory=dict, repr=False)

    def _task(self, definition: TaskDefinition) -> Task[..., ..., Any]:
        task = self._tasks.get(definition.name)
        if task is None:
            task = self._tasks[definition.name] = self.app.tasks[definition.name]
        return task

    def context_of(self, job: Job, definition: TaskDefinition) -> JobContext:
        """Return the context of an attempt that starts now."""
        return JobContext(
            app=cast("App", self.app),
            worker_name=self.worker.name,
            job=job,
            task=self._task(definition),
            start_timestamp=time.time(),
            additional_context=self.additional_context,
            _is_doubtful=self.is_doubtful,
            _say=self.say,
        )


#: What plain middleware calls to go on: the task, or the middleware within. It gives its result.
CallNext: TypeAlias = Callable[[], Any]
#: The same for ``async def`` middleware: to be awaited.
AsyncCallNext: TypeAlias = Callable[[], Awaitable[Any]]
#: For plain functions: runs in the job's thread.
Middleware: TypeAlias = Callable[[CallNext, JobContext, RunningWorker], Any]
#: For ``async def`` tasks and, given to a worker, for all: runs on the event loop.
AsyncMiddleware: TypeAlias = Callable[[AsyncCallNext, JobContext, RunningWorker], Awaitable[Any]]
