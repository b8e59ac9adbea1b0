"""What both in-memory connectors have: the store, and how a test looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from procrastinate.app.task import Task
from procrastinate.connector import Connector
from procrastinate.errors import ConfigurationError
from procrastinate.former import HasFormerNames
from procrastinate.model.job import Job
from procrastinate.storage.rows import job_from
from procrastinate.testing._engine.store import Store
from procrastinate.testing._engine.values import job_columns
from procrastinate.testing.clock import Clock


class JobList(HasFormerNames, list[Job]):
    """Jobs in order of id."""

    __slots__ = ()


class KeepsJobs(Connector):
    """A connector that keeps its jobs in memory."""

    contract: ClassVar[int] = 2
    runs_sql = False
    always_open = True

    def __init__(
        self,
        *,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        self._store = store or Store()

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a connector of its own for ``memory://``, the only URL that there is."""
        scheme, separator, rest = url.partition("://")
        if not scheme or not separator or rest.strip("/"):
            raise ConfigurationError("the in-memory connector's URL is memory://, and no more")
        return cls()

    @property
    def clock(self) -> Clock:
        """The clock that all times in the store come from; freeze it, or move it."""
        return self._store.clock

    @property
    def jobs(self) -> list[Job]:
        """All jobs that are committed, in order of id."""
        rows = self._store.job_rows()
        return JobList(job_from(job_columns(row), self.json_loads) for row in rows)

    def jobs_of(self, task: Task[..., ..., Any] | str) -> list[Job]:
        """The committed jobs of a task, given as such or by name, in order of id."""
        name = task if isinstance(task, str) else task.name
        return [job for job in self.jobs if job.task_name == name]

    def reset(self) -> None:
        """Forget all jobs, workers and locks; ids start at 1 and the clock shows real time again.

        Closing the connector does not do this.
        """
        self._store.reset()
