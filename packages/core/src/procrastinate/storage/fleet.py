"""Flows that list workers and schedules."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from procrastinate.drive import Flow, Request
from procrastinate.model.monitoring.fleet import ScheduleInfo, WorkerInfo


def list_workers() -> Flow[list[WorkerInfo]]:
    """Return all workers that have a row, in order of id: also those that died a moment ago."""
    rows = yield Request("list_workers")
    return [
        WorkerInfo(
            id=int(row[0]),
            name=row[1],
            host=row[2],
            pid=row[3],
            version=row[4],
            queues=_names(row[5]),
            task_names=_names(row[6]),
            concurrency=row[7],
            busy=row[8],
            trusted=None if row[9] is None else bool(row[9]),
            blocked_since=_utc(row[10]),
            started_at=row[11].astimezone(UTC),
            last_heartbeat=row[12].astimezone(UTC),
            seconds_since_heartbeat=float(row[13]),
        )
        for row in rows
    ]


def list_schedules() -> Flow[list[ScheduleInfo]]:
    """Return all schedules that workers have entered, in order of task and periodic_id."""
    rows = yield Request("list_schedules")
    return [
        ScheduleInfo(
            task_name=row[0],
            periodic_id=row[1],
            cron=row[2],
            timezone=row[3],
            queue=row[4],
            done_until=row[5].astimezone(UTC),
            last_tick=_utc(row[6]),
            job_id=row[7],
            seen_at=row[8].astimezone(UTC),
        )
        for row in rows
    ]


def _names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in an array; what is none, in a row made by hand, as its JSON."""
    if text is None:
        return None
    return tuple(each if isinstance(each, str) else json.dumps(each) for each in json.loads(text))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
