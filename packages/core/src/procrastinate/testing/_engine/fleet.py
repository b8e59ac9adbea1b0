"""The statements that list workers and schedules."""

from __future__ import annotations

import json

from procrastinate.connector import Rows
from procrastinate.testing._engine.view import Function, Params, View


def list_workers(view: View, p: Params) -> Rows:
    return [
        (
            *(worker.id, worker.name, worker.host, worker.pid, worker.version),
            *(_json(worker.queues), _json(worker.task_names)),
            *(worker.concurrency, worker.busy),
            None if worker.trusted is None else int(worker.trusted),
            *(worker.blocked_since, worker.started_at, worker.last_heartbeat),
            (view.now - worker.last_heartbeat).total_seconds(),
        )
        for worker in sorted(view.workers(), key=lambda each: each.id)
    ]


def _json(names: list[str] | None) -> str | None:
    return None if names is None else json.dumps(names, separators=(",", ":"), ensure_ascii=False)


def list_schedules(view: View, p: Params) -> Rows:
    return [
        (
            *(row.task_name, row.periodic_id, row.cron, row.timezone, row.queue_name),
            *(row.done_until, row.last_tick, row.job_id, row.seen_at),
        )
        for row in sorted(view.periodics(), key=lambda each: (each.task_name, each.periodic_id))
    ]


STATEMENTS: dict[str, Function] = {
    "list_workers": list_workers,
    "list_schedules": list_schedules,
}
