"""The jobs that a worker holds: those that run, and those claimed ahead that wait for a slot."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from procrastinate.errors import InvalidArguments, InvalidOption, TaskNotFound
from procrastinate.model.job import Job, Status
from procrastinate.model.options import WorkerOptions
from procrastinate.model.outcome import (
    INTERRUPTED,
    SUCCEEDED,
    AbortReason,
    Ending,
    ending_of,
    judged,
)
from procrastinate.model.prefetch import Prefetch
from procrastinate.model.task import TaskRegistry
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, HandedBack
from procrastinate.worker.context import RunningApp, RunningWorker, Surroundings
from procrastinate.worker.execution import Attempt, call_task
from procrastinate.worker.threads import TaskThreads
from procrastinate.worker.writer import Entry, Writer

logger = logging.getLogger("procrastinate.worker")

PATIENCE = 1.0  # seconds that a job claimed ahead may wait before it is handed back
STALE = 2.0  # seconds after which, if nobody looked meanwhile, it is not started any more
TURN = 0.002  # seconds for which jobs are started, until the loop gets round to others
MAX_CLAIM = 500  # jobs in one claim
MAX_UNWRITTEN = 2_000  # endings that may wait for the database before no more jobs are claimed


class Crew:
    """Runs claimed jobs in a number of slots and gives their endings to the writer."""

    def __init__(
        self,
        *,
        app: RunningApp,
        registry: TaskRegistry,
        writer: Writer,
        options: WorkerOptions,
        worker: RunningWorker,
        on_change: Callable[[], None],
        on_ended: Callable[[Job, BaseException | None], None] | None = None,
        threads: TaskThreads | None = None,
    ) -> None:
        self._registry = registry
        self._writer = writer
        self._concurrency = options.concurrency
        additional_context = MappingProxyType(dict(options.additional_context or {}))
        self._surroundings = Surroundings(app, worker, additional_context)
        self._layers_of = functools.cache(lambda definition: definition.layers(options.middleware))
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._on_change = on_change
        self._on_ended = on_ended
        self._threads = threads or TaskThreads(options.concurrency, worker.name)
        self._running: dict[int, Attempt] = {}
        self._waiting: deque[tuple[Job, float]] = deque()
        self._filling = False
        self._cautious = False
        self._enough = 0  # jobs waiting for a slot above which no more are wanted
        self.prefetch = Prefetch(options.concurrency)

    def __contains__(self, job_id: object) -> bool:
        return (
            job_id in self._running
            or any(job.id == job_id for job, _ in self._waiting)
            or job_id in self._writer
        )

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits for a slot."""
        return bool(self._running or self._waiting)

    @property
    def running(self) -> list[Attempt]:
        return list(self._running.values())

    def room(self) -> int:
        """How many jobs to claim now; 0 while it is better to wait."""
        if len(self._writer) > MAX_UNWRITTEN:
            return 0
        taken = len(self._running) + len(self._waiting)  # who waits starts soon, slots permitting
        free = max(0, self._concurrency - taken)
        waiting = max(0, taken - self._concurrency)
        ahead = 0 if self._cautious else self.prefetch.size
        self._enough = ahead // 2
        if waiting > self._enough or (free == 0 and ahead == 0):
            return 0
        return max(0, min(MAX_CLAIM, free + ahead - waiting))

    def take(self, claim: Claim) -> None:
        """Take over claimed jobs, to be started in order as there are slots.

        But a job that has lost a worker before never waits claimed: if a job that runs kills this
        worker too, only those that ran beside it shall be counted as suspects once more.
        """
        now = time.monotonic()
        self._cautious = bool(claim.suspects)
        # By id: what a claim's first scan got may be lost, and come again with its second.
        claimed = {job.id: job for job in claim.jobs}
        self._forget_waiting(claimed)
        for job in claimed.values():
            if self._has_already(job):
                continue
            broken = claim.unreadable.get(job.id)
            if broken is None:
                self._waiting.append((job, now))
            else:
                self._fail(job, InvalidArguments(f"json_loads failed: {broken!r}"))
        if self._cautious:
            self._fill_slots_now()
            self._give_back_suspects(claim.suspects)
        else:
            self._fill_slots_soon()

    def _forget_waiting(self, ids: Container[int]) -> None:
        if any(job.id in ids for job, _ in self._waiting):
            self._waiting = deque(each for each in self._waiting if each[0].id not in ids)

    def _has_already(self, job: Job) -> bool:
        """Continue a job under its new claim that still runs here, or whose ending is unwritten.

        Such a job was lost meanwhile and came back: this worker was taken for dead, the server
        forgot the claim in a crash, or handed back and never heard the answer. A second run here
        would be in the way of the first, and could not be told from it where the attempt's
        number is the same.

        Not so a job whose ending, still unconfirmed, sends it back for another attempt: then this
        is the next attempt, under a number of its own.
        """
        attempt = self._running.get(job.id)
        if attempt is not None:
            attempt.job = job
            return True
        ending = self._writer.unwritten(job.id)
        if ending is None or _is_retry(ending):
            return False
        self._writer.add(replace(ending, job=job))
        return True

    def give_back_waiting(self, *, older_than: float = 0.0) -> None:
        """Hand back jobs that have waited for a slot for so many seconds."""
        now = time.monotonic()
        while self._waiting and now - self._waiting[-1][1] >= older_than:
            job, _ = self._waiting.pop()
            self._writer.add(HandedBack(job, begun=False))

    def _give_back_suspects(self, suspects: Container[int]) -> None:
        for job, _ in self._waiting:
            if job.id in suspects:
                self._writer.add(HandedBack(job, begun=False))
        self._waiting = deque(each for each in self._waiting if each[0].id not in suspects)

    def give_back_impatient(self) -> None:
        """Hand back what was claimed ahead, if a long job makes it wait too long."""
        if self._waiting and time.monotonic() - self._waiting[0][1] >= PATIENCE:
            logger.debug("handing back %d jobs claimed ahead", len(self._waiting))
            self.prefetch.job_took(PATIENCE)
            self.give_back_waiting()

    def give_back_running(self) -> None:
        """Hand back jobs whose tasks do not end; what they still do is not written."""
        for attempt in self.running:
            attempt.abandon()
            del self._running[attempt.job.id]
            self._writer.add(HandedBack(attempt.job, begun=attempt.began > 0))
            logger.warning("handed back %s, which did not end", attempt.job.call_string)

    def abort(self, ids: Collection[int]) -> None:
        """Abort those of these jobs that are here, as a user asked; once each."""
        for job_id in ids:
            attempt = self._running.get(job_id)
            if attempt is not None and attempt.abort_reason is not AbortReason.USER_REQUEST:
                logger.info("aborting %s", attempt.job.call_string)
                attempt.ask_to_end(AbortReason.USER_REQUEST)
        self._give_back_asked(ids)

    def _give_back_asked(self, ids: Container[int]) -> None:
        """Hand back the jobs among these that wait: so the request ends them, see `hand_back`."""
        asked = [job for job, _ in self._waiting if job.id in ids]
        self._forget_waiting(ids)
        for job in asked:
            logger.info("aborting %s, which has not begun", job.call_string)
            self._writer.add(HandedBack(job, begun=False))

    def abort_all(self) -> None:
        """Abort everything that runs, because the worker has to end."""
        for attempt in self.running:
            attempt.ask_to_end(AbortReason.SHUTDOWN)

    def close(self) -> None:
        """Let threads end, and go of attempts that are still here: the loop may end next."""
        for attempt in self.running:
            attempt.abandon()
        self._threads.close()

    # One job after the other

    def _fill_slots(self) -> None:
        if self._filling:
            return  # later; or from `_start` of a task that ended before that returned
        self._filling = True
        now = began = time.monotonic()
        try:
            while self._waiting and len(self._running) < self._concurrency:
                if now - self._waiting[0][1] > STALE:
                    self.give_back_waiting()  # a suspended process may have lost them since
                elif now - began > TURN:
                    break
                else:
                    job, _ = self._waiting.popleft()
                    self._start(job)
                    now = time.monotonic()
        finally:
            self._filling = False
        if self._waiting and len(self._running) < self._concurrency:
            self._fill_slots_soon()

    def _fill_slots_soon(self) -> None:
        """At the loop's next turn: others come first, above all who claims the next jobs."""
        if not self._filling:
            self._filling = True
            self._loop.call_soon(self._fill_slots_now)

    def _fill_slots_now(self) -> None:
        self._filling = False
        self._fill_slots()

    def _start(self, job: Job) -> None:
        definition = self._registry.get(job.task_name)
        if definition is None:
            self._fail(job, TaskNotFound(f"no task named {job.task_name!r} is registered here"))
            return
        try:
            layers = self._layers_of(definition)
        except InvalidOption as exc:  # the task was registered after the worker had started
            self._fail(job, exc)
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
        self.prefetch.job_took(ended - attempt.began)
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
            logger.info("handed back %s, which was interrupted", job.call_string)
            return HandedBack(job, begun=True)
        _log_ending(job, ending, exception)
        if self._on_ended is not None:
            self._on_ended(job, exception)
        return Ended(job, ending, attempt.began, ended)

    def _leave_slot(self, attempt: Attempt, entry: Entry) -> None:
        del self._running[attempt.job.id]
        self._writer.add(entry)
        self._fill_slots()
        if len(self._waiting) <= self._enough:  # else whoever was told would find no room
            self._on_change()

    def _fail(self, job: Job, exception: Exception) -> None:
        now = time.monotonic()
        ending = ending_of(
            job,
            exception,
            strategy=None,
            abort_reason=None,
            now=datetime.now(UTC),
        )
        _log_ending(job, ending, exception)
        self._writer.add(Ended(job, ending, now, now))
        if self._on_ended is not None:
            self._on_ended(job, exception)
        self._on_change()


def _is_retry(entry: Entry) -> bool:
    return isinstance(entry, Ended) and entry.ending.status is Status.TODO


_SAID = {
    Status.TODO: (logging.WARNING, "failed, and will be tried again"),
    Status.FAILED: (logging.ERROR, "failed"),
    Status.ABORTED: (logging.INFO, "was aborted"),
}


def _log_ending(job: Job, ending: Ending, exception: BaseException) -> None:
    level, what = _SAID[ending.status]
    logger.log(
        level,
        "%s %s: %s: %s",
        job.call_string,
        what,
        type(exception).__name__,
        exception,
        exc_info=exception if level >= logging.ERROR else None,
        extra={
            "action": "job_ended",
            "job_id": job.id,
            "task_name": job.task_name,
            "status": ending.status.value,
        },
    )
    broken_strategy = (ending.error or {}).get("retry_error")
    if broken_strategy is not None:
        logger.error(
            "%s is not tried again, for its retry strategy failed: %s",
            job.call_string,
            broken_strategy["traceback"].rstrip(),
            extra={
                "action": "retry_strategy_failed",
                "job_id": job.id,
                "task_name": job.task_name,
            },
        )
