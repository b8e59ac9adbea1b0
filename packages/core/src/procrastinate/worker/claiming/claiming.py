"""Claiming: the loop that asks for jobs while there is room, and what wakes it.

Rules

1. One loop for all slots. It claims as many jobs as there are slots free, and some ahead for slots
   that will soon be free (`procrastinate.model.claiming.ahead`).
2. A claim is sent only while the worker's signs of life are trusted
   (`procrastinate.model.liveness.trust`).
3. While the database is away, the loop tries again. Only a request to stop ends it.
4. The jobs that wait for a lock are its line. The statement that writes the end of jobs with locks
   may claim the next jobs of their lines. It does so only while the last look has left no ready job
   behind and nothing was heard since, so that no job is passed over that comes first. It never does
   so beside a claim, which might take these jobs for a lost answer (endings that meet claims: see
   `procrastinate.worker.claiming.meeting`). Each partition is looked at by itself: a line goes on
   beside claims from others.
5. What was asked for and not answered yet counts as room that is taken.
6. No claim is about a paused queue (`procrastinate.worker.helpers.pausing`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

from procrastinate.drive import Limit
from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.ahead import Ahead
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.job import Job
from procrastinate.model.liveness.alarm import Alarm
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, Keeps, Settled, keeps_none
from procrastinate.worker.backlog.backlog import Backlog
from procrastinate.worker.claiming.meeting import Meeting
from procrastinate.worker.claiming.only_partition import OnlyFetcher
from procrastinate.worker.claiming.partitioned import PartitionedFetcher
from procrastinate.worker.clock import since_boot
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.waking import woken_within
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.writer import Writer

CALL_MAY_TAKE = 60.0  # seconds until a call is given up, as the network seems to swallow it
LAST_CALL_MAY_TAKE = 5.0  # seconds for a call of a worker that has to stop
MAX_HEARD = 10_000  # requests to abort that are kept while a claim is answered
PROBE = Limit(server=1.0, client=2.0)  # to find silent connections while trust is lost
PROBE_EVERY = 1.0  # seconds
FEW_LINES = 128  # endings; the usual way, beside claims, is as good for more
ALMOST = 0.001  # seconds by which a timer may be early
LINES_EXPECTED_FOR = 1.0  # seconds after a line was seen to go on


class Claiming:
    """Claims jobs for one shift, and is woken by news of them."""

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        options: WorkerOptions,
        *,
        stop: StopRequests,
        wake: asyncio.Event,
        trusted: Callable[[], bool],
        ahead: Ahead,
        unknown: UnknownTasks | None,
        places: Places,
        outages: Outages,
        paused: Paused,
        keeps: Keeps = keeps_none,
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._options = options
        self._stop = stop
        self._wake = wake
        self._trusted = trusted
        self._ahead = ahead
        self.echoes = Echoes()  # what will be heard of this worker's own writes
        self._paused = paused
        self._fetcher = _fetcher_for(
            calls, worker_id, options, unknown, places, outages, paused, keeps
        )
        self.sweeper = self._fetcher.sweeper  # if there are several partitions
        if self.sweeper is not None:
            self.sweeper.on_hot = self.look_now
        self._aborts_heard: list[set[int]] = []  # one for each claim that is being answered
        self._claim_alarm = Alarm()  # when to claim next
        self._meeting = Meeting()  # of the endings of lines with claims
        self._hands_over = False  # the same of a statement that goes on with lines (rule 4)
        self._asked = 0  # jobs that may come with what is being answered (rule 5)
        self._lines_until = -math.inf  # until then lines are expected to go on
        self._poll_due = -math.inf  # after waiting until then, the next claim looks at everything
        self._asleep_until: float | None = None  # the time that the loop waits for

    async def until_stopped(
        self,
        backlog: Backlog,
        writer: Writer,
        look_for_aborts: Callable[[], None],
        abort: Callable[[set[int]], None],
    ) -> None:
        """Claim until told to stop or, with ``wait=False``, until no job is ready."""
        self._backlog, self._writer = backlog, writer
        self._look_for_aborts, self._abort = look_for_aborts, abort
        backoff = Backoff()
        while not self._stop.gracefully.is_set():
            self._wake.clear()
            room = await self._room_for_a_claim()
            if room and await self._claim_finds_nothing_more(room, backoff):
                return

    async def _room_for_a_claim(self) -> int:
        """Return how many jobs to claim now, or 0 after waiting for a reason to ask again."""
        if not self._trusted():
            await self._wait_for_trust()
            return 0
        if not self._paused.is_known:
            await woken_within(self._wake, PROBE_EVERY)
            return 0
        if self._backlog.wants_look:
            await self._look_behind()
        if not self._claim_alarm.due(time.monotonic()):
            await self._sleep(self._claim_alarm.at)
            return 0
        if self._hands_over and not self._fetcher.claims_beside_lines:
            await self._sleep(math.inf)  # its end wakes this loop (rule 4)
            return 0
        room = max(0, self._backlog.room() - self._asked)  # last, because it is the most work
        if room == 0:
            await self._sleep(self._backlog.room_from)
        return room

    async def _claim_finds_nothing_more(self, room: int, backoff: Backoff) -> bool:
        """Claim, and set the alarm for the next claim.

        Returns True if a worker that does not wait has nothing left to do.
        """
        self._claim_alarm.begin()
        was_idle = not (self._backlog.busy or len(self._writer))
        self._fetcher.must_be_sure = was_idle and not self._options.wait
        try:
            found = await self._fetch(room)
        except (ConnectorException, TimeoutError) as exc:
            self._claim_alarm.ring()
            await self._wait_for_database(backoff, exc)
            return False
        backoff.reset()
        if was_idle and not found and not self._options.wait and not self._fetcher.unsure:
            return True
        if found == room:
            self._claim_alarm.ring()
            return False
        now = time.monotonic()
        self._poll_due = now + self._options.fetch_job_polling_interval
        self._claim_alarm.end(min(self._poll_due, now + self._fetcher.seconds_to_next_look))
        return False

    async def _fetch(self, room: int) -> int:
        began, sent_at = time.monotonic(), since_boot()
        self._meeting.sent()
        try:
            with self._asking_for(room) as heard:
                async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                    claim = await self._fetcher.claim(room, known=self._backlog)
            self._meeting.brought(full=len(claim.jobs) == room)
        finally:
            self._meeting.ended()
        if claim.jobs:
            self._ahead.claim_took(time.monotonic() - began)
        if claim.parked:
            self._a_line_goes_on()
        self._backlog.take(claim, short=self._fetcher.left_none, sent_at=sent_at)
        self._ask_after(heard, claim)
        return len(claim.jobs)

    @contextmanager
    def _asking_for(self, room: int) -> Iterator[set[int]]:
        """Count room as taken, and note which jobs are to be aborted meanwhile."""
        heard = set[int]()
        self._aborts_heard.append(heard)
        self._asked += room
        try:
            yield heard
        finally:
            self._asked -= room
            self._aborts_heard = [each for each in self._aborts_heard if each is not heard]

    def _ask_after(self, heard: set[int], claim: Claim) -> None:
        """Ask for requests to abort if some overtook the answer of this claim."""
        if heard and (len(heard) >= MAX_HEARD or any(job.id in heard for job in claim.jobs)):
            # Or they were for another worker that had the job.
            self._look_for_aborts()

    # Lines (rule 4)

    async def hand_over(self, ended: Sequence[Ended], partition: int) -> Settled | None:
        """Write that jobs with locks have succeeded, and go on with their lines.

        Returns what was written: less than all, and None if there is something else to claim first.
        """
        if self._claim_is_in_the_way():
            await self._meeting.met(self._claim_is_in_the_way)
        room = min(len(ended), self._room_for_lines(len(ended), partition))
        if not room:
            return None
        self._meeting.missed()
        sent_at, self._hands_over = since_boot(), True
        try:
            with self._asking_for(room) as heard:
                done = await self._fetcher.hand_over(ended, room, partition)
        except BaseException:
            self.look_now()  # and hand back what it has claimed
            raise
        finally:
            self._hands_over = False
        if done.claim.jobs:
            self._a_line_goes_on()
            if self._stop.gracefully.is_set():
                self._backlog.refuse(done.claim.jobs)
            else:
                self._backlog.take_next(done.claim, sent_at=sent_at)
                self._ask_after(heard, done.claim)
        return done.settled

    def _claim_is_in_the_way(self) -> bool:
        """Return whether lines could go on at once if no claim were under way, or sent now."""
        now, are_few = time.monotonic(), len(self._writer) <= FEW_LINES
        if now >= self._lines_until or not are_few or self._fetcher.claims_beside_lines:
            return False
        is_due = self._claim_alarm.due(now)
        return self._meeting.claims_now or (is_due and self._backlog.room() > self._asked)

    def _room_for_lines(self, wanted: int, partition: int) -> int:
        now = time.monotonic()
        is_claimed = self._meeting.claims_now or self._claim_alarm.due(now)
        if now >= self._lines_until or not self._fetcher.left_none_in(partition, is_claimed):
            return 0
        if self._stop.gracefully.is_set() or not self._trusted():
            return 0
        room = self._backlog.room(enough=wanted + self._asked)
        # If more is claimed than can start, one more job that waits does no harm.
        return room if room > self._backlog.free() else max(0, room - self._asked)

    def _a_line_goes_on(self) -> None:
        self._lines_until = time.monotonic() + LINES_EXPECTED_FOR

    async def _sleep(self, until: float) -> None:
        """Wait for a slot, a notification, a written ending, or the time of the next look."""
        now, alarm, self._asleep_until = time.monotonic(), None, until
        if until < math.inf:
            alarm = asyncio.get_running_loop().call_later(until - now, self._wake.set)
        try:
            await self._wake.wait()
            while self._sleeps_on(until):
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._asleep_until = None
            if alarm is not None:
                alarm.cancel()
        # A wait that ended before, for a look that the plan asked for, is no reason to poll.
        if now < self._poll_due <= time.monotonic():
            self._fetcher.poll()

    def _sleeps_on(self, until: float) -> bool:
        """Return whether only the alarm is waited for: what ends is no reason to look before."""
        if self._backlog.wants_look or self._stop.gracefully.is_set() or not self._trusted():
            return False
        is_for_alarm = self._claim_alarm.at == until and time.monotonic() < until - ALMOST
        return is_for_alarm and self._paused.is_known

    async def _look_behind(self) -> None:
        """Ask whether more jobs are ready than were claimed."""
        began = time.monotonic()
        try:
            async with self._stop.limit(CALL_MAY_TAKE, stopping=LAST_CALL_MAY_TAKE):
                found = await self._fetcher.is_anything_ready()
        except (ConnectorException, TimeoutError):
            found = False  # if nothing is known, another worker may be idle
        self._backlog.looked(found, time.monotonic() - began)

    async def _wait_for_database(self, backoff: Backoff, exc: Exception) -> None:
        backoff.warn("no jobs can be fetched", exc)
        await woken_within(self._stop.gracefully, backoff.next_wait())

    async def _wait_for_trust(self) -> None:
        """Wait for a confirmed beat; and find out which connections of the pool are silent.

        A claim must not lose its time on one of these when trust is back.
        """
        try:
            async with self._stop.limit(None, stopping=LAST_CALL_MAY_TAKE):
                flow = flows.abort_requests(self._worker_id)
                self._abort(await self._calls.run_async(flow, limit=PROBE))
        except (ConnectorException, TimeoutError):
            pass  # the heartbeat and the writer have said so
        await woken_within(self._wake, PROBE_EVERY)

    async def hand_back_lost(self, known: Container[int]) -> None:
        """Hand back the jobs of a claim whose answer was lost, if there was one."""
        await self._fetcher.hand_back_lost(known)

    # News

    def look_now(self) -> None:
        """Claim as soon as there is room."""
        self._claim_alarm.ring()
        self._wake.set()

    def look_at_everything(self) -> None:
        """Claim as soon as there is room, and look everywhere."""
        self.echoes.forget()
        self._fetcher.look_at_everything()
        self.look_now()

    def look_at(self, partition: int) -> None:
        """Claim as soon as there is room, and look at all of a partition."""
        self._fetcher.look_at(partition)
        self.look_now()

    def heard_of(self, payload: str) -> None:
        """Note that a job became ready in a queue, which may be any."""
        if not self.echoes.take(payload) and self._fetcher.hear(payload):
            self.look_now()

    def went_back(self, jobs: Sequence[Job], passed: Sequence[str], partition: int) -> None:
        """Note what was written: jobs that went back to their places, and freed locks.

        ``passed`` is what is announced of the next jobs of these locks, which are ready.
        """
        self._fetcher.went_back(jobs, partition)
        if passed:
            self._a_line_goes_on()
        for payload in passed:
            self._fetcher.hear(payload)
        self.look_now()

    def schedule_changed(self, payload: str) -> None:
        """Note that a job was scheduled for the near future."""
        self._fetcher.hear_of_schedule(payload)
        self.look_now()

    def something_ended(self) -> None:
        """Note that there may be room, or that an ending was written."""
        if not (self._options.wait or self._backlog.busy or len(self._writer)):
            self._claim_alarm.ring()  # a worker that does not wait looks again before it ends
        if self._asleep_until != self._claim_alarm.at:  # else it waits for the alarm alone
            self._wake.set()

    def heard_of_aborts(self, ids: set[int]) -> None:
        """Note requests to abort jobs, which may come with a claim that is not answered yet."""
        for heard in self._aborts_heard:
            if len(heard) < MAX_HEARD:
                heard |= ids


def _fetcher_for(
    calls: Calls,
    worker_id: int,
    options: WorkerOptions,
    unknown: UnknownTasks | None,
    places: Places,
    outages: Outages,
    paused: Paused,
    keeps: Keeps,
) -> OnlyFetcher | PartitionedFetcher:
    delete_ended = options.delete_jobs == "always"
    if not places.partitions.are_many:
        return OnlyFetcher(
            calls,
            worker_id,
            options.queues,
            delete_ended=delete_ended,
            keeps=keeps,
            unknown=unknown,
            paused=paused,
        )
    return PartitionedFetcher(
        calls,
        worker_id,
        options.queues,
        places,
        outages,
        interval=options.fetch_job_polling_interval,
        delete_ended=delete_ended,
        keeps=keeps,
        unknown=unknown,
        paused=paused,
    )
