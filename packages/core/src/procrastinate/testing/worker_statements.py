"""The statements about workers and the schema, in Python: see `queue_statements`.

The in-memory schema always exists and is always at the latest version.
"""

from __future__ import annotations

import json
from dataclasses import replace

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.storage import schema
from procrastinate.testing.job_statements import stalled_jobs
from procrastinate.testing.queue_statements import (
    Function,
    Params,
)
from procrastinate.testing.settle_statements import entry, verdicts
from procrastinate.testing.values import JobRow, WorkerRow, claimed_columns, errors_after, interval
from procrastinate.testing.view import View


def register_worker(view: View, p: Params) -> Rows:
    worker = WorkerRow(view.next_worker_id(), p["name"], view.now, view.now, *_about(p))
    view.write_worker(worker)
    return [(worker.id,)]


def describe_worker(view: View, p: Params) -> Rows:
    worker = view.worker(p["worker_id"])
    if worker is not None:
        host, concurrency, task_names = _about(p)
        view.write_worker(
            replace(worker, host=host, concurrency=concurrency, task_names=task_names)
        )
    return []


def _about(p: Params) -> tuple[str | None, int | None, list[str] | None]:
    return p["host"], p["concurrency"], p["task_names"]


def heartbeat(view: View, p: Params) -> Rows:
    worker = view.worker(p["worker_id"])
    reborn = worker is None
    worker = worker or WorkerRow(p["worker_id"], p["name"], view.now, view.now)
    view.write_worker(replace(worker, last_heartbeat=view.now, alone=None))
    since = view.now - interval(p["timeout_us"])
    others = [each.id for each in view.workers() if each.last_heartbeat >= since]
    others = [each for each in others if each != worker.id]
    rank = len([each for each in others if each < worker.id])
    return [(reborn, rank, len(others) + 1, view.now)]


def notify_listener(view: View, p: Params) -> Rows:
    return [(view.notify(p["channel"], ""),)]


def unregister_worker(view: View, p: Params) -> Rows:
    if view.worker(p["worker_id"]) is not None:
        view.delete_worker(p["worker_id"])
    return []


def stalled_ids(view: View, p: Params) -> Rows:
    return [(job.id,) for job in stalled_jobs(view, p)[: p["limit"]]]


def judge_workers(view: View, p: Params) -> Rows:
    before = view.now - interval(p["timeout_us"])
    workers = view.workers()  # as they were before this statement
    for worker in workers:
        if worker.alone is None and worker.last_heartbeat < before:
            held = [j for j in view.active_jobs(Status.DOING) if j.worker_id == worker.id]
            together = any(_died_together(worker, other, p) for other in workers)
            view.write_worker(replace(worker, alone=len(held) == 1 and not together))
    return []


def _died_together(worker: WorkerRow, other: WorkerRow, p: Params) -> bool:
    apart = abs(other.last_heartbeat - worker.last_heartbeat)
    same_host = worker.host is not None and worker.host == other.host
    return same_host and other.id != worker.id and apart <= interval(p["moment_us"])


def recover_jobs(view: View, p: Params) -> Rows:
    ids = p["ids"]
    stalled = [job for job in stalled_jobs(view, p) if ids is None or job.id in ids]
    lost = [replace(job, crashes=job.crashes + 1) for job in view.unlocked(stalled)[: p["limit"]]]
    status_of = verdicts(view, [(job, _wanted(view, job, p)) for job in lost])
    recovered = [view.write_job(_recovered(view, p, job, status_of[job.id])) for job in lost]
    view.wake(job.queue_name for job in recovered if job.status is Status.TODO)
    return [(job.id, job.status.value, job.queue_name, job.task_name) for job in recovered]


def _wanted(view: View, job: JobRow, p: Params) -> Status:
    worker = None if job.worker_id is None else view.worker(job.worker_id)
    alone = worker is not None and bool(worker.alone)
    fails = job.crashes >= p["most_crashes"] or (job.crashes >= p["crash_limit"] and alone)
    return Status.FAILED if fails else Status.TODO


def _recovered(view: View, p: Params, job: JobRow, verdict: Status) -> JobRow:
    if verdict is Status.TODO:
        return replace(job, status=verdict, worker_id=None, finished_at=None)
    message = json.loads(p["why_lost"])[verdict.value].replace("{crashes}", str(job.crashes))
    added = entry(view, job, p["lost_type"], message)
    errors = errors_after(job.errors, added)
    return replace(job, status=verdict, finished_at=view.now, errors=errors)


def fail_unknown(view: View, p: Params) -> Rows:
    first = view.now - interval(p["patience_us"])
    since = view.now - interval(p["timeout_us"])
    known = [each.task_names for each in view.workers() if each.last_heartbeat >= since]
    failed: list[JobRow] = []
    for job in view.active_jobs(Status.TODO):
        waited = job.unknown_since is not None and job.unknown_since <= first
        if waited and not any(names is None or job.task_name in names for names in known):
            failed.append(job)
    failed = sorted(view.unlocked(failed), key=lambda job: job.id)[: p["limit"]]
    for job in failed:
        added = entry(view, job, p["unknown_type"], p["why_unknown"])
        errors = errors_after(job.errors, added)
        view.write_job(
            replace(job, status=Status.FAILED, hold=None, finished_at=view.now, errors=errors)
        )
    return [(job.id, "failed", job.queue_name, job.task_name, job.lock) for job in failed]


def prune_workers(view: View, p: Params) -> Rows:
    before = view.now - interval(p["timeout_us"])
    busy = {job.worker_id for job in view.active_jobs(Status.DOING)}
    for worker in view.workers():
        if worker.last_heartbeat < before and worker.id not in busy:
            view.delete_worker(worker.id)
    return []


def abort_requests(view: View, p: Params) -> Rows:
    running = view.active_jobs(Status.DOING)
    return [(job.id,) for job in running if job.worker_id == p["worker_id"] and job.abort_requested]


def held_jobs(view: View, p: Params) -> Rows:
    running = view.active_jobs(Status.DOING)
    return [claimed_columns(job) for job in running if job.worker_id == p["worker_id"]]


# --- schema --------------------------------------------------------------------------------------


def migrations_table(view: View, p: Params) -> Rows:
    return [(True,)]


def schema_exists(view: View, p: Params) -> Rows:
    return [(True,)]


def list_migrations(view: View, p: Params) -> Rows:
    return [(each.version, each.compatible_from) for each in schema.migrations()]


def ping(view: View, p: Params) -> Rows:
    return [(1,)]


def nothing(view: View, p: Params) -> Rows:
    """For what the schema in memory has no need of."""
    return []


_FUNCTIONS: tuple[Function, ...] = (
    register_worker,
    describe_worker,
    heartbeat,
    unregister_worker,
    notify_listener,
    judge_workers,
    recover_jobs,
    stalled_ids,
    fail_unknown,
    prune_workers,
    abort_requests,
    held_jobs,
    migrations_table,
    schema_exists,
    list_migrations,
    ping,
)

STATEMENTS: dict[str, Function] = {
    **{function.__name__: function for function in _FUNCTIONS},
    "lock_migrations": nothing,
    "record_migration": nothing,
    "create_schema": nothing,
}
