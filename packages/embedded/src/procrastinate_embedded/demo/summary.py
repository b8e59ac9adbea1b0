"""What came of the jobs, asked of the database: one job, and one result, for every file."""

from __future__ import annotations

from dataclasses import dataclass

from procrastinate_embedded.demo.tables import Tables

# One row for each file: what became of it. A file is lost unless its job succeeded and its
# result is there, or its job failed and the error is stored.
_OUTCOME = """
outcome as (
    select
        file.path, job.status, job.errors, job.attempts,
        job.deferred_at, job.started_at, job.finished_at, result.size, result.lines,
        coalesce(job.status = 'succeeded' and result.path is not null, false) as is_done,
        coalesce(job.status = 'failed' and jsonb_array_length(job.errors) > 0, false) as is_failed
    from {schema}.files as file
    left join {schema}.procrastinate_jobs as job on job.id = file.job_id
    left join {schema}.results as result using (path)
)
"""

_NUMBERS = f"""
with {_OUTCOME}
select
    count(*),
    count(*) filter (where is_done),
    count(*) filter (where is_failed),
    coalesce(sum(size) filter (where is_done), 0)::bigint,
    coalesce(sum(lines) filter (where is_done), 0)::bigint,
    coalesce(sum(jsonb_array_length(errors)), 0)::bigint - count(*) filter (where is_failed),
    extract(epoch from max(finished_at) - min(started_at))::float8
from outcome
"""

_TIMES = f"""
with {_OUTCOME},
seconds as (
    select
        extract(epoch from started_at - deferred_at)::float8 as waiting,
        extract(epoch from finished_at - started_at)::float8 as running
    from outcome
    where is_done
)
select
    percentile_cont(0.5) within group (order by waiting),
    percentile_cont(0.99) within group (order by waiting),
    percentile_cont(0.5) within group (order by running),
    percentile_cont(0.99) within group (order by running)
from seconds
"""

_FAILURES = f"""
with {_OUTCOME}
select path, attempts, errors->-1->>'type', errors->-1->>'message'
from outcome where is_failed order by path limit %(limit)s::integer
"""

_LOST = f"""
with {_OUTCOME}
select path, coalesce(status::text, 'no job')
from outcome where not is_done and not is_failed order by path limit %(limit)s::integer
"""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: the median and the 99th percentile of waiting and running; None without jobs."""

    waiting_p50: float | None
    waiting_p99: float | None
    running_p50: float | None
    running_p99: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of files, what was in those that were read, and how long it took (seconds)."""

    times: Times
    files: int
    done: int
    failed: int
    bytes_read: int
    lines: int
    retries: int
    seconds: float | None

    @property
    def lost(self) -> int:
        """Files that were neither read nor have a failed job that says why."""
        return self.files - self.done - self.failed


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be read: its encoded path, and its job's last error."""

    path: str
    attempts: int
    kind: str
    message: str


def summary(tables: Tables) -> Summary:
    """Return what came of all files."""
    return Summary(Times(*tables.one(_TIMES)), *tables.one(_NUMBERS))


def failures(tables: Tables, limit: int) -> list[Failure]:
    """Return the first of the files that could not be read."""
    return [Failure(*row) for row in tables.query(_FAILURES, limit=limit)]


def lost_files(tables: Tables, limit: int) -> list[tuple[str, str]]:
    """Return the first of the lost files: encoded path, and the status of the job."""
    return [(path, status) for path, status in tables.query(_LOST, limit=limit)]
