"""Jobs on offer: the first ones that wait for a slot, which threads take by themselves.

Rules

1. A thread whose attempt has ended goes on with the first job on offer, without waiting for the
   loop (`procrastinate.worker.running.threads`, rule 4). That job takes the slot of the attempt
   before it.
2. The loop learns of this afterwards: it counts in what threads have taken. It does so before it
   hears of an end that a thread reports, so that no slot is counted as free meanwhile.
3. What decides about jobs that wait first counts in, or takes back all offers. After taking back, a
   job that still waits has not begun.
4. Only jobs that need a thread and nothing of the loop are on offer.
5. Shortly before it begins, the thread asks whether the job may start: see the rules about trust
   of `procrastinate.worker.backlog.backlog`.
"""

from __future__ import annotations

import contextvars
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from procrastinate.model.job import Job
from procrastinate.worker.claimed import Claimed
from procrastinate.worker.running.attempt import Attempt
from procrastinate.worker.running.execution import function_of_thread
from procrastinate.worker.running.threads import TaskThreads


class Offers:
    """Offers waiting jobs to the threads. All methods are for the loop's thread only.

    ``running`` are the attempts that have a slot, by the ids of their jobs. ``prepare`` returns an
    attempt at a job, or None if that needs the loop; ``on_ended`` hears of each attempt's end, and
    ``on_taken`` of those that threads have taken. It must not raise.
    """

    def __init__(
        self,
        threads: TaskThreads,
        *,
        running: dict[int, Attempt],
        prepare: Callable[[Job], Attempt | None],
        context: contextvars.Context,
        on_ended: Callable[[Attempt, Any, BaseException | None], None],
        on_taken: Callable[[Sequence[Attempt]], None] = lambda _: None,
    ) -> None:
        self._threads = threads
        self._running = running
        self._prepare = prepare
        self._context = context
        self._on_ended = on_ended
        self._on_taken = on_taken
        self.waiting: deque[Claimed] = deque()  # the backlog's: its first jobs are on offer
        self._attempts: deque[Attempt] = deque()  # at these jobs
        self.count = 0  # how many they are; threads may have taken the first ones

    def __len__(self) -> int:
        return self.count

    def top_up(self, most: int, may_start: Callable[[float], bool]) -> None:
        """Offer the first waiting jobs: at most ``most``, up to the first that cannot be offered.

        ``may_start`` is asked in a thread, by the time at which the job was asked for.
        """
        self.count_in()
        while self.count < min(len(self.waiting), most):
            job, asked = self.waiting[self.count]
            if not self._offer(job, functools.partial(may_start, asked.sent_at)):
                return
            self.count += 1

    def _offer(self, job: Job, may_start: Callable[[], bool]) -> bool:
        try:
            attempt = self._prepare(job)
            if attempt is None:
                return False
            self._attempts.append(attempt)
        except BaseException:
            return False  # the start of the job will meet the same error, and say so
        try:
            self._threads.offer(
                functools.partial(attempt.begin_in_thread, function_of_thread(attempt), may_start),
                self._context.copy(),
                functools.partial(self._on_ended, attempt),
                awaited=job.lock is not None,
            )
        except BaseException:
            self._attempts.pop()
            return False
        return True

    def start_first(self) -> None:
        """Let the first job on offer take a free slot, if threads have not taken all of them."""
        try:
            self._threads.start_offer()
        except BaseException:
            self.take_back()  # so that its start fails as that of any other job
        else:
            self.count_in()

    def count_in(self) -> None:
        """Count the attempts that threads have taken as running: their jobs wait no more."""
        if not self.count:
            return
        left = self._threads.offers_left
        taken: list[Attempt] = []
        while len(self._attempts) > left:
            attempt = self._attempts[0]
            self._running[attempt.job_id] = attempt
            taken.append(self._attempts.popleft())
        while self.count > left:
            self.waiting.popleft()
            self.count -= 1
        if taken:
            self._on_taken(taken)

    def take_back(self) -> None:
        """Take back all offers, and count in what threads have taken."""
        while self._threads.take_back_offer():
            self._attempts.pop()
            self.count -= 1
        self.count_in()
