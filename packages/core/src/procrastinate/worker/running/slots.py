"""The jobs that run: each attempt from taking a slot to freeing it.

Rules

1. `Slots.start` takes a slot, and `Slots._end` frees it, together with an ending for the writer.
   (`Slots.give_back` does both if the worker leaves before an attempt ends.)
2. Between the two, and in `_end` itself, anything may raise anything: the task, its middleware, the
   task factory, a retry strategy, a log handler, for lack of memory every line. So `start` and
   `_end` catch `BaseException`, and the ending of last resort is made of constants.
3. A task that is cancelled before its first step runs none of its code, and `_run` itself may fail
   for lack of memory. Such an attempt is ended by its task's callback. The callback is taken away
   after a proper end because it would cost a turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
import time
import weakref
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Container,
    Coroutine,
    Mapping,
    Sequence,
)
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from procrastinate.errors import TaskNotFound
from procrastinate.model import failure, printable
from procrastinate.model.ahead import Ahead, Outlook
from procrastinate.model.job import Error, Job
from procrastinate.model.outcome import (
    INTERRUPTED,
    SUCCEEDED,
    UNSTARTED,
    AbortReason,
    Requeued,
    judged,
)
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.progress import Report
from procrastinate.model.task import TaskRegistry
from procrastinate.model.trust import Trust
from procrastinate.model.unknown_tasks import UnknownTasks
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage.finish import Ended
from procrastinate.worker import job_log
from procrastinate.worker.clock import since_boot
from procrastinate.worker.context import (
    JobContext,
    RunningApp,
    RunningWorker,
    Surroundings,
    unheard,
)
from procrastinate.worker.log import logger
from procrastinate.worker.process import forks, inside
from procrastinate.worker.running import endings
from procrastinate.worker.running.attempt import Attempt, NotBegun
from procrastinate.worker.running.execution import call_task, function_of_thread, way_of
from procrastinate.worker.running.offers import Offers
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.writing.writer import Writer

UNKNOWN = Requeued(begun=False, unknown=True)
UNKNOWN_FOR_LATER = Requeued(when=timedelta(seconds=1), begun=False, unknown=True)
TRIES = 3  # to free a slot, if memory runs out


class Slots:
    """Runs claimed jobs and gives their endings to the writer.

    ``when_free`` is called after each attempt, ``when_threads_ended`` after all attempts of which
    the threads have told the loop at once.
    """

    def __init__(
        self,
        *,
        app: RunningApp,
        registry: TaskRegistry,
        writer: Writer,
        options: WorkerOptions,
        worker: RunningWorker,
        ahead: Ahead,
        read_errors: Callable[[int], list[Error]],
        is_doubtful: Callable[[], bool],
        trust: Trust,
        say: Callable[[JobContext, Report], None] = unheard,
        partitions: Partitions = ONE,
        unknown: UnknownTasks | None = None,
        on_ended: Callable[[Job, BaseException | None], None] | None = None,
        threads: TaskThreads | None = None,
        telling: Telling = UNSEEN,
    ) -> None:
        self._registry = registry
        self._unknown = unknown  # None: jobs of unknown tasks fail at once
        self._writer = writer
        self._partitions = partitions
        additional_context = MappingProxyType(dict(options.additional_context or {}))
        self._telling = telling
        self._surroundings = Surroundings(
            app,
            worker,
            additional_context,
            read_errors,
            is_doubtful,
            telling.around_attempt if telling.has_around else None,
            app.connector.json_dumps,
            say,
        )
        self._trust = trust
        self._way_of = functools.cache(lambda definition: way_of(definition, options.middleware))
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        forks.mark(self._context, self._loop)
        inside.mark(self._context, inside.Inside(worker.name, options.queues))
        self._generation = forks.Process.generation
        self._on_ended = on_ended
        self._threads = threads or TaskThreads(options.concurrency, worker.name)
        #: The attempts that run, by the ids of their jobs.
        self.by_id: dict[int, Attempt] = {}
        #: What threads may start by themselves: a thread passes the slot of its attempt on.
        self.offers = Offers(
            self._threads,
            running=self.by_id,
            prepare=self._prepare,
            context=self._context,
            on_ended=self._thread_ended,
            on_taken=self._tell_of_starts,
        )
        self._ahead = ahead
        self.when_free: Callable[[], None] = lambda: None  # until the backlog sets it
        self._threads.when_settled = lambda: self.when_threads_ended()
        self.when_threads_ended: Callable[[], None] = lambda: None  # until the backlog sets it

    def all(self) -> Mapping[int, Attempt]:
        """Return the attempts that run, by the ids of their jobs, with what threads have taken."""
        self.offers.count_in()
        return self.by_id

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.by_id

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def running(self) -> list[Attempt]:
        return list(self.by_id.values())

    def outlook(self, now: float, concurrency: int) -> Outlook:
        """Return how many slots are expected to be free when a claim comes back."""
        running = [(attempt.job.task_name, attempt.began or now) for attempt in self.by_id.values()]
        return self._ahead.outlook(running, now, idle=max(0, concurrency - len(running)))

    def goes_on(self, job: Job) -> bool:
        """Continue a job under its new claim if it still runs here; else return False."""
        attempt = self.by_id.get(job.id)
        if attempt is None:
            return False
        attempt.renew(job)
        return True

    # From taking a slot to freeing it

    def start(self, job: Job, refusal: BaseException | None = None) -> None:
        """Let a job take a slot; one with a ``refusal`` fails with that at once."""
        attempt = Attempt(job, self._surroundings)
        self.by_id[job.id] = attempt
        try:
            if refusal is None:
                self._begin(attempt)
            else:
                self._end(attempt, refusal)
        except BaseException as exc:
            self._end_surely(attempt, exc)

    def _begin(self, attempt: Attempt) -> None:
        definition = self._registry.get(attempt.job.task_name)
        if definition is None:
            raise self._no_task(attempt.job)
        way = self._way_of(definition)  # raises if registered after the start
        attempt.definition, attempt.layers = definition, way.layers
        if self._telling.sees_starts:
            self._telling.started([attempt.job])
        if self._loop.get_task_factory() is not None:
            self._begin_by_factory(attempt)
        elif way.in_thread:
            self._begin_in_thread(attempt)
        else:
            self._begin_in_plain_task(attempt, self._run(attempt))

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
        attempt.make_context()  # here, for the thread and the loop must not make one each
        self._threads.run(
            functools.partial(attempt.begin_in_thread, function_of_thread(attempt)),
            self._context.copy(),
            functools.partial(self._thread_ended, attempt),
            awaited=attempt.job.lock is not None,
        )

    def _thread_ended(self, attempt: Attempt, result: Any, exception: BaseException | None) -> None:
        """End an attempt whose thread has ended. Being told twice changes nothing."""
        self.offers.count_in()  # if this raises, the threads tell again
        try:
            if result is not None and attempt.task is None and inspect.isawaitable(result):
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
            attempt.task.remove_done_callback(self._task_ended)

    def _begin_in_plain_task(self, attempt: Attempt, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let a task run the attempt, in the context that the worker was started in.

        It takes its first step at once if Python can do so: the way to a later turn of the loop is
        a tenth of what a short job costs the worker.
        """
        name, context = attempt.job.task_name, self._context.copy()
        if sys.version_info >= (3, 12):
            task = asyncio.Task(
                coroutine, loop=self._loop, name=name, context=context, eager_start=True
            )
            self._watch(attempt, task)
        else:
            attempt.task = asyncio.Task(coroutine, loop=self._loop, name=name, context=context)
            attempt.task.add_done_callback(self._task_ended)

    def _begin_by_factory(self, attempt: Attempt) -> None:
        coroutine, name = self._run(attempt), attempt.job.task_name
        try:
            task = self._context.copy().run(self._loop.create_task, coroutine, name=name)
            if not isinstance(task, asyncio.Future):
                raise TypeError(f"the task factory returned a {type(task).__name__}, not a task")
        except BaseException as broken:
            coroutine.close()
            if attempt.over or attempt.began:
                raise
            job_log.no_task(attempt.job, broken)
            self._begin_in_plain_task(attempt, self._run(attempt))
            return
        if not (attempt.began or attempt.over):
            weakref.finalize(coroutine, self._coroutine_is_gone, attempt).atexit = False
        self._watch(attempt, task)

    def _watch(self, attempt: Attempt, task: asyncio.Future[None]) -> None:
        """Let the end of its task end the attempt, if nothing else has done so (rule 3)."""
        attempt.task = task
        if self.by_id.get(attempt.job_id) is attempt:
            task.add_done_callback(self._task_ended)

    async def _run(self, attempt: Attempt) -> None:
        if attempt.began or attempt.over:
            return  # a task factory kept the coroutine and failed all the same
        exception: BaseException | None = None
        try:
            attempt.began = time.monotonic()
            if attempt.context is not None and attempt.abort_reason is not None:
                exception = NotBegun()  # asked before this first step
            elif since_boot() >= self._trust.doubtful_from:
                exception = NotBegun()
            else:
                value = await call_task(attempt, self._threads)
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
            attempt.task.remove_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Future[None]) -> None:
        """End an attempt whose task has ended without doing so (rule 3)."""
        for attempt in self.running:
            if attempt.task is task:
                self._end_surely(attempt, endings.unseen_end(attempt, task))

    def _coroutine_is_gone(self, attempt: Attempt) -> None:
        """End an attempt whose coroutine was thrown away; this may be called in any thread."""
        if not attempt.over:
            self._loop.call_soon_threadsafe(self._end, attempt, endings.dropped())

    def _end_surely(self, attempt: Attempt, exception: BaseException | None) -> None:
        for _ in range(TRIES):
            if self.by_id.get(attempt.job_id) is not attempt:
                return
            try:
                attempt.over = False
                self._end(attempt, exception)
            except BaseException:
                continue

    def _end(self, attempt: Attempt, exception: BaseException | None) -> None:
        """Free the slot and hand an ending to the writer. Never raises (rules 1 and 2)."""
        if attempt.over:
            return
        attempt.over = True
        entry: Ended | None = None
        try:
            if exception is None:  # most often, so it takes the shortest way
                ended = attempt.ended or time.monotonic()
                success = attempt.success
                kept = success is not SUCCEEDED
                entry = Ended(attempt.job, success, attempt.began, ended, kept)
                self._ahead.ended.append((attempt.job.task_name, entry.ended - attempt.began))
                if self._on_ended is not None:
                    self._on_ended(attempt.shown_job(), None)
            else:
                exception = judged(exception, attempt.abort_reason, attempt.definition.timeout)
                entry = endings.after_exception(attempt, exception, self._partitions)
                self._tell(attempt, entry, exception)
        except BaseException as broken:
            job_log.undescribed(attempt.job, broken)
        try:
            self._free(attempt, entry or endings.last_resort(attempt, exception))
        except BaseException:
            self._free_again(attempt, exception)
        try:
            self.when_free()
        except BaseException:
            logger.exception("no job can be started at once")

    def _free(self, attempt: Attempt, entry: Ended) -> None:
        """Do both or, if this raises, so little that it can be done again."""
        if attempt.fence is not None:
            attempt.restore_job()
        if attempt.job.id in self.by_id:
            self._writer.add(entry)
            del self.by_id[attempt.job.id]

    def _free_again(self, attempt: Attempt, exception: BaseException | None) -> None:
        for _ in range(TRIES):
            try:
                self._free(attempt, endings.last_resort(attempt, exception))
                return
            except BaseException:
                continue

    def _tell(self, attempt: Attempt, entry: Ended, exception: BaseException) -> None:
        """Tell the log and others how an attempt ended that raised."""
        outcome = entry.outcome
        if type(exception) is NotBegun:
            return
        if outcome is INTERRUPTED:
            job_log.interrupted(entry.job)
            return
        self._telling.raised(entry, exception)
        if attempt.began:
            self._ahead.ended.append((attempt.job.task_name, entry.ended - attempt.began))
        if self._on_ended is not None:
            self._on_ended(entry.job, exception)

    # Ending early

    def abort(self, ids: Collection[int]) -> None:
        """Abort those of these jobs that run here, as a user asked; once each."""
        for job_id in ids:
            attempt = self.by_id.get(job_id)
            if attempt is not None and attempt.abort_reason is not AbortReason.USER_REQUEST:
                job_log.aborting(attempt.job)
                attempt.ask_to_end(AbortReason.USER_REQUEST)

    def lose(self, ids: Container[int]) -> None:
        """End those of these jobs that run here, because other workers have them now."""
        for attempt in self.running:
            if attempt.job_id in ids and attempt.abort_reason is not AbortReason.LEASE_LOST:
                job_log.lost(attempt.job)
                attempt.ask_to_end(AbortReason.LEASE_LOST)

    def abort_all(self) -> None:
        """Abort everything that runs, because the worker has to end."""
        for attempt in self.running:
            attempt.ask_to_end(AbortReason.SHUTDOWN)

    def give_back(self) -> None:
        """Hand back jobs whose tasks do not end; what they still do is not written."""
        for attempt in self.running:
            attempt.abandon()
            outcome = INTERRUPTED if attempt.began else UNSTARTED
            now, kept = time.monotonic(), bool(attempt.definition.result)
            self._free(attempt, Ended(attempt.job, outcome, attempt.began, now, kept))
            job_log.did_not_end(attempt.job)

    def close(self) -> None:
        """Let threads end, and go of attempts that are still here: the loop may end next."""
        self.offers.take_back()
        for attempt in self.running:
            attempt.abandon()
        self._threads.close()
