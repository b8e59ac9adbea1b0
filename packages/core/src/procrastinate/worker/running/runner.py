"""How an attempt runs: as a task of the event loop, or in a thread.

Rules

1. The `Runner` tells how an attempt ended, by ``on_end``: an exception, or None for a success. It
   tells by ``on_broken_end`` if ``on_end`` has raised, or could not be called.
2. A task that is cancelled before its first step runs none of its code, and `Runner._run` itself
   may fail for lack of memory. Such an attempt is ended by its task's callback. The callback is
   taken away after a proper end because it would cost a turn of the loop.
3. Threads may begin attempts by themselves: those that need nothing of the loop
   (`procrastinate.worker.running.offers`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final

from procrastinate.errors import TaskNotFound
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.endings.outcome import SUCCEEDED, Requeued
from procrastinate.model.job import Job
from procrastinate.model.liveness.trust import Trust
from procrastinate.model.task import TaskDefinition, TaskRegistry
from procrastinate.model.text import failure, printable
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.worker import job_log
from procrastinate.worker.clock import since_boot
from procrastinate.worker.context import RunningWorker, Surroundings
from procrastinate.worker.process import forks, inside
from procrastinate.worker.running import endings
from procrastinate.worker.running.attempt import Attempt, NotBegun
from procrastinate.worker.running.execution import (
    Way,
    function_of_thread,
    way_of,
    without_thread,
)
from procrastinate.worker.running.offers import Offers
from procrastinate.worker.running.threads import NoThread, TaskThreads, is_awaitable
from procrastinate.worker.telling import Telling

UNKNOWN = Requeued(begun=False, unknown=True)
UNKNOWN_FOR_LATER = Requeued(when=timedelta(seconds=1), begun=False, unknown=True)

#: Whether a task takes its first step when it is made.
STARTS_AT_ONCE: Final = sys.version_info >= (3, 12)
#: `asyncio.Task`, of which type checkers for older Pythons do not know all arguments.
_Task: Any = asyncio.Task

#: Hears how an attempt ended: with an exception, or with None for a success.
OnEnd = Callable[[Attempt, BaseException | None], None]


class Runner:
    """Runs attempts that have a slot. ``running`` are these, by the ids of their jobs."""

    def __init__(
        self,
        *,
        running: dict[int, Attempt],
        registry: TaskRegistry,
        options: WorkerOptions,
        worker: RunningWorker,
        surroundings: Surroundings,
        threads: TaskThreads,
        trust: Trust,
        unknown: UnknownTasks | None,
        telling: Telling,
        on_end: OnEnd,
        on_broken_end: OnEnd,
    ) -> None:
        self._running = running
        self._registry = registry
        self._surroundings = surroundings
        self._threads = threads
        self._trust = trust
        self._unknown = unknown  # None: jobs of unknown tasks fail at once
        self._telling = telling
        self._end = on_end
        self._end_surely = on_broken_end
        self._middleware = options.middleware
        self._ways: dict[TaskDefinition, Way] = {}
        self._when_task_ended = self._task_ended  # made once, and not for each task
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        forks.mark(self._context, self._loop)
        around = inside.Inside(worker.name, options.queues, surroundings.app.connector)
        inside.mark(self._context, around)
        self._generation = forks.Process.generation
        #: What threads may start by themselves: a thread passes the slot of its attempt on.
        self.offers = Offers(
            threads,
            running=running,
            prepare=self._prepare,
            context=self._context,
            on_ended=self._thread_ended,
            on_taken=self._tell_of_starts,
        )

    def begin(self, attempt: Attempt) -> None:
        """Let an attempt begin. If this raises, the attempt has ended with that."""
        definition = self._registry.get(attempt.job.task_name)
        if definition is None:
            raise self._no_task(attempt.job)
        way = self._ways.get(definition) or self._way_of(definition)
        attempt.definition, attempt.layers = definition, way.layers
        if self._telling.sees_starts:
            self._telling.started([attempt.job])
        if self._loop.get_task_factory() is not None:
            self._begin_by_factory(attempt, way)
        elif way.in_thread:
            self._begin_in_thread(attempt)
        else:
            self._begin_in_plain_task(attempt, self._run(attempt, way))

    def _way_of(self, definition: TaskDefinition) -> Way:
        """Return how the task is run. Raises `InvalidOption` if its middleware does not fit."""
        way = self._ways.get(definition)
        if way is None:
            way = way_of(definition, self._middleware, self._surroundings.around)
            self._ways[definition] = way
        return way

    def _tell_of_starts(self, attempts: Sequence[Attempt]) -> None:
        if self._telling.sees_starts:
            self._telling.started([each.job for each in attempts])

    def _no_task(self, job: Job) -> Exception:
        if self._unknown is None:
            name = printable.line(repr(job.task_name))
            return TaskNotFound(f"no task named {name} is registered here")
        if self._unknown.is_news(job.task_name):
            job_log.unknown_task(job)
        left_out = self._unknown.met(job.task_name, time.monotonic())
        return NotBegun(UNKNOWN if left_out else UNKNOWN_FOR_LATER)

    def _prepare(self, job: Job) -> Attempt | None:
        """Return an attempt that a thread may begin by itself; None if the loop has to begin it."""
        definition = self._registry.get(job.task_name)
        if definition is None or self._loop.get_task_factory() is not None:
            return None
        way = self._way_of(definition)
        if not way.in_thread:
            return None
        attempt = Attempt(job, self._surroundings, definition, way.layers)
        attempt.make_context()
        return attempt

    def _begin_in_thread(self, attempt: Attempt) -> None:
        """Let a thread run the attempt, without a task on the loop: that costs half as much."""
        attempt.make_context()  # here: else the thread and the loop might make one each
        try:
            self._threads.run(
                functools.partial(attempt.begin_in_thread, function_of_thread(attempt)),
                self._context.copy(),
                functools.partial(self._thread_ended, attempt),
                awaited=attempt.job.lock is not None,
            )
        except NoThread as exc:
            raise without_thread(attempt, exc) from exc

    def _thread_ended(self, attempt: Attempt, result: Any, exception: BaseException | None) -> None:
        """End an attempt whose thread has ended. Being told twice changes nothing."""
        self.offers.count_in()  # if this raises, the threads tell again
        try:
            if result is not None and attempt.task is None and is_awaitable(result):
                attempt.on_loop = True  # a wrapper hides an async function
                self._begin_in_plain_task(attempt, self._await(attempt, result))
                return
            attempt.returned = exception is None
            self._end(attempt, exception)
        except BaseException as exc:
            self._end_surely(attempt, exc)

    async def _await(self, attempt: Attempt, result: Awaitable[object]) -> None:
        exception: BaseException | None = None
        try:
            value = await result
            if attempt.definition.result:
                attempt.keep(value)
            attempt.returned = True
        except BaseException as exc:
            exception = exc
        self._end(attempt, exception)
        if attempt.task is not None:
            attempt.task.remove_done_callback(self._when_task_ended)

    def _begin_in_plain_task(self, attempt: Attempt, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let a task run the attempt, in the context that the worker was started in.

        It takes its first step at once if Python can do so: the way to a later turn of the loop is
        a tenth of what a short job costs the worker.
        """
        loop, name, context = self._loop, attempt.job.task_name, self._context.copy()
        if STARTS_AT_ONCE:
            task = _Task(coroutine, loop=loop, name=name, context=context, eager_start=True)
            self._watch(attempt, task)
        else:
            attempt.task = task = _Task(coroutine, loop=loop, name=name, context=context)
            task.add_done_callback(self._when_task_ended)

    def _begin_by_factory(self, attempt: Attempt, way: Way) -> None:
        coroutine, name = self._run(attempt, way), attempt.job.task_name
        try:
            task = self._context.copy().run(self._loop.create_task, coroutine, name=name)
            if not isinstance(task, asyncio.Future):
                raise TypeError(f"the task factory returned a {type(task).__name__}, not a task")
        except BaseException as broken:
            coroutine.close()
            if attempt.over or attempt.began:
                raise
            job_log.no_task(attempt.job, broken)
            self._begin_in_plain_task(attempt, self._run(attempt, way))
            return
        if not (attempt.began or attempt.over):
            weakref.finalize(coroutine, self._coroutine_is_gone, attempt).atexit = False
        self._watch(attempt, task)

    def _watch(self, attempt: Attempt, task: asyncio.Future[None]) -> None:
        """Let the end of its task end the attempt, if nothing else has done so (rule 2)."""
        attempt.task = task
        if self._running.get(attempt.job_id) is attempt:
            task.add_done_callback(self._when_task_ended)

    async def _run(self, attempt: Attempt, way: Way) -> None:
        if attempt.began or attempt.over:
            return  # a task factory has failed, but kept the coroutine, and runs it now
        exception: BaseException | None = None
        try:
            attempt.began = time.monotonic()
            if attempt.context is not None and attempt.abort_reason is not None:
                exception = NotBegun()  # asked before this first step
            elif since_boot() >= self._trust.doubtful_from:
                exception = NotBegun()
            else:
                value = await way.call(attempt, self._threads)
                if attempt.definition.result and attempt.success is SUCCEEDED:
                    attempt.keep(value)
                attempt.returned = True
        except BaseException as exc:
            exception = exc
            if attempt.stopped is not None and failure.cause_of(exc) is attempt.stopped:
                exception = attempt.stopped
        if forks.Process.generation != self._generation:
            forks.leave(exception)
        self._end(attempt, exception)
        if attempt.task is not None:  # else this is the first step still
            attempt.task.remove_done_callback(self._when_task_ended)

    def _task_ended(self, task: asyncio.Future[None]) -> None:
        """End an attempt whose task has ended without doing so (rule 2)."""
        for attempt in list(self._running.values()):
            if attempt.task is task:
                self._end_surely(attempt, endings.unseen_end(attempt, task))

    def _coroutine_is_gone(self, attempt: Attempt) -> None:
        """End an attempt whose coroutine was thrown away; this may be called in any thread."""
        if not attempt.over:
            self._loop.call_soon_threadsafe(self._end, attempt, endings.dropped())
