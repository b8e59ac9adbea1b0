"""Flows by which a worker gets jobs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from procrastinate import json_codec
from procrastinate.connector import Query, Row, Rows, Value
from procrastinate.drive import Flow
from procrastinate.model.job import Job
from procrastinate.model.scans import PROMOTED_AT_ONCE, Mark
from procrastinate.storage.rows import ARGS, CRASHES, Loads, claimed_job
from procrastinate.storage.statements import Statements


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought: the jobs, in order, and what it saw on the way.

    ``parked`` counts the jobs that it put aside because of their locks, ``left`` those that it left
    because it takes none that have a lock, ``undecided`` those that another transaction was just
    deciding about. ``unreadable`` maps a job's id to the error of ``json_loads``: such a job has no
    arguments. ``suspects`` are jobs that have lost a worker.
    """

    jobs: list[Job]
    parked: int = 0
    left: int = 0
    undecided: int = 0
    unreadable: dict[int, BaseException] = field(default_factory=dict)
    suspects: frozenset[int] = frozenset()

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


def ready_queues(sql: Statements) -> Flow[list[str]]:
    """Return the names of all queues that have a ready job."""
    rows = yield sql("ready_queues")
    return [row[0] for row in rows]


def is_anything_ready(sql: Statements, *, queues: Sequence[str] | None) -> Flow[bool]:
    """Return whether a job is ready in these queues (None: in any)."""
    if queues is None:
        return bool((yield from ready_queues(sql)))
    ((found,),) = yield sql("any_ready", queue_names=list(queues))
    return bool(found)


def claim_full(
    sql: Statements,
    *,
    queues: Sequence[str],
    worker_id: int,
    limit: int,
    loads: Loads,
    served: Sequence[str] | None = None,
    unlocked_only: bool = False,
    scanned: int = 0,
) -> Flow[Claim]:
    """Claim up to ``limit`` ready jobs of these queues.

    ``served`` are all queues that the worker serves (None: all there are): the line of a lock runs
    through them, whichever are scanned. More than ``limit`` may be ``scanned``, so that more are
    parked whose locks are taken.
    """
    marks: dict[str, Mark | None] = dict.fromkeys(queues)
    if unlocked_only:
        rows = yield _unlocked(sql, "claim_unlocked_full", marks, worker_id, limit)
    else:
        rows = yield sql(
            "claim_full",
            served=served and list(served),
            scanned=max(limit, scanned),
            **_params(marks, worker_id, limit),
        )
    found = _claim_from(rows, worker_id, loads, unlocked_only=unlocked_only)
    if found.jobs or found.parked or found.left or found.undecided:
        return found
    ((undecided,),) = yield sql("any_ready", queue_names=list(marks))
    return replace(found, undecided=undecided)


def claim_marked(
    sql: Statements,
    *,
    marks: Mapping[str, Mark],
    worker_id: int,
    limit: int,
    loads: Loads,
    served: Sequence[str] | None = None,
    unlocked_only: bool = False,
) -> Flow[Claim]:
    """Claim up to ``limit`` ready jobs above the marks of their queues; see `claim_full`.

    Where it meets none, it does not ask whether others are just deciding about all that there are:
    that takes a walk from the queue's first entry, which marks are there to save.
    """
    if unlocked_only:
        rows = yield _unlocked(sql, "claim_unlocked_marked", marks, worker_id, limit)
    else:
        rows = yield sql(
            "claim_marked",
            served=served and list(served),
            scanned=limit,
            **_params(marks, worker_id, limit),
        )
    return _claim_from(rows, worker_id, loads, unlocked_only=unlocked_only)


def _unlocked(
    sql: Statements,
    statement: str,
    marks: Mapping[str, Mark | None],
    worker_id: int,
    limit: int,
) -> Query:
    if len(marks) != 1:
        return sql(statement, **_params(marks, worker_id, limit))
    ((queue, mark),) = marks.items()
    params: dict[str, Value] = {"queue_name": queue, "worker_id": worker_id, "limit": limit}
    if mark is not None:
        params |= {"mark_priority": mark.priority, "mark_id": mark.low}
    return sql(f"{statement}_of_one", **params)


def _params(marks: Mapping[str, Mark | None], worker_id: int, limit: int) -> dict[str, Value]:
    return {
        "queue_names": list(marks),
        "mark_priorities": [None if mark is None else mark.priority for mark in marks.values()],
        "mark_ids": [None if mark is None else mark.low for mark in marks.values()],
        "worker_id": worker_id,
        "limit": limit,
    }


def _claim_from(rows: Rows, worker_id: int, loads: Loads, *, unlocked_only: bool) -> Claim:
    unreadable: dict[int, BaseException] = {}
    *_, aside, undecided, moment = rows[0]
    parked, left = (0, aside) if unlocked_only else (aside, 0)
    claimed = rows[1:]
    arguments = _decoded(claimed, loads, unreadable)
    same = map(itertools.repeat, (worker_id, datetime.fromtimestamp(moment, UTC)))
    jobs = list(map(claimed_job, claimed, arguments, *same))
    suspects = frozenset(row[0] for row in claimed if row[CRASHES] is not None)
    return Claim(jobs, parked, left, undecided, unreadable, suspects)


def _decoded(
    columns: Sequence[Row], loads: Loads, unreadable: dict[int, BaseException]
) -> Sequence[Any]:
    """The arguments of a claim's jobs; what cannot be decoded must not spoil the others' claim."""
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
    """All arguments of a claim as one array: 0.2 µs for a job, and 1.6 one by one.

    None where a decoder of the user's own wants them one by one, or one of them is too much for
    ours (an integer of thousands of digits).
    """
    if loads is not json_codec.loads:
        return None
    try:
        decoded: list[Any] = loads(f"[{','.join([row[ARGS] for row in columns])}]")
    except Exception:
        return None
    return decoded


def held_jobs(sql: Statements, *, worker_id: int) -> Flow[list[Job]]:
    """Return the jobs that a worker holds, as the database sees it, without their arguments."""
    rows = yield sql("held_jobs", worker_id=worker_id)
    return [claimed_job(row, {}, worker_id, None) for row in rows]


def promote_due(sql: Statements) -> Flow[Promotion]:
    """Make scheduled jobs ready whose time has come."""
    rows = yield sql("promote_due", limit=PROMOTED_AT_ONCE)
    count, microseconds, _ = rows[0]
    if count == PROMOTED_AT_ONCE:
        return Promotion(count, 0.0)  # there may be more
    return Promotion(count, None if microseconds is None else max(0.0, microseconds / 1e6))
