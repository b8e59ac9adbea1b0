"""Flows about workers: which are alive, and what becomes of the jobs of those that are not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from procrastinate import json_codec
from procrastinate.connector import Rows, Value
from procrastinate.drive import Flow, Request, at
from procrastinate.model.endings.outcome import LOST_TYPE, UNKNOWN_TYPE, WHY_LOST, WHY_UNKNOWN
from procrastinate.model.job import Status
from procrastinate.model.liveness.blame import CRASH_LIMIT, MOST_CRASHES
from procrastinate.storage import locks
from procrastinate.storage.finish import Keeps, delete_those, keeps_none, set_going
from procrastinate.storage.news import tell
from procrastinate.storage.waking import wake

RECOVERED_AT_ONCE = 1_000
_WHY_LOST = json_codec.dumps(WHY_LOST)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A job taken from a dead worker, and what it became."""

    job_id: int
    status: Status
    queue: str
    task_name: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The database's answer to a sign of life."""

    reborn: bool  # the worker had been taken for dead, and its row was gone
    rank: int  # of its id among those of the live workers, from 0
    live: int  # workers, this one included
    now: datetime  # the server's time


@dataclass(frozen=True, slots=True)
class About:
    """What a worker tells the others about itself. None: it does not say."""

    host: str | None = None
    concurrency: int | None = None
    task_names: tuple[str, ...] | None = None  # the tasks that it knows
    pid: int | None = None
    version: str | None = None  # of procrastinate
    queues: tuple[str, ...] | None = None  # that it serves; None is also what it says of all


@dataclass(frozen=True, slots=True)
class Condition:
    """How a worker is when it gives a sign of life. None: it does not say, or it does not apply."""

    busy: int | None = None  # slots with a job
    blocked_for: float | None = None  # seconds since its event loop has turned, if these are many
    trusted: bool | None = None  # False: until this sign of life is confirmed it claims nothing


def register_worker(name: str, about: About = About()) -> Flow[int]:
    """Enter a worker and return its id."""
    rows = yield Request("register_worker", name=name, **_columns(about))
    return int(rows[0][0])


def describe_worker(worker_id: int, about: About) -> Flow[None]:
    """Say again what a worker is, because its row was removed and is a new one."""
    yield Request("describe_worker", worker_id=worker_id, **_columns(about))


def _columns(about: About) -> dict[str, Value]:
    names, queues = about.task_names, about.queues
    return {
        "host": about.host,
        "concurrency": about.concurrency,
        "task_names": None if names is None else list(names),
        "pid": about.pid,
        "version": about.version,
        "queues": None if queues is None else list(queues),
    }


def unregister_worker(worker_id: int) -> Flow[None]:
    """Remove a worker that ends."""
    yield Request("unregister_worker", worker_id=worker_id)


def heartbeat(
    worker_id: int, name: str, *, timeout_us: int, condition: Condition = Condition()
) -> Flow[Beat]:
    """Say that a worker is alive; others are live if they were heard of within the timeout."""
    blocked_for, trusted = condition.blocked_for, condition.trusted
    beat = Request(
        "heartbeat",
        worker_id=worker_id,
        timeout_us=timeout_us,
        busy=condition.busy,
        trusted=None if trusted is None else int(trusted),
        blocked_us=None if blocked_for is None else int(blocked_for * 1e6),
    )
    rows = yield beat
    reborn = not rows
    while not rows:
        yield Request("enter_again", worker_id=worker_id, name=name)
        rows = yield beat
    rank, live, now = rows[0]
    return Beat(reborn, int(rank), int(live), now)


def notify_listener(channel: str) -> Flow[None]:
    """Send an empty notification, for a listener that wants to know whether it still hears."""
    yield Request("notify_listener", channel=channel)


def recover_jobs(
    *,
    timeout_us: int,
    crash_limit: int = CRASH_LIMIT,
    most_crashes: int = MOST_CRASHES,
    moment_us: int | None = None,
    ids: Sequence[int] | None = None,
    partition: int | None = None,
    delete_ended: bool = False,
    keeps: Keeps = keeps_none,
    judge: bool = True,
) -> Flow[list[Recovered]]:
    """Send the jobs of dead workers back to the queue. Needs a transaction.

    Those that end instead are removed with ``delete_ended``, if their task is not one of which
    ``keeps`` says that it keeps results; they are among the returned ones. A job fails by rule 1 of
    `procrastinate.model.liveness.blame`. A caller that sees only a part of what the workers hold
    must not ``judge`` which of them were alone.

    Takes up to `RECOVERED_AT_ONCE`, of these ids and of this partition where they are given; call
    it again until it returns fewer. It is all or nothing: a twin with the same queueing lock that
    is committed meanwhile raises `UniqueViolation` (the next call sees it), and if another open
    transaction is in the way, such as one that has deferred a twin, it waits for half a second and
    fails. Recover the `stalled_places` one by one then.
    """
    # Workers died in the same moment if their last signs of life lie no farther apart than two such
    # signs of one worker may: a third of the timeout, see `WorkerOptions`.
    moment_us = timeout_us // 3 if moment_us is None else moment_us
    holders = yield from _holders()
    if not holders.partitions:
        return []
    if judge:
        yield Request(
            "judge_workers",
            worker_ids=holders.known,
            held=[holders.held[worker_id] for worker_id in holders.known],
            timeout_us=timeout_us,
            moment_us=moment_us,
        )
    dead = yield from _dead(holders, timeout_us)
    if dead is None:
        return []
    recovered: list[Recovered] = []
    places = holders.places_of(worker_id for worker_id, _ in dead)
    for place in places if partition is None else [partition]:
        request = Request(
            "recover_jobs",
            dead_ids=[worker_id for worker_id, _ in dead],
            alone_ids=[worker_id for worker_id, alone in dead if alone],
            crash_limit=crash_limit,
            most_crashes=most_crashes,
            ids=None if ids is None else list(ids),
            limit=RECOVERED_AT_ONCE - len(recovered),
            lost_type=LOST_TYPE,
            why_lost=_WHY_LOST,
        )
        recovered += yield from at(place, _recovered(request, delete_ended, keeps))
        if len(recovered) == RECOVERED_AT_ONCE:
            break
    return recovered


def _recovered(request: Request, delete_ended: bool, keeps: Keeps) -> Flow[list[Recovered]]:
    rows = yield request
    recovered = [Recovered(row[0], Status(row[1]), row[2], row[3]) for row in rows]
    yield from tell(rows, 4)
    over = [each for each in recovered if each.status.is_final]
    removed = [each for each in over if delete_ended and not keeps(each.task_name)]
    yield from _over(over, removed)
    if recovered:
        yield from set_going([each.job_id for each in recovered])
    return recovered


def fail_unknown(
    *, patience_us: int, timeout_us: int, delete_ended: bool = False
) -> Flow[list[Recovered]]:
    """Fail waiting jobs whose task was unknown for ``patience_us``. Needs a transaction."""
    waiting = yield Request("any_unknown", patience_us=patience_us)
    if not waiting:
        return []
    names = [row[0] for row in (yield Request("known_names", timeout_us=timeout_us))]
    if None in names:  # a worker that does not say what it knows may know any
        return []
    failed: list[Recovered] = []
    for partition in sorted(row[0] for row in waiting):
        request = Request(
            "fail_unknown",
            patience_us=patience_us,
            known_names=names,
            limit=RECOVERED_AT_ONCE,
            unknown_type=UNKNOWN_TYPE,
            why_unknown=WHY_UNKNOWN,
        )
        failed += yield from at(partition, _failed(request, delete_ended=delete_ended))
    return failed


def _failed(request: Request, *, delete_ended: bool) -> Flow[list[Recovered]]:
    rows = yield request
    failed = [Recovered(row[0], Status(row[1]), row[2], row[3]) for row in rows]
    yield from _over(failed, failed if delete_ended else [])
    yield from locks.pass_on(row[4] for row in rows)
    return failed


def _over(ended: Sequence[Recovered], removed: Sequence[Recovered]) -> Flow[None]:
    """Wake who waits for jobs that have ended, and remove some of them."""
    yield from wake([each.job_id for each in ended])
    yield from delete_those([each.job_id for each in removed])


def stalled_ids(*, timeout_us: int) -> Flow[list[int]]:
    """Return the ids of up to `RECOVERED_AT_ONCE` jobs of dead workers."""
    return [job_id for job_id, _ in (yield from stalled_places(timeout_us=timeout_us))]


def stalled_places(*, timeout_us: int) -> Flow[list[tuple[int, int]]]:
    """Return (id, partition) of up to `RECOVERED_AT_ONCE` jobs of dead workers."""
    dead = yield from dead_workers(timeout_us=timeout_us)
    if dead is None:
        return []
    rows = yield Request("stalled_ids", dead_ids=dead, limit=RECOVERED_AT_ONCE)
    return [(int(row[0]), int(row[1])) for row in rows]


def dead_workers(*, timeout_us: int) -> Flow[list[int] | None]:
    """Return the ids of dead workers that hold jobs; None if there is no job without a live one.

    The list is empty if a job runs that no worker holds, after a change by hand.
    """
    holders = yield from _holders()
    dead = yield from _dead(holders, timeout_us)
    return None if dead is None else [worker_id for worker_id, _ in dead]


@dataclass(frozen=True, slots=True)
class _Holders:
    """Who holds running jobs, by id; None stands for jobs that no worker holds."""

    held: Mapping[int | None, int]  # how many jobs
    partitions: Mapping[int | None, Sequence[int]]  # in which they are

    @property
    def known(self) -> list[int]:
        """The ids of the workers."""
        return [worker_id for worker_id in self.held if worker_id is not None]

    def places_of(self, dead: Iterable[int]) -> list[int]:
        """Return the partitions of the jobs that these workers hold, and of those of none."""
        return sorted(
            {each for holder in (*dead, None) for each in self.partitions.get(holder, ())}
        )


def _holders() -> Flow[_Holders]:
    """Return who holds running jobs.

    Asked before which workers are alive: a worker is entered before it claims, so that no new one
    is taken for dead.
    """
    rows = yield Request("running_workers")
    held: Counter[int | None] = Counter()
    partitions: defaultdict[int | None, list[int]] = defaultdict(list)
    for worker_id, number, partition in rows:
        held[worker_id] += number
        partitions[worker_id].append(partition)
    return _Holders(held, partitions)


def _dead(holders: _Holders, timeout_us: int) -> Flow[list[tuple[int, bool]] | None]:
    """Return those that are dead, and whether each was alone; None if all are alive."""
    known = holders.known
    rows: Rows = []
    if known:
        rows = yield Request("dead_workers", worker_ids=known, timeout_us=timeout_us)
    if not rows and None not in holders.held:
        return None
    return [(row[0], bool(row[1])) for row in rows]


def prune_workers(*, timeout_us: int) -> Flow[None]:
    """Forget dead workers that hold no job."""
    holders = yield from _holders()
    yield Request("prune_workers", timeout_us=timeout_us, busy_ids=holders.known)


def probe_partition() -> Flow[None]:
    """Ask the node that has a partition for something that costs nothing."""
    yield Request("probe_partition")


def abort_requests(worker_id: int) -> Flow[set[int]]:
    """Return the ids of this worker's jobs that are to be aborted."""
    rows = yield Request("abort_requests", worker_id=worker_id)
    return {int(row[0]) for row in rows}
