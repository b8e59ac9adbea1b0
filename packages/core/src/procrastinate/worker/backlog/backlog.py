"""Claimed jobs that wait for a slot: how many to hold, which to start next, what to hand back.

Rules

1. Jobs start in the order in which they were claimed, as slots become free.
2. Some jobs are claimed for slots that will soon be free (`procrastinate.model.claiming.ahead`),
   but not after a claim that came short: then there is no backlog, and another worker may be idle.
   (If jobs are short, a worker without a job asks for one more all the same. Else it would have to
   look again after each job that comes alone.)
3. A job that has lost a worker before does not wait claimed for a slot, may not run beside some
   others, and may have to wait for writes (`procrastinate.model.liveness.blame`).
4. Jobs that wait too long are handed back, because another worker may have a free slot
   (`procrastinate.model.claiming.holding`).
5. After that nothing is claimed ahead until an attempt ends, because it would be the same jobs. And
   nothing is claimed at all before they are back, because they come first: for at most
   `GOING_BACK_MAY_TAKE`, or two claims where the database is slow. They go back in order, so that
   the first of them are seen first.
6. A job starts only if the worker's signs of life were trusted without a break since its claim was
   sent. Else other workers may have taken it, and the claim counts as a lost answer.
7. The first jobs that wait are on offer: a thread that ends a job goes on with the next one by
   itself, and asks for trust itself. Decisions about jobs that wait allow for that
   (`procrastinate.worker.running.offers`, rule 3).
8. No job of a paused queue waits here: those that were claimed go back once the pause is known.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import replace
from itertools import repeat

from procrastinate.model.claiming import holding
from procrastinate.model.claiming.ahead import Ahead, Outlook
from procrastinate.model.job import Job
from procrastinate.model.liveness.trust import Trust
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import handed_back
from procrastinate.worker import job_log
from procrastinate.worker.backlog.intake import Intake
from procrastinate.worker.backlog.suspects import Suspects
from procrastinate.worker.claimed import Asked, Claimed
from procrastinate.worker.clock import since_boot
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.running.slots import Slots
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.writing.writer import Writer

TURN = 0.002  # seconds for which jobs are started, until the loop gets round to others
MAX_CLAIM = 500  # jobs in one claim
GOING_BACK_MAY_TAKE = 0.1  # seconds: a user's open transaction may be in the way of the write
LONGEST_WAY_BACK = 1.0  # seconds, however slow the database is
MAX_UNWRITTEN = 2_000  # endings that may wait for the database before no more jobs are claimed


class Backlog:
    """Holds claimed jobs and starts them in the slots."""

    def __init__(
        self,
        slots: Slots,
        writer: Writer,
        *,
        concurrency: int,
        ahead: Ahead,
        trust: Trust,
        on_change: Callable[[], None],
        on_look: Callable[[], None],
        paused: Paused | None = None,
        telling: Telling = UNSEEN,
    ) -> None:
        self._slots = slots
        self._writer = writer
        self._concurrency = concurrency
        self._ahead = ahead
        self._running = slots.by_id
        self._trust = trust
        self._trusted_for = math.inf  # jobs asked for from this moment on may start ...
        self._trusted_until = -math.inf  # ... until then at the least
        self._on_change = on_change
        self._on_look = on_look
        self._paused = Paused() if paused is None else paused
        self._intake = Intake(slots, writer, self._paused)
        self._telling = telling
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Claimed] = deque()
        self._offers = slots.offers
        self._offers.waiting = self._waiting
        self._suspects = Suspects(writer, on_change=on_change)
        self._filling = False  # whether jobs are being started, or will be at the loop's next turn
        self._cautious = False  # whether the last claim had jobs that have lost a worker (rule 3)
        self._enough = 0  # jobs waiting for a slot above which no more are wanted
        self._ended = 0  # attempts since ...
        self._busy_since: float | None = None  # ... this moment, if there were jobs ever since
        self._short = False  # whether the last claim left no ready job behind
        self._handed_back = False  # since the last attempt ended
        self._last_back: int | None = None  # the job that was handed back last
        self._back_until = 0.0  # the time until which claims wait for the write of that
        self._decision_due: asyncio.TimerHandle | None = None
        self.wants_look = False  # whether to ask if any job is ready, and tell `looked`
        self.room_from = math.inf  # while there is no room: when to ask again
        slots.when_free = self._slot_freed
        slots.when_threads_ended = self._offer

    def __contains__(self, job_id: object) -> bool:
        """Whether a job is here: it runs, it waits, or its ending is not written yet."""
        return (
            job_id in self._running
            or any(job.id == job_id for job, _ in self._waiting)
            or job_id in self._suspects
            or job_id in self._writer
        )

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits for a slot."""
        return bool(len(self._running) or self._waiting or self._suspects.is_waiting)

    def free(self) -> int:
        """How many more jobs could start at once."""
        return max(0, self._concurrency - self._taken())

    def _taken(self) -> int:
        """How many slots are taken, or will be soon, by jobs that wait."""
        return len(self._running) + len(self._waiting) + self._suspects.is_waiting

    def room(self, enough: int | None = None) -> int:
        """How many jobs to claim now, or ``enough`` if free; 0 while it is better to wait."""
        if len(self._writer) > MAX_UNWRITTEN or self._suspects.reserve(self._held):
            self.room_from = math.inf  # something ends before
            return 0
        if self._last_back in self._writer and time.monotonic() < self._back_until:  # rule 5
            self.room_from = self._back_until
            return 0
        free = self.free()
        if enough is not None and enough <= free:  # without an outlook, which is the most work
            return enough
        waiting = max(0, self._taken() - self._concurrency)
        now = time.monotonic()
        if waiting > self._enough and now < self.room_from:
            return 0
        outlook = self._outlook(now)
        self._enough = outlook.jobs // 2
        self.room_from = outlook.at
        if waiting > self._enough:
            return 0
        return max(0, min(MAX_CLAIM, free + outlook.jobs - waiting))

    def _outlook(self, now: float) -> Outlook:
        if self._cautious or self._handed_back or (self._short and self.busy):  # rules 2, 3 and 5
            return Outlook(0, math.inf)
        outlook = self._slots.outlook(now, self._concurrency)
        if self._short:
            return replace(outlook, jobs=int(outlook.jobs > self._concurrency))
        return outlook

    def take_next(self, claim: Claim, sent_at: float) -> None:
        """Take over the next jobs of lines. They say nothing of what else is ready. See `take`."""
        self.take(claim, self._short, sent_at)

    def refuse(self, jobs: Iterable[Job]) -> None:
        """Hand back jobs that were claimed too late to be taken over."""
        for job in jobs:
            self._writer.add(handed_back(job))

    def take(self, claim: Claim, short: bool, sent_at: float) -> None:
        """Take over the jobs of a claim; they start as there are slots.

        It came ``short`` if it left no ready job behind. ``sent_at`` is when it was sent, on the
        clock of the worker's trust.
        """
        asked = Asked(sent_at, now := time.monotonic())
        self._note_pace(now)
        self._short = short
        self.wants_look = False
        self._cautious = bool(claim.suspects)
        # By id: what a claim's first scan got may be lost, and come again with its second.
        claimed = {job.id: job for job in claim.jobs}
        self._forget(claimed)
        self._suspects.forget(claimed)
        jobs = self._intake.new_ones(claimed)
        self._telling.claimed(jobs)
        if self._paused.now or claim.unreadable:
            jobs = self._intake.startable(jobs, claim.unreadable)
        if self._cautious:
            for job in self._suspects.in_order(jobs, empty=not self.busy):
                if self._suspects.admit((job, asked), self._held()):
                    self._waiting.append((job, asked))
            self._fill_slots_now()
            self._give_back_suspects(claim.suspects)  # rule 3
            self._suspects.wait_for_writes()
            self._start_suspect()
        else:
            self._waiting.extend(zip(jobs, repeat(asked)))
            self._fill_slots_soon()
        self._busy_since = now if self._waiting else None
        self._decide()

    def _held(self) -> list[Job]:
        return [*(each.job for each in self._running.values()), *(job for job, _ in self._waiting)]

    def _forget(self, ids: Container[int]) -> list[Job]:
        """Let go of the jobs among these that wait for a slot, and return them."""
        if all(job.id not in ids for job, _ in self._waiting):
            return []
        self._offers.take_back()
        forgotten = [job for job, _ in self._waiting if job.id in ids]
        kept = [each for each in self._waiting if each[0].id not in ids]
        self._waiting.clear()
        self._waiting.extend(kept)
        return forgotten

    # Starting

    def _note_pace(self, now: float) -> None:
        """Note how many attempts have ended since the last claim, or until none was left."""
        if self._busy_since is not None and self._ended:
            self._ahead.got_through(self._ended, now - self._busy_since)
        self._busy_since, self._ended = None, 0

    def _slot_freed(self) -> None:
        self._handed_back = False
        self._ended += 1
        if self._offers.count:
            self._offers.count_in()
        self._fill_slots()
        waiting = len(self._waiting)
        if not (waiting or self._running):
            self._note_pace(time.monotonic())
        if waiting <= self._enough:  # else the claim would find no room
            self._on_change()

    def _fill_slots(self) -> None:
        if self._filling:
            return  # it comes soon; or a task has ended before `start` returned
        self._filling = True
        waiting, running, concurrency = self._waiting, self._running, self._concurrency
        turn_ends = 0.0
        try:
            while waiting and len(running) < concurrency:
                now = since_boot()
                if not turn_ends:
                    turn_ends = now + TURN
                elif now >= turn_ends:
                    break
                if self._offers.count:
                    self._offers.start_first()
                    continue
                job, asked = waited = waiting.popleft()
                if now >= self._trusted_until or asked.sent_at < self._trusted_for:
                    self._trusted_for = asked.sent_at
                    self._trusted_until = self._trust.holds_until(asked.sent_at, now)
                if now >= self._trusted_until:  # rule 6
                    self._writer.add(handed_back(job))
                    continue
                try:
                    self._slots.start(job)
                except BaseException:  # it has not taken a slot
                    waiting.appendleft(waited)
                    raise
        finally:
            self._filling = False
            if waiting and len(running) < concurrency:
                self._fill_slots_soon()

    def written(self) -> None:
        """Note that outcomes are written: a suspect may have waited for that (rule 3)."""
        if self._suspects.is_waiting:
            self._loop.call_soon(self._start_suspect)  # an error must not reach the writer

    def _start_suspect(self) -> None:
        """Start the suspect that waits here, if it may start now."""
        if not self._suspects.may_start(empty=not (self._running or self._waiting)):
            return
        self._offers.take_back()  # it comes before what is on offer
        if len(self._running) >= self._concurrency:
            self._suspects.give_back()
        elif (waited := self._suspects.take()) is not None:
            self._waiting.appendleft(waited)
            self._fill_slots()

    def _fill_slots_soon(self) -> None:
        """At the loop's next turn: others come first, above all what claims the next jobs."""
        if not self._filling:
            self._loop.call_soon(self._fill_slots_now)
            self._filling = True

    def _fill_slots_now(self) -> None:
        self._filling = False
        self._fill_slots()
        self._offer()

    def _offer(self) -> None:
        """Offer as many of the first waiting jobs to the threads as there are slots (rule 7)."""
        if not self._cautious and len(self._running) == self._concurrency:
            self._offers.top_up(self._concurrency, self._trusted_since)

    def _trusted_since(self, moment: float) -> bool:
        """Whether jobs may start now that were asked for at that moment; also from a thread."""
        now = since_boot()
        return now < self._trust.holds_until(moment, now)

    # Handing back

    def give_back(self) -> None:
        """Hand back all jobs that wait for a slot, or to start as a suspect."""
        self._offers.take_back()
        two_claims = min(2 * self._ahead.claim_takes, LONGEST_WAY_BACK)
        while self._waiting:
            job, _ = self._waiting.popleft()
            self._writer.add(handed_back(job))
            self._last_back = job.id
            self._back_until = time.monotonic() + max(GOING_BACK_MAY_TAKE, two_claims)
        self._suspects.give_back()

    def give_back_paused(self) -> None:
        """Hand back the jobs of paused queues that wait (rule 8)."""
        waiting = [job for job, _ in self._waiting]
        paused = {job.id for job in waiting if self._paused.has(job.queue)}
        self.refuse(self._forget(paused))
        if any(self._paused.has(job.queue) for job in self._suspects.waiting):
            self._suspects.give_back()

    def _decide(self) -> None:
        """Decide about the jobs that wait, now and each time that is due (rule 4)."""
        self._offers.count_in()
        if not self._waiting:
            return
        if len(self._running) < self._concurrency:  # they start at this turn or the next one
            now, due = self._loop.time(), self._decision_due
            if due is None or not now < due.when() <= now + holding.LEAST_PATIENCE:
                self._act(holding.Hold(holding.LEAST_PATIENCE))
            return
        takes = self._ahead.claim_takes
        self._act(holding.decide(self._waited(), claim_takes=takes, short=self._short))

    def looked(self, any_ready: bool, took: float) -> None:
        """Decide anew because a look has shown whether a job is ready; it ``took`` seconds."""
        self.wants_look = False
        self._short = not any_ready
        self._offers.count_in()
        if self._waiting:
            self._act(
                holding.after_look(
                    self._waited(),
                    claim_takes=self._ahead.claim_takes,
                    looking_took=took,
                    any_ready=any_ready,
                )
            )

    def _waited(self) -> float:
        return time.monotonic() - self._waiting[0][1].answered_at

    def _act(self, decision: holding.Decision) -> None:
        if self._decision_due is not None:
            self._decision_due.cancel()
            self._decision_due = None
        if isinstance(decision, holding.HandBack):
            job_log.waited_too_long(len(self._waiting))
            self._handed_back = True
            self.give_back()
            return
        self._decision_due = self._loop.call_later(decision.seconds, self._decide)
        if isinstance(decision, holding.Look):
            self.wants_look = True
            self._on_look()

    def _give_back_suspects(self, suspects: Container[int]) -> None:
        self.refuse(self._forget(suspects))

    def leases(self) -> dict[int, int]:
        """Return the leases of the jobs that run or wait here, by their ids."""
        return {job.id: job.lease for job in (*self._held(), *self._suspects.waiting)}

    def lose(self, ids: Container[int]) -> None:
        """Let go of the jobs among these that wait, because other workers have them now.

        Those that run are asked to end.
        """
        self._telling.lost(self._forget(ids))
        self._suspects.forget(ids)
        self._slots.lose(ids)  # last: it knows of those that threads have taken now (rule 7)

    def abort(self, ids: Collection[int]) -> None:
        """Abort the jobs among these that run, and hand back those that wait.

        The write that hands them back ends them as aborted, because that was asked for.
        """
        asked = self._forget(ids)
        if any(job.id in ids for job in self._suspects.waiting):
            job_log.aborting_unbegun(self._suspects.waiting[0])
            self._suspects.give_back()
        for job in asked:
            job_log.aborting_unbegun(job)
            self._writer.add(handed_back(job))
        self._slots.abort(ids)  # last: it knows of those that threads have taken now (rule 7)
