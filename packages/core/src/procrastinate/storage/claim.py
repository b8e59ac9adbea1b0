"""Flows by which a worker gets jobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from procrastinate import json_codec
from procrastinate.connector import Row, Rows, Value
from procrastinate.drive import Flow, Request
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.claiming.scans import PROMOTED_AT_ONCE
from procrastinate.model.job import Job
from procrastinate.model.queues import NO_PAUSES, Pauses
from procrastinate.storage.news import tell
from procrastinate.storage.rows import ARGS, CRASHES, Loads, claimed_job

#: The shapes of a scan's text, by the number of its queues: see ``claim.sql``.
OF_ONE, OF_ONE_WARY = "of_one", "of_one_wary"
OF_SEVERAL, OF_MANY = "of_several", "of_many"
MET = -2  # the place of a count in the row about a claim
FEW = 10  # jobs: a wary scan of no more locks them before it knows whether they have locks
FEW_QUEUES = 3
LOCKED_TO_SPARE = 4  # jobs
ROWS_OF_SEVERAL = 1_000  # index rows: reading these takes as long as planning `of_many` does


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought: the jobs, in order, and what it saw on the way.

    ``parked`` counts the jobs that it put aside because of their locks, ``left`` those that it left
    because it takes none that have a lock, ``undecided`` those that another transaction was just
    deciding about. ``unreadable`` maps a job's id to the error of ``json_loads``: such a job has no
    arguments. ``suspects`` are jobs that have lost a worker. ``none_ready`` says that a scan of a
    level met no job, and that none is ready in its queues.
    """

    jobs: list[Job]
    parked: int = 0
    left: int = 0
    undecided: int = 0
    unreadable: dict[int, BaseException] = field(default_factory=dict)
    suspects: frozenset[int] = frozenset()
    none_ready: bool = False

    def __add__(self, later: Claim) -> Claim:
        return Claim(
            sorted(self.jobs + later.jobs, key=_place) if self.jobs else later.jobs,
            self.parked + later.parked,
            later.left,
            later.undecided,
            {**self.unreadable, **later.unreadable},
            self.suspects | later.suspects,
        )


def _place(job: Job) -> tuple[int, int]:
    return -job.priority, job.id


@dataclass(frozen=True, slots=True)
class Promotion:
    """How many scheduled jobs became ready, and the seconds until the next one does, if any."""

    count: int
    seconds_to_next: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in a partition, as a sweep saw it."""

    partition: int
    ready: int  # jobs that the worker may claim
    elsewhere: int  # ready jobs for other workers: in other queues, or of tasks that it lacks
    seconds_to_next: float | None  # until the next scheduled job is due, if there is one
    queue: str | None = None  # that of all the jobs that the worker may claim, if it is one


def sweep(
    *,
    queues: Sequence[str] | None,
    unknown_names: Sequence[str] = (),
    paused: Pauses = NO_PAUSES,
) -> Flow[list[Waiting]]:
    """Look at all partitions, for a worker of these queues (None: of all)."""
    names = None if queues is None else list(queues)
    rows = yield Request("sweep", queue_names=names, **left_out(unknown_names), **unpaused(paused))
    return [
        Waiting(partition, ready, elsewhere, None if due_us is None else due_us / 1e6, queue)
        for partition, ready, elsewhere, due_us, queue in rows
    ]


def announce(partitions: Sequence[int]) -> Flow[None]:
    """Tell all workers that jobs of some queues are ready in these partitions."""
    payloads = [f"@{partition}" for partition in partitions]
    yield Request("notify", channels=["procrastinate_jobs"] * len(payloads), payloads=payloads)


def ready_queues() -> Flow[list[str]]:
    """Return the names of all queues that have a ready job."""
    rows = yield Request("ready_queues")
    return [row[0] for row in rows]


def is_anything_ready(
    *,
    queues: Sequence[str] | None,
    unknown_names: Sequence[str] = (),
    paused: Pauses = NO_PAUSES,
) -> Flow[bool]:
    """Return whether a job of another name is ready in these queues (None: in any)."""
    if queues is None:
        queues = paused.running((yield from ready_queues()))
        if not unknown_names:
            return bool(queues)
    queues = paused.running(queues)
    ((found,),) = yield Request("any_ready", queue_names=list(queues), **left_out(unknown_names))
    return bool(found)


def left_out(names: Sequence[str]) -> dict[str, Value]:
    """Return the parameter that keeps a claim from jobs of these tasks, if there are any."""
    return {"unknown_names": list(names)} if names else {}


def unpaused(paused: Pauses) -> dict[str, Value]:
    """Return the parameter that keeps a statement from jobs of paused queues, if there are any."""
    return {"paused": paused.names} if paused else {}


def claim(
    scan: Scan,
    *,
    worker_id: int,
    loads: Loads,
    served: Sequence[str] | None = None,
    unknown_names: Sequence[str] = (),
    paused: Pauses = NO_PAUSES,
    makes_slots: bool = False,
) -> Flow[Claim]:
    """Claim what a scan is about, but no job of the tasks that the worker does not know.

    ``served`` are all queues that the worker serves (None: all there are). The line of a lock runs
    through them, whichever are scanned, but past the jobs of ``paused`` queues; of these none is to
    be scanned (`Scan.without`). With ``makes_slots``, for distributed databases, it first
    makes the slots of the locks that it will meet; and if it meets no job in a level, it asks
    whether any is ready, which takes a coordinator half as long as a full scan that finds none.
    """
    shape = _shape(scan)
    unknown = left_out(unknown_names)
    params = _params(scan, shape, worker_id, served, paused)
    if makes_slots and scan.with_locks:
        yield _make_slots(scan, shape, unknown)
    rows = yield Request(_statement(scan, shape), **params, **unknown)
    found = _claim_from(rows, scan, worker_id, loads)
    met = rows[0][MET]
    asks = (Kind.FULL, Kind.LEVEL) if makes_slots else (Kind.FULL,)
    if met or shape != OF_ONE or scan.kind not in asks:
        return found
    ((ready,),) = yield Request("any_ready", queue_names=list(scan.queues), **unknown)
    if scan.kind is Kind.LEVEL:
        return replace(found, none_ready=not ready)
    return replace(found, undecided=ready)


def _shape(scan: Scan) -> str:
    """Return which text of a statement has the best plan: see ``claim.sql``."""
    queues = len(scan.queues)
    if queues == 1 and scan.scanned <= scan.limit:
        looks_first = scan.wary and scan.limit > FEW and not scan.with_locks
        return OF_ONE_WARY if looks_first else OF_ONE
    few = queues <= FEW_QUEUES or queues * max(scan.limit, scan.scanned) <= ROWS_OF_SEVERAL
    return OF_SEVERAL if few else OF_MANY


def _statement(scan: Scan, shape: str) -> str:
    kind = "level" if scan.kind is Kind.LEVEL else "full"
    return f"claim_{kind}_{shape}" if scan.with_locks else f"claim_unlocked_{kind}_{shape}"


def _params(
    scan: Scan, shape: str, worker_id: int, served: Sequence[str] | None, paused: Pauses
) -> dict[str, Value]:
    params: dict[str, Value] = {"worker_id": worker_id, "limit": scan.limit}
    if scan.kind is Kind.LEVEL:
        params["priority"] = scan.priority
    else:
        params["above"] = scan.priority
    if scan.with_locks:
        params |= {"served": served and list(served), "queue_names": list(scan.queues)}
        params |= unpaused(paused)
    if shape in (OF_ONE, OF_ONE_WARY):
        if scan.kind is Kind.LEVEL:
            params["low"] = scan.lows[0]
        return params | {"queue_name": scan.queues[0]}
    params |= {"queue_names": list(scan.queues), "scanned": _scanned(scan, shape)}
    params["lows"] = list(scan.lows) or [0] * len(scan.queues)
    if shape == OF_MANY:
        return params | {"share": _share(_scanned(scan, shape), len(scan.queues))}
    return params | {"each": _scanned(scan, shape) if scan.with_locks else scan.limit}


def _make_slots(scan: Scan, shape: str, unknown: dict[str, Value]) -> Request:
    is_level = scan.kind is Kind.LEVEL
    return Request(
        "make_slots_level" if is_level else "make_slots_full",
        queue_names=list(scan.queues),
        lows=list(scan.lows) or [0] * len(scan.queues),
        scanned=_scanned(scan, shape),
        **{"priority" if is_level else "above": scan.priority},
        **unknown,
    )


def _scanned(scan: Scan, shape: str) -> int:
    """Return how many jobs to choose from.

    Some are to spare, because other workers may just be claiming the first ones. With locks fewer,
    because the head of each lock's line is looked for, and of many queues fewer, because a share
    of each is read. (Of 1,000 queues with twice as many to choose from: 10.2 ms instead of 8.3.)
    """
    spare = scan.limit
    if scan.with_locks:
        spare = LOCKED_TO_SPARE
    elif shape == OF_MANY:
        spare = scan.limit // 4
    return max(scan.limit + spare, scan.scanned)


def _share(scanned: int, queues: int) -> int:
    """Return how many jobs to read of each queue at first.

    If jobs are spread over many queues at random, few queues have as many more than their share.
    """
    share = scanned / queues
    return min(scanned, math.ceil(share + 2 * math.sqrt(share)))


def _claim_from(rows: Rows, scan: Scan, worker_id: int, loads: Loads) -> Claim:
    *_, aside, met, moment_us = rows[0]
    claimed = rows[1:]
    filled = len(claimed) == scan.limit
    parked = aside if scan.with_locks else 0
    left = 0 if scan.with_locks or filled else aside
    undecided = 0 if filled else max(0, met - aside - len(claimed))
    jobs, unreadable, suspects = begun(claimed, moment_us, worker_id, loads)
    return Claim(jobs, parked, left, undecided, unreadable, suspects)


def begun(
    claimed: Rows, moment_us: int, worker_id: int, loads: Loads
) -> tuple[list[Job], dict[int, BaseException], frozenset[int]]:
    """Return the jobs that a worker has begun, and of these the unreadable ones and the suspects.

    See `Claim`. ``moment_us`` is the time of all, in microseconds since the epoch.
    """
    unreadable: dict[int, BaseException] = {}
    arguments = _decoded(claimed, loads, unreadable)
    same = map(itertools.repeat, (worker_id, datetime.fromtimestamp(moment_us / 1e6, UTC)))
    jobs = list(map(claimed_job, claimed, arguments, *same))
    suspects = frozenset([row[0] for row in claimed if row[CRASHES] is not None])
    return jobs, unreadable, suspects


def _decoded(
    columns: Sequence[Row], loads: Loads, unreadable: dict[int, BaseException]
) -> Sequence[Any]:
    """Return the arguments of a claim's jobs; those that cannot be decoded spoil no other's."""
    together = _decoded_together(columns, loads)
    if together is not None:
        return together
    arguments: list[Any] = []
    for row in columns:
        try:
            arguments.append(loads(row[ARGS]))
        except BaseException as exc:  # a json_loads of the user's own may raise anything
            unreadable[row[0]] = exc
            arguments.append({})
    return arguments


def _decoded_together(columns: Sequence[Row], loads: Loads) -> list[Any] | None:
    """Decode all arguments of a claim as one array: 0.2 µs for a job, and 1.6 one by one.

    Returns None if the decoder is the user's, which gets them one by one, or if ours refuses one of
    them (an integer of thousands of digits).
    """
    if loads is not json_codec.loads:
        return None
    try:
        decoded: list[Any] = loads(f"[{','.join([row[ARGS] for row in columns])}]")
    except Exception:
        return None
    return decoded


def held_jobs(*, worker_id: int) -> Flow[list[Job]]:
    """Return the jobs that a worker holds, as the database sees it, without their arguments."""
    rows = yield Request("held_jobs", worker_id=worker_id)
    return [claimed_job(row, {}, worker_id, None) for row in rows]


def promote_due() -> Flow[Promotion]:
    """Make scheduled jobs ready whose time has come."""
    rows = yield Request("promote_due", limit=PROMOTED_AT_ONCE)
    yield from tell(rows, 3)
    count, microseconds, *_ = rows[0]
    if count == PROMOTED_AT_ONCE:
        return Promotion(count, 0.0)  # there may be more
    return Promotion(count, None if microseconds is None else max(0.0, microseconds / 1e6))
