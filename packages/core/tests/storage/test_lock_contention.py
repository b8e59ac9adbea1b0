"""A crowd quarrels over a few locks: no deadlock, one holder at a time, in order, none left over.

Every thread is a worker and an operator at once: it claims, ends, retries, hands back and loses
jobs, and defers, cancels, deletes and retries others by hand. Each call is written down with the
times before and after it, so that what is concluded is certain: a job *certainly* holds its lock
from the return of the claim until the next call for this job begins, and it *certainly* waits from
the return of the call that made it ready until the next call for it begins.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from procrastinate import drive, json_codec
from procrastinate.connector import SyncConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, UNSTARTED, Outcome, retried
from procrastinate.model.endings.retry import RetryDecision
from procrastinate.model.job import Job, NewJob, Status
from procrastinate.model.partitions import Partitions
from procrastinate.storage import bulk, claim, defer, finish, handing_over, jobs, locks, workers
from procrastinate.storage.statements import Statements
from procrastinate_psycopg2 import Psycopg2Connector

T = TypeVar("T")

QUEUES = ("a", "b", "c")
LOCKS = ("k1", "k2", "k3", "k4")
HOUR_US = 3_600_000_000
THREADS = 6
SECONDS = 4.0

#: How often a thread does each thing.
WEIGHTS = {
    "take": 30,
    "take_of_level": 6,
    "finish": 16,
    "hand_over": 12,
    "delete_finished": 3,
    "retry": 8,
    "hand_back": 8,
    "crash": 1,
    "recover": 2,
    "defer": 20,
    "cancel": 12,
    "retry_by_hand": 8,
    "cancel_by_filter": 3,
    "retry_by_filter": 4,
    "promote": 4,
}

#: What does not wait long for somebody else's lock, and is tried again: nothing is lost by it.
IMPATIENT = {"finish", "hand_over", "delete_finished", "retry", "hand_back", "recover"}
LOCK_NOT_AVAILABLE = "55P03"


@pytest.fixture
def connector(dsn: str) -> Iterator[Psycopg2Connector]:
    """A deadlock shows at once; a wait that never ends becomes an error."""
    connector = Psycopg2Connector(
        dsn=dsn, maxconn=THREADS + 1, options="-c deadlock_timeout=100ms -c lock_timeout=20s"
    )
    connector.open()
    yield connector
    connector.close()


@pytest.mark.slow
@pytest.mark.one_partition("the crowd works in one, with the texts of both kinds")
@pytest.mark.parametrize("distributed", [False, True])
def test_a_crowd_neither_deadlocks_nor_overtakes_nor_leaves_anything(
    connector: Psycopg2Connector, query: Callable[..., list[tuple[Any, ...]]], distributed: bool
) -> None:
    """Also with the texts for a distributed database, where a slot may be free."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    history = quarrel(
        connector,
        seed,
        threads=THREADS,
        seconds=SECONDS,
        sql=Statements(partitions=Partitions(64 if distributed else 1)),
    )
    assert history.errors == []
    assert history.overlapping_holders() == []
    assert history.claims_out_of_order() == []
    left = query("select * from procrastinate_jobs where status in ('todo', 'doing')")
    assert left == []
    assert query("select * from procrastinate_locks where job_id is not null") == []
    assert history.claims > 100, "too few to mean anything"


# --- what is written down ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in its lock's line."""

    job_id: int
    queue: str
    priority: int
    lock: str | None

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.priority, self.job_id)


@dataclass(frozen=True, slots=True)
class Event:
    """A call that changed a job: that made it ready, or claimed it for these queues, or else."""

    job_id: int
    began: float
    ended: float
    ready: Place | None = None
    claimed: Place | None = None
    queues: tuple[str, ...] = ()


@dataclass
class History:
    """What all threads did, and what follows from it."""

    events: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    asked_to_abort: set[int] = field(default_factory=set)

    @property
    def claims(self) -> int:
        return sum(event.claimed is not None for event in self.events)

    def claims_out_of_order(self) -> list[tuple[Event, Place]]:
        """Claims that took a job although a better one of its line was certainly waiting.

        A job that was changed while it was claimed counts as it was before: it is left out.
        """
        waits = defaultdict(list)
        for event, until in self._until_next():
            if event.ready is not None:
                waits[event.ready.lock].append((event.ready, event.ended, until))
        return [
            (event, place)
            for event, job in self._locked()
            for place, since, until in waits[job.lock]
            if place.queue in event.queues
            and place.rank < job.rank
            and since <= event.began
            and event.ended <= until
            and not self._is_disputed(event)
        ]

    def _is_disputed(self, claimed: Event) -> bool:
        return any(
            event.job_id == claimed.job_id
            and event is not claimed
            and event.began < claimed.ended
            and claimed.began < event.ended
            for event in self.events
        )

    def overlapping_holders(self) -> list[tuple[Place, Place]]:
        """Pairs of jobs that certainly held one lock at the same time."""
        until = dict(self._until_next())
        holds = defaultdict(list)
        for event, job in self._locked():
            if event.ended < until[event]:
                holds[job.lock].append((event.ended, until[event], job))
        return [
            (one[2], other[2])
            for held in (sorted(each, key=lambda hold: hold[0]) for each in holds.values())
            for one, other in pairwise(held)
            if other[0] < one[1]
        ]

    def _locked(self) -> Iterator[tuple[Event, Place]]:
        for event in self.events:
            if event.claimed is not None and event.claimed.lock is not None:
                yield event, event.claimed

    def _until_next(self) -> Iterator[tuple[Event, float]]:
        """Yield each event with the time until which nobody else had touched its job."""
        by_job = defaultdict(list)
        for event in self.events:
            by_job[event.job_id].append(event)
        for events in by_job.values():
            for event in events:
                others = (each for each in events if each is not event)
                later = (each.began for each in others if each.ended > event.began)
                yield event, min(later, default=float("inf"))


def place_of(job: Job) -> Place:
    return Place(job.id, job.queue, job.priority, job.lock)


# --- the crowd -----------------------------------------------------------------------------------


def quarrel(
    connector: SyncConnector,
    seed: int,
    *,
    threads: int,
    seconds: float,
    mend: bool = False,
    sql: Statements | None = None,
) -> History:
    """Let threads loose for ``seconds``, then work off what is left.

    Lines are mended only on demand: nothing here may need it.
    """
    history = History()
    sql = sql or Statements()
    crew = [Quarreller(connector, history, f"{seed}/{number}", sql) for number in range(threads)]
    weights = WEIGHTS | {"mend": 3 if mend else 0}
    deadline = time.monotonic() + seconds
    running = [
        threading.Thread(target=each.quarrel, args=(weights, deadline), daemon=True)
        for each in crew
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(seconds + 60)
    assert not any(thread.is_alive() for thread in running), "a thread hangs"
    for each in crew:
        each.finish_all()
    crew[0].work_off()
    return history


class Quarreller:
    """One thread: a worker that also changes jobs by hand."""

    def __init__(
        self, connector: SyncConnector, history: History, seed: str, sql: Statements
    ) -> None:
        self.connector = connector
        self.history = history
        self.random = random.Random(seed)
        self.sql = sql
        self.held: dict[int, Job] = {}
        self.worker_id = self.run(workers.register_worker("quarreller"))

    def quarrel(self, weights: dict[str, int], deadline: float) -> None:
        while time.monotonic() < deadline:
            (name,) = self.random.choices(list(weights), list(weights.values()))
            try:
                getattr(self, name)()
            except ConnectorException as exc:
                if name not in IMPATIENT or exc.sqlstate != LOCK_NOT_AVAILABLE:
                    self.history.errors.append(f"{name}: {exc}")
            except BaseException:
                self.history.errors.append(f"{name}: {traceback.format_exc()}")
                return

    def run(self, flow: Flow[T], *, transaction: bool = False) -> T:
        with self.connector.session(transaction=transaction) as executor:
            return drive.run(flow, executor, self.sql)

    def note(
        self,
        ids: Iterable[int],
        began: float,
        *,
        ready: Iterable[Place] = (),
        claimed: Iterable[Place] = (),
        queues: Sequence[str] = (),
    ) -> None:
        """Write down a call that has just returned."""
        ended = time.monotonic()
        waits = {place.job_id: place for place in ready}
        taken = {place.job_id: place for place in claimed}
        self.history.events += [
            Event(each, began, ended, waits.get(each), taken.get(each), tuple(queues))
            for each in ids
        ]

    # As a worker

    def take(self) -> None:
        self.take_from(self.random.sample(QUEUES, self.random.randint(1, 3)), limit=4)

    def take_from(self, queues: Sequence[str], limit: int) -> claim.Claim:
        return self._claimed(
            queues,
            claim.claim(
                Scan(Kind.FULL, limit, tuple(queues), with_locks=True),
                served=queues,
                worker_id=self.worker_id,
                loads=json_codec.loads,
                makes_slots=self.sql.distributed,
            ),
        )

    def take_of_level(self) -> None:
        low = self.some_id() - 5
        queues = tuple(self.random.sample(QUEUES, 2))
        priority = self.random.randint(0, 1)
        scan = Scan(Kind.LEVEL, 3, queues, priority=priority, lows=(low, low), with_locks=True)
        served = self.random.choice([QUEUES, queues])
        flow = claim.claim(
            scan,
            worker_id=self.worker_id,
            loads=json_codec.loads,
            served=served,
            makes_slots=self.sql.distributed,
        )
        self._claimed(served, flow)

    def _claimed(self, queues: Sequence[str], flow: Flow[claim.Claim]) -> claim.Claim:
        began = time.monotonic()
        found = self.run(flow)
        self.held |= {job.id: job for job in found.jobs}
        ids = [job.id for job in found.jobs]
        self.note(ids, began, claimed=map(place_of, found.jobs), queues=queues)
        return found

    def finish(self) -> None:
        held = self.some_held()
        self._end(held, self._settle((job, SUCCEEDED) for job in held))

    def hand_over(self) -> None:
        """End jobs whose lines go on with what may be taken from some queues, and take that."""
        queues = self.random.sample(QUEUES, self.random.randint(1, 3))
        ended = [finish.Ended(job, SUCCEEDED) for job in self.some_held() if job.lock is not None]
        if not ended:
            return
        began = time.monotonic()
        done = self.run(
            handing_over.hand_over(
                ended,
                now=0.0,
                worker_id=self.worker_id,
                limit=self.random.choice([1, 4]),
                loads=json_codec.loads,
                served=queues,
            )
        )
        self.note(done.settled.changed, began)
        for job_id in done.settled.changed:
            del self.held[job_id]
        following = done.claim.jobs
        self.held |= {job.id: job for job in following}
        ids = [job.id for job in following]
        self.note(ids, began, claimed=map(place_of, following), queues=queues)

    def delete_finished(self) -> None:
        ended = [finish.Ended(job, SUCCEEDED) for job in self.some_held()]
        self._end(
            [each.job for each in ended],
            finish.delete_finished(ended, worker_id=self.worker_id),
        )

    def retry(self) -> None:
        for job in self.some_held()[:1]:
            retry = RetryDecision(
                retry_in=timedelta(milliseconds=self.random.choice([0, 0, 20])),
                priority=self.random.choice([None, 0, 2]),
                queue=self.random.choice([None, *QUEUES]),
                lock=self.random.choice([None, None, *LOCKS]),
            )
            priority = job.priority if retry.priority is None else retry.priority
            place = Place(job.id, retry.queue or job.queue, priority, retry.lock or job.lock)
            flow = self._settle([(job, retried(retry))])
            self._end([job], flow, ready=[] if retry.retry_in else [place])

    def hand_back(self) -> None:
        given = self.some_held()
        outcomes: list[Outcome] = [self.random.choice([INTERRUPTED, UNSTARTED]) for _ in given]
        flow = self._settle(zip(given, outcomes, strict=True))
        self._end(given, flow, ready=map(place_of, given))

    def _settle(self, given: Iterable[tuple[Job, Outcome]]) -> Flow[finish.Settled]:
        return finish.settle(
            [finish.Ended(*each) for each in given],
            now=0.0,
            worker_id=self.worker_id,
            dumps=json_codec.dumps,
        )

    def _end(
        self, ended: Sequence[Job], flow: Flow[finish.Settled], *, ready: Iterable[Place] = ()
    ) -> None:
        if not ended:
            return
        began = time.monotonic()
        changed = self.run(flow, transaction=finish.needs_transaction(ended)).changed
        # A job that is to be aborted does not go back to the queue.
        asked = self.history.asked_to_abort
        self.note(changed, began, ready=[each for each in ready if each.job_id not in asked])
        for job in ended:
            del self.held[job.id]

    def crash(self) -> None:
        """Die, and come back as another worker without the jobs."""
        self.run(workers.unregister_worker(self.worker_id))
        self.held.clear()
        self.worker_id = self.run(workers.register_worker("reborn"))

    def recover(self) -> None:
        began = time.monotonic()
        flow = workers.recover_jobs(timeout_us=HOUR_US, crash_limit=3)
        recovered = self.run(flow, transaction=True)
        self.note([each.job_id for each in recovered], began)

    def promote(self) -> None:
        self.run(claim.promote_due())

    def mend(self) -> None:
        self.run(locks.mend(), transaction=True)

    # As an operator

    def defer(self) -> None:
        batch = [self._new() for _ in range(self.random.choice([1, 1, 1, 2, 6]))]
        began = time.monotonic()
        ids = self.run(defer.defer_jobs(batch))
        self.history.ids.extend(ids)
        places = [
            Place(job_id, new.queue, new.priority, new.lock)
            for job_id, new in zip(ids, batch, strict=True)
            if new.schedule_in_us is None
        ]
        self.note(ids, began, ready=places)

    def _new(self) -> NewJob:
        return NewJob(
            "task",
            queue=self.random.choice(QUEUES),
            priority=self.random.choice([0, 0, 0, 1, 2]),
            lock=self.random.choice([*LOCKS, None]),
            schedule_in_us=self.random.choice([None, None, None, 10_000]),
        )

    def cancel(self) -> None:
        began = time.monotonic()
        flow = jobs.cancel_jobs(
            [self.some_id()],
            abort=self.random.random() < 0.3,
            delete=self.random.random() < 0.3,
        )
        changed = self.run(flow, transaction=True)
        self.history.asked_to_abort.update(changed)
        self.note(changed, began)

    def retry_by_hand(self) -> None:
        queue, lock = self.random.choice(QUEUES), self.random.choice(LOCKS)
        change = jobs.ByHand(priority=1, queue=queue, lock=lock)
        began = time.monotonic()
        flow = jobs.retry_by_hand([self.some_id()], change)
        changed = self.run(flow, transaction=True)
        self.note(changed, began, ready=[Place(each, queue, 1, lock) for each in changed])

    def cancel_by_filter(self) -> None:
        """Waiting jobs of one line and, now and then, the running one."""
        statuses = [Status.TODO, Status.DOING][: self.random.choice([1, 1, 2])]
        change = partial(jobs.cancel_jobs, abort=True, delete=False)
        self._change_batch(jobs.JobFilter(statuses=statuses), change)

    def retry_by_filter(self) -> None:
        place = Place(0, self.random.choice(QUEUES), 1, self.random.choice(LOCKS))
        by_hand = jobs.ByHand(priority=1, queue=place.queue, lock=place.lock)
        change = partial(jobs.retry_unless_twin_waits, change=by_hand)
        self._change_batch(jobs.JobFilter(statuses=jobs.ENDED_BADLY), change, ready=place)

    def _change_batch(
        self, which: jobs.JobFilter, change: bulk.Change, *, ready: Place | None = None
    ) -> None:
        """Change jobs; without ``ready`` it asks them to abort, or cancels them."""
        which = replace(which, queue=self.random.choice(QUEUES), lock=self.random.choice(LOCKS))
        began = time.monotonic()
        flow = bulk.change_batch(which, change, after_id=0, limit=3)
        changed = self.run(flow, transaction=True).changed
        if ready is None:
            self.history.asked_to_abort.update(changed)
        places = [] if ready is None else [replace(ready, job_id=each) for each in changed]
        self.note(changed, began, ready=places)

    # The end

    def finish_all(self) -> None:
        while self.held:
            self.finish()

    def work_off(self) -> None:
        """Work until nothing is to be had any more."""
        self.recover()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            to_next = self.run(claim.promote_due()).seconds_to_next
            found = self.take_from(QUEUES, limit=50)
            self.finish_all()
            if not found.jobs and not found.parked and to_next is None:
                return

    # Choices

    def some_held(self) -> list[Job]:
        held = list(self.held.values())
        return self.random.sample(held, min(len(held), self.random.randint(1, 4)))

    def some_id(self) -> int:
        return self.random.choice(self.history.ids[-60:] or [1])
