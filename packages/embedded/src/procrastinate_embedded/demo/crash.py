"""``--crash``: kill the worker half-way, note what it leaves, and prove what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from procrastinate_embedded.demo.tables import Tables
from procrastinate_embedded.demo.worker import WorkerProcess

LAST_WRITES_MAY_TAKE = 5.0  # seconds until the server has noticed that the worker is gone

HOLDING_MAY_TAKE = 5.0  # seconds until the worker has claimed more jobs

_HELD = "select count(*) from {schema}.procrastinate_jobs where status = 'doing'"

_SESSIONS = "select count(*) from pg_stat_activity where application_name = %(name)s::text"

_REMEMBER = """
create table {schema}.before_kill as
select id, status, attempts, worker_id, started_at, finished_at
from {schema}.procrastinate_jobs
"""

_LEFT_BEHIND = """
select
    count(*) filter (where status in ('succeeded', 'failed')),
    count(*) filter (where status = 'doing')
from {schema}.before_kill
"""

# A job that had ended must be exactly as it was, and its result stored no second time.
_PROOF = """
select
    count(*) filter (where had_ended),
    count(*) filter (where had_ended and (changed or times_stored > 1)),
    count(*) filter (where was_held),
    count(*) filter (where was_held and now_ended and worker_id <> old_worker_id),
    count(*) filter (where was_held and times_stored > 1)
from (
    select
        old.status in ('succeeded', 'failed') as had_ended,
        old.status = 'doing' as was_held,
        old.worker_id as old_worker_id,
        coalesce(job.status in ('succeeded', 'failed'), false) as now_ended,
        (job.status, job.attempts, job.worker_id, job.started_at, job.finished_at)
            is distinct from
            (old.status, old.attempts, old.worker_id, old.started_at, old.finished_at) as changed,
        job.worker_id,
        coalesce(result.times_stored, 0) as times_stored
    from {schema}.before_kill as old
    left join {schema}.procrastinate_jobs as job using (id)
    left join {schema}.files as file on file.job_id = old.id
    left join {schema}.results as result using (path)
) as compared
"""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """How many jobs had ended when the worker was killed, and how many it held."""

    ended: int
    held: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the jobs: numbers of jobs.

    Of those that had ended before the kill, how many ran again; of those that the killed worker
    held, how many another worker brought to their end, and how many it found stored already.
    """

    ended_before: int
    ran_again: int
    held: int
    recovered: int
    stored_twice: int

    @property
    def holds(self) -> bool:
        """Whether nothing ran again that had ended, and all that was held was recovered."""
        return self.ran_again == 0 and self.recovered == self.held


def kill_at(total: int) -> int:
    """Return after how many of the jobs the worker is to be killed."""
    return total // 2


def hold_at(total: int) -> int:
    """Return how many results a worker that is to be killed may store: it never gets to the end."""
    return max(kill_at(total), total * 3 // 4)


def kill(worker: WorkerProcess, tables: Tables) -> LeftBehind:
    """Kill the worker while it holds jobs, and note the state of all jobs."""
    _wait_until_it_holds_jobs(tables)
    worker.kill()
    _wait_for_last_writes(worker, tables)
    tables.query(_REMEMBER)
    ended, held = tables.one(_LEFT_BEHIND)
    return LeftBehind(ended, held)


def _wait_until_it_holds_jobs(tables: Tables) -> None:
    """Wait out a moment between two claims: later it holds jobs for good (`hold_at`)."""
    deadline = time.monotonic() + HOLDING_MAY_TAKE
    while tables.one(_HELD) == (0,) and time.monotonic() < deadline:
        time.sleep(0.002)


def _wait_for_last_writes(worker: WorkerProcess, tables: Tables) -> None:
    """Wait until the server has done what the dead worker had sent, and closed its sessions."""
    deadline = time.monotonic() + LAST_WRITES_MAY_TAKE
    while tables.one(_SESSIONS, name=worker.application_name) != (0,):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def proof(tables: Tables) -> Proof:
    """Compare all jobs with what was noted when the worker was killed."""
    return Proof(*tables.one(_PROOF))
