"""The statements about workers and the schema.

The in-memory schema always exists and is always at the latest version.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from procrastinate.connector import Rows
from procrastinate.model.job import Status
from procrastinate.storage import schema
from procrastinate.storage.schema_definitions import definitions, traits
from procrastinate.storage.schema_functions import function_body, function_traits
from procrastinate.storage.schema_parts import parts
from procrastinate.testing._engine.finish import entry, verdicts
from procrastinate.testing._engine.jobs import stalled_jobs
from procrastinate.testing._engine.values import (
    JobRow,
    WorkerRow,
    claimed_columns,
    errors_after,
    interval,
)
from procrastinate.testing._engine.view import Function, Params, View


def register_worker(view: View, p: Params) -> Rows:
    worker = WorkerRow(view.next_worker_id(), p["name"], view.now, view.now, **_about(p))
    view.write_worker(worker)
    return [(worker.id,)]


def describe_worker(view: View, p: Params) -> Rows:
    worker = view.worker(p["worker_id"])
    if worker is not None:
        view.write_worker(replace(worker, **_about(p)))
    return []


def _about(p: Params) -> dict[str, Any]:
    names = ("host", "concurrency", "task_names", "pid", "version", "queues")
    return {name: p[name] for name in names}


def heartbeat(view: View, p: Params) -> Rows:
    worker = view.worker(p["worker_id"])
    if worker is None:
        return []
    view.write_worker(
        replace(
            worker,
            last_heartbeat=view.now,
            alone=None,
            busy=p["busy"],
            trusted=None if p["trusted"] is None else bool(p["trusted"]),
            blocked_since=None if p["blocked_us"] is None else view.now - interval(p["blocked_us"]),
        )
    )
    since = view.now - interval(p["timeout_us"])
    others = [each.id for each in view.workers() if each.last_heartbeat >= since]
    others = [each for each in others if each != worker.id]
    rank = len([each for each in others if each < worker.id])
    return [(rank, len(others) + 1, view.now)]


def enter_again(view: View, p: Params) -> Rows:
    worker = view.worker(p["worker_id"])
    worker = worker or WorkerRow(p["worker_id"], p["name"], view.now, view.now)
    view.write_worker(replace(worker, last_heartbeat=view.now))
    return []


def notify_listener(view: View, p: Params) -> Rows:
    return [(view.notify(p["channel"], ""),)]


def notify(view: View, p: Params) -> Rows:
    news = zip(p["channels"], p["payloads"], strict=True)
    return [(view.notify(channel, payload),) for channel, payload in news]


def unregister_worker(view: View, p: Params) -> Rows:
    if view.worker(p["worker_id"]) is not None:
        view.delete_worker(p["worker_id"])
    return []


def stalled_ids(view: View, p: Params) -> Rows:
    return [(job.id, 0) for job in stalled_jobs(view, p)[: p["limit"]]]


def running_workers(view: View, p: Params) -> Rows:
    held = Counter(job.worker_id for job in view.active_jobs(Status.DOING))
    return [(worker_id, number, 0) for worker_id, number in held.items()]


def judge_workers(view: View, p: Params) -> Rows:
    before = view.now - interval(p["timeout_us"])
    workers = view.workers()  # as they were before this statement
    held_by = dict(zip(p["worker_ids"], p["held"], strict=True))
    for worker in workers:
        if worker.id in held_by and worker.alone is None and worker.last_heartbeat < before:
            together = any(_died_together(worker, other, p) for other in workers)
            view.write_worker(replace(worker, alone=held_by[worker.id] == 1 and not together))
    return []


def dead_workers(view: View, p: Params) -> Rows:
    before = view.now - interval(p["timeout_us"])
    found = {worker.id: worker for worker in view.workers()}
    dead: list[tuple[int, bool]] = []
    for worker_id in p["worker_ids"]:
        worker = found.get(worker_id)
        if worker is None or worker.last_heartbeat < before:
            dead.append((worker_id, worker is not None and bool(worker.alone)))
    return list(dead)


def _died_together(worker: WorkerRow, other: WorkerRow, p: Params) -> bool:
    apart = abs(other.last_heartbeat - worker.last_heartbeat)
    may_share = None in (worker.host, other.host) or worker.host == other.host
    return may_share and other.id != worker.id and apart <= interval(p["moment_us"])


def recover_jobs(view: View, p: Params) -> Rows:
    ids = p["ids"]
    stalled = [job for job in stalled_jobs(view, p) if ids is None or job.id in ids]
    lost = [replace(job, crashes=job.crashes + 1) for job in view.unlocked(stalled)[: p["limit"]]]
    status_of = verdicts(view, [(job, _wanted(job, p)) for job in lost])
    recovered = [view.write_job(_recovered(view, p, job, status_of[job.id])) for job in lost]
    view.wake(job.queue_name for job in recovered if job.status is Status.TODO)
    return [(job.id, job.status.value, job.queue_name, job.task_name) for job in recovered]


def _wanted(job: JobRow, p: Params) -> Status:
    alone = job.worker_id in p["alone_ids"]
    fails = job.crashes >= p["most_crashes"] or (job.crashes >= p["crash_limit"] and alone)
    return Status.FAILED if fails else Status.TODO


def _recovered(view: View, p: Params, job: JobRow, verdict: Status) -> JobRow:
    if verdict is Status.TODO:
        first = job.first_started_at or job.started_at
        return replace(
            job, status=verdict, worker_id=None, first_started_at=first, finished_at=None
        )
    message = json.loads(p["why_lost"])[verdict.value].replace("{crashes}", str(job.crashes))
    added = entry(view, job, p["lost_type"], message)
    errors = errors_after(job.errors, added)
    return replace(job, status=verdict, finished_at=view.now, errors=errors)


def any_unknown(view: View, p: Params) -> Rows:
    return [(0,)] if _unknown(view, p) else []


def _unknown(view: View, p: Params) -> list[JobRow]:
    first = view.now - interval(p["patience_us"])
    waiting = view.active_jobs(Status.TODO)
    return [job for job in waiting if job.unknown_since is not None and job.unknown_since <= first]


def known_names(view: View, p: Params) -> Rows:
    since = view.now - interval(p["timeout_us"])
    alive = [worker for worker in view.workers() if worker.last_heartbeat >= since]
    names: dict[str | None, None] = {}
    for worker in alive:
        names |= dict.fromkeys([None] if worker.task_names is None else worker.task_names)
    return [(name,) for name in names]


def fail_unknown(view: View, p: Params) -> Rows:
    failed = [job for job in _unknown(view, p) if job.task_name not in p["known_names"]]
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
    for worker in view.workers():
        if worker.last_heartbeat < before and worker.id not in p["busy_ids"]:
            view.delete_worker(worker.id)
    return []


def probe_partition(view: View, p: Params) -> Rows:
    return [(0,)]


def abort_requests(view: View, p: Params) -> Rows:
    running = view.active_jobs(Status.DOING)
    return [(job.id,) for job in running if job.worker_id == p["worker_id"] and job.abort_requested]


def held_jobs(view: View, p: Params) -> Rows:
    running = view.active_jobs(Status.DOING)
    return [claimed_columns(job) for job in running if job.worker_id == p["worker_id"]]


# --- schema --------------------------------------------------------------------------------------


def schema_objects(view: View, p: Params) -> Rows:
    return [(name, "memory", None) for name in p["names"]]


def schema_looks(view: View, p: Params) -> Rows:
    return [(1, schema.latest_version())]


def schema_parts(view: View, p: Params) -> Rows:
    return [(name, definitions().get(name, "")) for name in (*parts(), *traits())]


def schema_functions(view: View, p: Params) -> Rows:
    return [
        (name, "memory", function_body(name, "memory"), function_traits(name), 10)
        for name in p["names"]
    ]


def creation_schema(view: View, p: Params) -> Rows:
    return [(1, "memory", "memory")]


def try_lock_migrations(view: View, p: Params) -> Rows:
    return [(True,)]


def get_settings(view: View, p: Params) -> Rows:
    return [(1, 0, 0)]


def get_place(view: View, p: Params) -> Rows:
    return [(None, "memory", view.now)]


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
    enter_again,
    unregister_worker,
    notify,
    notify_listener,
    running_workers,
    dead_workers,
    judge_workers,
    recover_jobs,
    stalled_ids,
    any_unknown,
    known_names,
    fail_unknown,
    prune_workers,
    probe_partition,
    abort_requests,
    held_jobs,
    schema_objects,
    schema_looks,
    schema_parts,
    schema_functions,
    creation_schema,
    get_settings,
    get_place,
    try_lock_migrations,
    list_migrations,
    ping,
)

STATEMENTS: dict[str, Function] = {
    **{function.__name__: function for function in _FUNCTIONS},
    "pause": nothing,
    # In memory no wait has a row of a table.
    "register_waits": nothing,
    "remove_waits": nothing,
    "any_expired_waits": nothing,
    "prune_waits": nothing,
    "broken_indexes": nothing,
    "table_users": nothing,
    "record_migration": nothing,
    "create_schema": nothing,
}
