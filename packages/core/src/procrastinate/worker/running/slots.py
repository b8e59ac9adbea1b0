"""The jobs that run: each attempt from taking a slot to freeing it.

Rules

1. `Slots.start` takes a slot, and `Slots._end` frees it, together with an ending for the writer.
   (`Slots.give_back` does both if the worker leaves before an attempt ends.)
2. Between the two, and in `_end` itself, anything may raise anything: the task, its middleware, the
   task factory, a retry strategy, a log handler, for lack of memory every line. So `start` and
   `_end` catch `BaseException`, and the ending of last resort is made of constants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import replace
from types import MappingProxyType

from procrastinate.errors import ResultNotKept
from procrastinate.model.claiming.ahead import Ahead, Outlook
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.endings.outcome import (
    INTERRUPTED,
    RESULT_REFUSED,
    SUCCEEDED,
    UNSTARTED,
    AbortReason,
    judged,
)
from procrastinate.model.job import Error, Job
from procrastinate.model.liveness.trust import Trust
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.progress import Report
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage.finish import Ended
from procrastinate.worker import job_log
from procrastinate.worker.context import (
    JobContext,
    RunningApp,
    RunningWorker,
    Surroundings,
    unheard,
)
from procrastinate.worker.log import logger
from procrastinate.worker.running import endings
from procrastinate.worker.running.attempt import Attempt, NotBegun
from procrastinate.worker.running.runner import Runner
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.writing.writer import Writer

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
        self._writer = writer
        self._partitions = partitions
        self._telling = telling
        self._surroundings = Surroundings(
            app,
            worker,
            MappingProxyType(dict(options.additional_context or {})),
            read_errors,
            is_doubtful,
            telling.around_attempt if telling.has_around else None,
            app.connector.json_dumps,
            say,
        )
        self._on_ended = on_ended
        self._threads = threads or TaskThreads(options.concurrency, worker.name)
        #: The attempts that run, by the ids of their jobs.
        self.by_id: dict[int, Attempt] = {}
        self._runner = Runner(
            running=self.by_id,
            registry=registry,
            options=options,
            worker=worker,
            surroundings=self._surroundings,
            threads=self._threads,
            trust=trust,
            unknown=unknown,
            telling=telling,
            on_end=self._end,
            on_broken_end=self._end_surely,
        )
        self.offers = self._runner.offers
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
                self._runner.begin(attempt)
            else:
                self._end(attempt, refusal)
        except BaseException as exc:
            self._end_surely(attempt, exc)

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

    def after_refused_result(self, entry: Ended) -> Ended | None:
        """Return the failed attempt that this is if its task insists on its result; else None.

        The database has refused the result of an attempt that returned. Never raises (rule 2).
        """
        definition = self._registry.get(entry.job.task_name)
        if definition is None or definition.result != "strict":
            return None
        attempt = Attempt(entry.job, self._surroundings, definition)
        exception = ResultNotKept(RESULT_REFUSED)
        try:
            outcome = endings.after_exception(attempt, exception, self._partitions).outcome
            failed = replace(entry, outcome=outcome)
            self._tell(attempt, failed, exception)
        except BaseException as broken:
            job_log.undescribed(entry.job, broken)
            failed = replace(entry, outcome=endings.last_resort(attempt, exception).outcome)
        attempt.restore_job()
        return failed

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
