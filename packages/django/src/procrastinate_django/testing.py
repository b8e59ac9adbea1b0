"""For the tests of a Django project: jobs in memory, run when the test says so or at once.

The functions give blocks, which also stand as decorators above a test::

    with jobs_in_memory() as jobs:
        client.post("/orders")
        assert [job.task_name for job in jobs.jobs] == ["orders.tasks.confirm"]
        run_jobs()

In memory, jobs are no part of the database's transactions. Plain tasks run in the test's thread, so
they see what a ``TestCase`` has written. Coroutines reach the database in another thread, on
another connection: test these with a ``TransactionTestCase``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connections

from procrastinate import Job, testing
from procrastinate.connector import AsyncSessionExecutor, SessionExecutor
from procrastinate.testing import InMemoryConnector
from procrastinate.testing.connector import InMemorySyncConnector
from procrastinate_django.conf import read_conf
from procrastinate_django.project import project_app

#: What `delete_jobs` empties: not the records of migrations, nor what the database is set to.
_EMPTIED = (*("jobs", "locks", "workers", "periodic", "waits", "progress", "queues", "minutes"),)


@contextmanager
def jobs_in_memory() -> Iterator[InMemoryConnector]:
    """A block in which the project's app keeps its jobs in memory; gives the connector."""
    connector = InMemoryConnector()
    with project_app().replace_connector(connector):
        yield connector


@contextmanager
def jobs_at_once() -> Iterator[InMemoryConnector]:
    """A block in which each job runs as soon as it is deferred, if it is due.

    ``defer`` raises what the task raises. Jobs are kept in memory; gives the connector.
    """
    connector = _AtOnce()
    with project_app().replace_connector(connector):
        yield connector


def run_jobs(**options: Any) -> list[Job]:
    """Run the jobs in memory that are due; see `procrastinate.testing.run_jobs`."""
    return testing.run_jobs(project_app(), **options)


def delete_jobs() -> None:
    """Empty the tables of the queue, which a ``TransactionTestCase`` leaves as they are.

    Migrations stay recorded. No worker may live.
    """
    conf = read_conf()
    wrapper = connections[conf.database]
    prefix = "" if conf.schema is None else f"{wrapper.ops.quote_name(conf.schema)}."
    names = ", ".join(f"{prefix}procrastinate_{name}" for name in _EMPTIED)
    with wrapper.cursor() as cursor:
        cursor.execute(f"truncate {names}")


class _AtOnce(InMemoryConnector):
    """Runs what is due after each call that is no worker's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_running = False

    def sync_connector(self, *, connect_timeout: float | None = None) -> InMemorySyncConnector:
        return _AtOnceSync(self)

    @asynccontextmanager
    async def session_async(self, **options: Any) -> AsyncIterator[AsyncSessionExecutor]:
        async with super().session_async(**options) as session:
            yield session
        if self.begins():
            try:
                await testing.run_jobs_async(project_app())
            finally:
                self._is_running = False

    def run(self) -> None:
        """Run what is due, unless that is being done."""
        if self.begins():
            try:
                testing.run_jobs(project_app())
            finally:
                self._is_running = False

    def begins(self) -> bool:
        """Return whether there is something to run now that no worker runs."""
        if self._is_running or not any(map(_is_due, self.jobs)):
            return False
        self._is_running = True
        return True


class _AtOnceSync(InMemorySyncConnector):
    def __init__(self, of: _AtOnce) -> None:
        super().__init__(
            json_dumps=of.json_dumps, json_loads=of.json_loads, schema=of.schema, store=of._store
        )
        self._of = of

    @contextmanager
    def session(self, **options: Any) -> Iterator[SessionExecutor]:
        with super().session(**options) as session:
            yield session
        self._of.run()


def _is_due(job: Job) -> bool:
    if job.status != "todo":
        return False
    return job.scheduled_at is None or job.scheduled_at <= datetime.now(UTC)
