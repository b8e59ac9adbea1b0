"""Flows that write what became of attempts. All are fenced by (worker, lease).

If the end of a job sets something going, its flow needs a transaction: giving a lock up and passing
it on are statements of their own (see `procrastinate.storage.locks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from procrastinate.connector import Rows, Value
from procrastinate.drive import Flow, Request
from procrastinate.model import checks
from procrastinate.model.endings.outcome import (
    ABORTED_TYPE,
    LONGEST_BOUNCE,
    NO_CHANGES,
    SUCCEEDED,
    UNSTARTED,
    WHY_ABORTED,
    Outcome,
    Requeued,
    Standing,
)
from procrastinate.model.endings.results import RETURNED_NOTHING
from procrastinate.model.job import Job, Status, those_that_set_going
from procrastinate.model.text import json_text
from procrastinate.storage import locks
from procrastinate.storage.news import tell
from procrastinate.storage.statements import PATIENCE_MS
from procrastinate.storage.waking import wake_if_awaited

Dumps = Callable[[Any], str]
#: Says of a task, by its name, whether it keeps results.
Keeps = Callable[[str], bool]

#: Endings that are written by a plan that is kept. It compares each with each: more are planned
#: for, with a plan that knows how many there are. (On a cluster their node plans all of them.)
FEW = 20
ANEW = {"plan_cache_mode": "auto", "enable_seqscan": "on"}
_SUCCEEDED = SUCCEEDED.status
_ERROR = attrgetter("outcome.error")
_LONGEST_BOUNCE_US = checks.microseconds(LONGEST_BOUNCE)
#: The outcomes that most batches hold, each with the statement that writes nothing else.
_STATEMENT_FOR = (
    (SUCCEEDED, "finish_jobs"),
    (RETURNED_NOTHING, "finish_jobs_that_returned_nothing"),
)


@dataclass(slots=True)
class Ended:
    """An attempt that is over: what becomes of it, and when it began and ended.

    Both times are seconds of a monotonic clock; ``began`` is 0 if the task was not called. If
    ``kept``, the task keeps results, so ``delete_jobs`` leaves its job.
    """

    job: Job
    outcome: Outcome
    began: float = 0.0
    ended: float = 0.0
    kept: bool = False

    #: The status that the job is to have. (Found without a call of Python's, because each part of
    #: the worker that counts endings asks for it.)
    status = property(attrgetter("outcome.status"))

    @property
    def duration(self) -> float | None:
        """Seconds that the attempt took; None if its task was not called."""
        return self.ended - self.began if self.began else None

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The entry for `Job.errors`, if the attempt failed."""
        return self.outcome.error


@dataclass(frozen=True, slots=True)
class Settled:
    """What a write changed: the new status of each job, by id; None: it was removed.

    ``standings`` are the rows of those that it did not change, by id, as far as they exist.
    ``passed`` is what the commit notifies of because of locks that were given up.
    """

    changed: dict[int, Status | None]
    standings: dict[int, Standing] = field(default_factory=dict)
    passed: Sequence[str] = ()


def keeps_none(task_name: str) -> bool:
    """Say of each task that it keeps no results."""
    return False


def handed_back(job: Job, keeps: Keeps = keeps_none) -> Ended:
    """Return the end of a claim whose task was not called: its job goes back untouched."""
    return Ended(job, UNSTARTED, kept=keeps(job.task_name))


def settle(
    ended: Sequence[Ended],
    *,
    now: float,
    worker_id: int,
    dumps: Dumps,
    delete_ended: bool = False,
    patience_ms: int = PATIENCE_MS,
) -> Flow[Settled]:
    """Write what became of a batch of attempts.

    ``now`` is what the clock of the attempts' times says: the server is told their ages. A batch of
    which all have succeeded takes the statement `finish_jobs`, any other `settle_jobs`; if anything
    is to be kept of what tasks returned, that of the same name ``with_results``, or
    `finish_jobs_that_returned_nothing` if each returned None. With ``delete_ended`` the jobs
    that this ends are removed, unless their tasks keep results: also one that was to go back, and
    was cancelled or aborted instead.

    A twin with the same queueing lock that is committed while the statement runs raises
    `UniqueViolation`; run the flow again then: it sees the twin and ends the job as cancelled.
    """
    if (statement := _statement_for_all(ended)) is not None:
        changed = yield from _write_successes(statement, ended, {}, now, worker_id, patience_ms)
    elif have_succeeded(ended) and not any(map(_ERROR, ended)):
        said = results(ended)
        statement = with_results("finish_jobs", said)
        changed = yield from _write_successes(statement, ended, said, now, worker_id, patience_ms)
    else:
        rows = yield _with_patience(patience_ms, _settle_jobs(ended, now, worker_id, dumps))
        yield from tell(rows, 3)
        changed = {row[0]: Status(row[1]) for row in rows}
        yield from wake_if_awaited(rows, 2, _over(changed))
    if delete_ended:
        kept = {each.job.id for each in ended if each.kept}
        yield from delete_those([job_id for job_id in _over(changed) if job_id not in kept])
    return (yield from _settled(changed, ended))


def _statement_for_all(ended: Sequence[Ended]) -> str | None:
    """Return the statement for the outcome that all of these have, if there is one."""
    if not ended:
        return _STATEMENT_FOR[0][1]
    common = only_outcome(ended)
    return next((statement for outcome, statement in _STATEMENT_FOR if outcome is common), None)


def have_succeeded(ended: Sequence[Ended]) -> bool:
    """Whether all of these have succeeded, with a result or without."""
    return not [each for each in ended if each.outcome.status is not _SUCCEEDED]


def only_outcome(ended: Sequence[Ended]) -> Outcome | None:
    """Return the outcome that all of these share, as one object; None if there is no such thing."""
    first = ended[0].outcome
    if ended[-1].outcome is not first:  # as with results, of which each is an object
        return None
    return None if [each for each in ended if each.outcome is not first] else first


def _over(changed: Mapping[int, Status | None]) -> list[int]:
    """Return the ids of the jobs that a write has ended."""
    return [job_id for job_id, status in changed.items() if status is None or status.is_final]


def _write_successes(
    statement: str,
    ended: Sequence[Ended],
    kept: Mapping[str, Value],
    now: float,
    worker_id: int,
    patience_ms: int,
) -> Flow[dict[int, Status | None]]:
    """Write that jobs have succeeded, and return their new statuses by id."""
    request = Request(statement, **held(ended, worker_id), **ages(ended, now), **kept)
    rows = yield _with_patience(patience_ms, request, **(ANEW if len(ended) > FEW else {}))
    changed: dict[int, Status | None] = dict.fromkeys([row[0] for row in rows], Status.SUCCEEDED)
    yield from wake_if_awaited(rows, 1, list(changed))
    return changed


def _settle_jobs(
    ended: Sequence[Ended],
    now: float,
    worker_id: int,
    dumps: Dumps,
) -> Request:
    outcomes = [each.outcome for each in ended]
    kept = results(ended)
    requeued = [each if isinstance(each, Requeued) else None for each in outcomes]
    changes = [NO_CHANGES if each is None else each.changes for each in requeued]
    whens = [None if each is None else each.when for each in requeued]
    return Request(
        with_results("settle_jobs", kept),
        **held(ended, worker_id),
        wanted=[each.status.value for each in outcomes],
        begun=[int(each is None or each.begun) for each in requeued],
        unknown=[int(each is not None and each.unknown) for each in requeued],
        due_ats=[each.isoformat() if isinstance(each, datetime) else None for each in whens],
        delays_us=[
            checks.microseconds(each) if isinstance(each, timedelta) else None for each in whens
        ],
        priorities=[each.priority for each in changes],
        queue_names=[each.queue for each in changes],
        locks=[each.lock for each in changes],
        **ages(ended, now),
        errors=[None if each.error is None else dumps(each.error) for each in outcomes],
        longest_bounce_us=_LONGEST_BOUNCE_US,
        aborted_type=ABORTED_TYPE,
        why_aborted=WHY_ABORTED,
        **kept,
    )


def delete_finished(
    ended: Sequence[Ended], *, worker_id: int, patience_ms: int = PATIENCE_MS
) -> Flow[Settled]:
    """Remove jobs that ended."""
    request = Request("delete_finished", **held(ended, worker_id))
    rows = yield _with_patience(patience_ms, request)
    removed: dict[int, Status | None] = {row[0]: None for row in rows}
    yield from wake_if_awaited(rows, 1, list(removed))
    return (yield from _settled(removed, ended))


def hand_back(
    jobs: Sequence[Job],
    *,
    worker_id: int,
    delete_ended: bool = False,
    keeps: Keeps = keeps_none,
) -> Flow[Settled]:
    """Return claimed jobs to the queue whose tasks were not called. See `settle`."""
    return (
        yield from settle(
            [handed_back(job, keeps) for job in jobs],
            now=0.0,
            worker_id=worker_id,
            dumps=str,  # no error is written
            delete_ended=delete_ended,
        )
    )


def delete_those(ended: Sequence[int]) -> Flow[None]:
    """Remove jobs that have ended in the same transaction."""
    if ended:
        yield Request("delete_ended", ids=list(ended))


def needs_transaction(jobs: Sequence[Job]) -> bool:
    """Whether a flow that ends these jobs takes more than one statement."""
    return bool(those_that_set_going(jobs))


def set_going(job_ids: Sequence[int]) -> Flow[list[str]]:
    """Let begin what waits for the ends of these jobs: see `sets_going`. Needs a transaction.

    Returns what workers are notified of.
    """
    return locks.release(job_ids)


def _settled(changed: dict[int, Status | None], ended: Sequence[Ended]) -> Flow[Settled]:
    going = those_that_set_going([each.job for each in ended])
    awaited = [job.id for job in going if job.id in changed]
    passed = (yield from set_going(awaited)) if awaited else ()
    missing = [each.job.id for each in ended if each.job.id not in changed]
    if not missing:
        return Settled(changed, passed=passed)
    rows = yield Request("job_standings", ids=missing)
    return Settled(changed, _standings(rows), passed)


def _standings(rows: Rows) -> dict[int, Standing]:
    return {row[0]: Standing(Status(row[1]), *row[2:]) for row in rows}


def _with_patience(patience_ms: int, request: Request, **settings: str) -> Request:
    return request.under(lock_timeout=str(patience_ms), **settings)


def held(ended: Sequence[Ended], worker_id: int) -> dict[str, Value]:
    """Return the parameters that say which attempts have ended, and who held them."""
    ids = [each.job.id for each in ended]
    return {
        "ids": ids,
        "leases": [each.job.lease for each in ended],
        "worker_id": worker_id,
        "first_id": min(ids, default=0),
        "last_id": max(ids, default=0),
    }


def ages(ended: Sequence[Ended], now: float) -> dict[str, Value]:
    """Return the parameters that say how long ago attempts began and ended.

    One that failed before its task was called (no worker knows it) took no time.
    """
    return {
        "began_us": [int((now - (each.began or each.ended)) * 1e6) for each in ended],
        "ended_us": [int((now - each.ended) * 1e6) for each in ended],
    }


def results(ended: Sequence[Ended]) -> dict[str, Value]:
    """Return the parameters that say what tasks returned; none if nothing is to be kept.

    The results are one text. Nulls alone are one null, which the statement takes for as many as
    there are jobs.
    """
    texts = json_text.joined([each.outcome.result for each in ended])
    reasons = [each.outcome.result_error for each in ended]
    said = None if reasons.count(None) == len(reasons) else reasons
    return {} if texts is None and said is None else {"results": texts, "result_errors": said}


def with_results(statement: str, kept: Mapping[str, Value]) -> str:
    """Return the name of a statement that writes endings, or of the one that takes `results`."""
    return f"{statement}_with_results" if kept else statement
