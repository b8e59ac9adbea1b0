"""The statements about the progress of running jobs."""

from __future__ import annotations

from procrastinate.connector import Rows
from procrastinate.model.job import HELD
from procrastinate.testing._engine.finish import held
from procrastinate.testing._engine.values import ProgressRow, interval, jsonb
from procrastinate.testing._engine.view import Function, Params, View

_SAID = ("millionths", "messages", "data", "ages_us")


def report_progress(view: View, p: Params) -> Rows:
    for job, millionths, message, data, age_us in held(view, p, *_SAID):
        before = view.progress_of(job.id)
        if before is None or before.lease <= job.lease:
            said_at = view.now - interval(age_us)
            kept = None if data is None else jsonb(data)
            view.write_progress(ProgressRow(job.id, job.lease, millionths, message, kept, said_at))
    return []


def forget_progress(view: View, p: Params) -> Rows:
    for job_id, lease in zip(p["ids"], p["leases"], strict=True):
        row = view.progress_of(job_id)
        if row is not None and row.lease <= lease:
            view.delete_progress(job_id)
    return []


def sees_progress(view: View, p: Params) -> Rows:
    return [(1,)]


def list_progress(view: View, p: Params) -> Rows:
    found = [view.progress_of(job_id) for job_id in sorted(set(p["ids"]))]
    return [
        (row.job_id, row.lease, row.millionths, row.message, row.data, row.updated_at)
        for row in found
        if row is not None
    ]


def reported_partitions(view: View, p: Params) -> Rows:
    return [(0,)] if view.progress() else []


def prune_progress(view: View, p: Params) -> Rows:
    for row in view.progress():
        job = view.job(row.job_id)
        if job is None or job.status not in HELD or job.lease != row.lease:
            view.delete_progress(row.job_id)
    return []


_FUNCTIONS: tuple[Function, ...] = (
    report_progress,
    forget_progress,
    sees_progress,
    list_progress,
    reported_partitions,
    prune_progress,
)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
