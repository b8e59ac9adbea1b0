"""The jobs that run: each attempt from taking a slot to freeing it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import time
from collections.abc import Callable, Collection, Coroutine
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from procrastinate.errors import InvalidOption, TaskNotFound
from procrastinate.model.job import Job
from procrastinate.model.options import WorkerOptions
from procrastinate.model.outcome import INTERRUPTED, SUCCEEDED, AbortReason, ending_of, judged
from procrastinate.model.prefetch import Prefetch
from procrastinate.model.task import TaskRegistry
from procrastinate.storage.finish import Ended, HandedBack
from procrastinate.worker import job_log
from procrastinate.worker.context import RunningApp, RunningWorker, Surroundings
from procrastinate.worker.execution import Attempt, call_task
from procrastinate.worker.threads import TaskThreads
from procrastinate.worker.writer import Entry, Writer


class Slots:
    """Runs claimed jobs and gives their endings to the writer.

    ``when_free`` is called after each attempt, ``on_change`` if a job ended without a slot.
    """

    def __init__(
        self,
        *,
        app: RunningApp,
        registry: TaskRegistry,
        writer: Writer,
        options: WorkerOptions,
        worker: RunningWorker,
        prefetch: Prefetch,
        on_change: Callable[[], None],
        on_ended: Callable[[Job, BaseException | None], None] | None = None,
        threads: TaskThreads | None = None,
    ) -> None:
        self._registry = registry
        self._writer = writer
        additional_context = MappingProxyType(dict(options.additional_context or {}))
        self._surroundings = Surroundings(app, worker, additional_context)
        self._layers_of = functools.cache(lambda definition: definition.layers(options.middleware))
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._on_change = on_change
        self._on_ended = on_ended
        self._threads = threads or TaskThreads(options.concurrency, worker.name)
        self._running: dict[int, Attempt] = {}
        self._prefetch = prefetch
        self.when_free: Callable[[], None] = on_change

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._running

    def __len__(self) -> int:
        return len(self._running)

    @property
    def running(self) -> list[Attempt]:
        return list(self._running.values())

    def goes_on(self, job: Job) -> bool:
        """Continue a job under its new claim if it still runs here; else return False."""
        attempt = self._running.get(job.id)
        if attempt is None:
            return False
        attempt.job = job
        return True

    def start(self, job: Job) -> None:
        """Let a job take a slot."""
        definition = self._registry.get(job.task_name)
        if definition is None:
            self.fail(job, TaskNotFound(f"no task named {job.task_name!r} is registered here"))
            return
        try:
            layers = self._layers_of(definition)
        except InvalidOption as exc:  # the task was registered after the worker had started
            self.fail(job, exc)
            return
        attempt = Attempt(job, definition, layers, self._surroundings)
        self._running[job.id] = attempt
        attempt.task = self._new_task(self._run(attempt), job.task_name)

    def _new_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task in the context that the worker was started in, not in that of the job before.

        It takes its first step at once where Python can do so: the way to a later turn of the loop
        is a tenth of what a short job costs the worker.
        """
        context = self._context.copy()
        if self._loop.get_task_factory() is not None:
            return context.run(self._loop.create_task, coroutine, name=name)
        if sys.version_info >= (3, 12):
            return asyncio.Task(
                coroutine, loop=self._loop, name=name, context=context, eager_start=True
            )
        return asyncio.Task(coroutine, loop=self._loop, name=name, context=context)

    async def _run(self, attempt: Attempt) -> None:
        if attempt.handed_back:
            return
        if attempt.abort_reason is not None:  # asked before this first turn
            self._leave_slot(attempt, HandedBack(attempt.job, begun=False))
            return
        exception: BaseException | None = None
        attempt.began = time.monotonic()
        try:
            await call_task(attempt, self._threads)
        except BaseException as exc:
            exception = exc
        if not attempt.handed_back:
            self._ended(attempt, exception)

    def _ended(self, attempt: Attempt, exception: BaseException | None) -> None:
        ended = time.monotonic()
        self._prefetch.job_took(ended - attempt.began)
        if exception is None:
            if self._on_ended is not None:
                self._on_ended(attempt.job, None)
            self._leave_slot(attempt, Ended(attempt.job, SUCCEEDED, attempt.began, ended))
        else:
            self._leave_slot(attempt, self._after_exception(attempt, exception, ended))

    def _after_exception(self, attempt: Attempt, exception: BaseException, ended: float) -> Entry:
        job, reason, definition = attempt.job, attempt.abort_reason, attempt.definition
        exception = judged(exception, reason, definition.timeout)
        ending = ending_of(
            job,
            exception,
            strategy=definition.retry,
            abort_reason=reason,
            now=datetime.now(UTC),
        )
        if ending is INTERRUPTED:
            job_log.interrupted(job)
            return HandedBack(job, begun=True)
        job_log.ended(job, ending, exception)
        if self._on_ended is not None:
            self._on_ended(job, exception)
        return Ended(job, ending, attempt.began, ended)

    def _leave_slot(self, attempt: Attempt, entry: Entry) -> None:
        del self._running[attempt.job.id]
        self._writer.add(entry)
        self.when_free()

    def fail(self, job: Job, exception: Exception) -> None:
        """End a job that cannot even begin."""
        now = time.monotonic()
        ending = ending_of(
            job,
            exception,
            strategy=None,
            abort_reason=None,
            now=datetime.now(UTC),
        )
        job_log.ended(job, ending, exception)
        self._writer.add(Ended(job, ending, now, now))
        if self._on_ended is not None:
            self._on_ended(job, exception)
        self._on_change()

    # Ending early

    def abort(self, ids: Collection[int]) -> None:
        """Abort those of these jobs that run here, as a user asked; once each."""
        for job_id in ids:
            attempt = self._running.get(job_id)
            if attempt is not None and attempt.abort_reason is not AbortReason.USER_REQUEST:
                job_log.aborting(attempt.job)
                attempt.ask_to_end(AbortReason.USER_REQUEST)

    def abort_all(self) -> None:
        """Abort everything that runs, because the worker has to end."""
        for attempt in self.running:
            attempt.ask_to_end(AbortReason.SHUTDOWN)

    def give_back(self) -> None:
        """Hand back jobs whose tasks do not end; what they still do is not written."""
        for attempt in self.running:
            attempt.abandon()
            del self._running[attempt.job.id]
            self._writer.add(HandedBack(attempt.job, begun=attempt.began > 0))
            job_log.did_not_end(attempt.job)

    def close(self) -> None:
        """Let threads end, and go of attempts that are still here: the loop may end next."""
        for attempt in self.running:
            attempt.abandon()
        self._threads.close()
