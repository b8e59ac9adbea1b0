"""What needs a person, from what the database says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from procrastinate import Job, ScheduleInfo, Status, WorkerInfo
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.queue_info import QueueInfo
from procrastinate.model.monitoring.search import Count
from procrastinate.model.queues import Pause
from procrastinate_dashboard.attention import Needs, needs
from procrastinate_dashboard.health import state_of
from procrastinate_dashboard.redaction import Redaction
from procrastinate_dashboard.thresholds import checked

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WORKER = WorkerInfo(
    id=7,
    name="w",
    host="h",
    pid=1,
    version="4",
    queues=("mail",),
    task_names=None,
    concurrency=10,
    busy=3,
    trusted=True,
    blocked_since=None,
    started_at=NOW - timedelta(days=1),
    last_heartbeat=NOW,
    seconds_since_heartbeat=2.0,
)
DAY = timedelta(days=1)
SCHEDULE = ScheduleInfo(
    task_name="clean",
    periodic_id="",
    cron="*/5 * * * *",
    timezone="UTC",
    queue="mail",
    done_until=NOW,
    last_tick=None,
    job_id=None,
    seen_at=NOW,
)
RUNNING = Job(
    id=5,
    status=Status.DOING,
    queue="mail",
    task_name="t",
    task_kwargs={},
    lock="one",
    started_at=NOW - timedelta(minutes=5),
)


def queue(name: str, minutes: float) -> QueueInfo:
    nothing = Count(0)
    return QueueInfo(
        name=name,
        ready=Count(4),
        scheduled=nothing,
        behind_a_lock=nothing,
        running=nothing,
        failed=nothing,
        oldest_ready_since=NOW - timedelta(minutes=minutes),
        pause=None,
    )


def found(**given: Any) -> list[Needs]:
    nothing: dict[str, Any] = dict.fromkeys(
        ("queues", "workers", "schedules", "pauses", "failures", "running"), ()
    )
    return needs(redaction=Redaction(), now=NOW, **{**nothing, **given})


def test_nothing_needs_anybody():
    assert found() == []
    given = {"workers": [WORKER], "schedules": [SCHEDULE], "running": [RUNNING]}
    assert found(queues=[queue("mail", 1)], **given) == []


def test_a_queue_that_no_worker_serves():
    (one,) = found(queues=[queue("other", 1)], workers=[WORKER])
    assert one.what == "No worker serves other"
    assert one.why == "4 ready, the oldest for 1 min"
    assert one.link == "jobs?state=ready&queue=other"
    dead = replace(WORKER, seconds_since_heartbeat=60.0)
    assert found(queues=[queue("mail", 1)], workers=[dead])[0].what == "No worker serves mail"
    assert found(queues=[queue("other", 1)], workers=[replace(WORKER, queues=None)]) == []


def test_a_queue_that_is_late():
    (one,) = found(queues=[queue("mail", 12)], workers=[WORKER])
    assert (one.what, one.why) == (
        "Queue mail is late",
        "4 ready, the oldest for 12 min",
    )


@pytest.mark.parametrize("paused", ["mail", "*"])
def test_a_paused_queue_is_not_late(paused: str):
    pause = Pause(paused, NOW - timedelta(hours=2), by="ada", reason="smtp is down")
    (one,) = found(queues=[queue("mail", 12)], workers=[WORKER], pauses=[pause])
    assert one.what == ("All queues are paused" if paused == "*" else "Queue mail is paused")
    assert one.why == "for 2 h by ada: smtp is down"


@pytest.mark.parametrize(
    "changes, what, state",
    [
        ({"seconds_since_heartbeat": 90.0}, "Worker w (7) is silent", "silent"),
        ({"blocked_since": NOW}, "Worker w (7) is blocked", "blocked"),
        ({"trusted": False}, "Worker w (7) is not trusted", "not trusted"),
    ],
)
def test_a_worker_that_is_not_well(changes: dict[str, Any], what: str, state: str):
    worker = replace(WORKER, **changes)
    assert [each.what for each in found(workers=[worker])] == [what]
    assert state_of(worker)[0] == state


def test_the_jobs_of_a_blocked_worker_are_told_of_with_it():
    held = [replace(RUNNING, id=each, worker=7, started_at=NOW - DAY) for each in range(20)]
    other = replace(RUNNING, id=50, worker=8, started_at=NOW - DAY)
    blocked, long = found(workers=[replace(WORKER, blocked_since=NOW)], running=[*held, other])
    assert blocked.what == "Worker w (7) is blocked"
    assert blocked.why.endswith("; of the jobs that run longest it holds 20")
    assert long.what == "Job 50 runs for 1 d"
    well = found(workers=[WORKER], running=[*held, other])
    assert [each.what for each in well][-1] == "And 17 more"


def test_a_worker_that_is_well():
    assert state_of(WORKER)[0] == "working"
    assert state_of(replace(WORKER, busy=0))[0] == "idle"


def test_a_schedule_that_is_late():
    late = replace(SCHEDULE, done_until=NOW - timedelta(minutes=20))
    (one,) = found(schedules=[late])
    assert (one.what, one.link) == ("Schedule of clean is late", "schedules")
    assert found(schedules=[replace(late, cron=None)]) == []


def test_a_job_that_runs_long_and_holds_a_lock():
    long = replace(RUNNING, started_at=NOW - timedelta(hours=3))
    (one,) = found(running=[long])
    assert (one.what, one.why, one.link) == (
        "Job 5 runs for 3 h",
        "t, and holds the lock one",
        "jobs/5",
    )


def test_a_lock_held_while_others_wait():
    """That is late as soon as a job that is ready would be."""
    held = replace(RUNNING, started_at=NOW - timedelta(minutes=6))
    line = replace(queue("mail", 0), behind_a_lock=Count(30))
    given = {"running": [held], "workers": [WORKER]}
    (one,) = found(queues=[line], **given)
    assert (one.what, one.link) == ("Job 5 runs for 6 min", "jobs/5")
    assert one.why == "t, and holds the lock one; 30 jobs wait behind locks in its queue"
    assert found(queues=[replace(line, behind_a_lock=Count(0))], **given) == []
    assert found(queues=[replace(line, name="other")], **{**given, "workers": []})[1:] == []
    assert found(queues=[line], running=[replace(held, lock=None)], workers=[WORKER]) == []


def test_thresholds_are_the_callers():
    given = {"queues": [queue("mail", 2)], "workers": [WORKER], "running": [RUNNING]}
    assert found(**given) == []
    told = found(**given, thresholds=checked(60, 240.0))
    assert [each.what for each in told] == ["Queue mail is late", "Job 5 runs for 5 min"]


def test_what_fails_most_comes_first_and_without_passwords():
    groups = [
        FailureGroup("t", "E", f"postgresql://a:b{n}@h", Count(n), NOW, NOW, n) for n in range(9)
    ]
    three = found(failures=groups)
    assert [each.what[:1] for each in three] == ["8", "7", "6"]
    assert three[0].why == "E: postgresql://a:•••@h"


def test_many_jobs_behind_locks():
    def waiting(count: int) -> QueueInfo:
        return replace(queue("mail", 0), behind_a_lock=Count(count, is_complete=False))

    assert found(queues=[waiting(99)], workers=[WORKER]) == []
    (one,) = found(queues=[waiting(60), waiting(60)], workers=[WORKER])
    assert (one.what, one.link) == ("120+ jobs wait behind locks", "jobs?state=behind-a-lock")


def test_one_kind_does_not_hide_the_others():
    late = [queue(f"q{number}", 60) for number in range(20)]
    shown = found(queues=late, running=[replace(RUNNING, started_at=NOW - timedelta(days=1))])
    assert [each.what for each in shown] == [
        *(f"No worker serves q{number}" for number in range(4)),
        "And 16 more",
        "Job 5 runs for 1 d",
    ]
