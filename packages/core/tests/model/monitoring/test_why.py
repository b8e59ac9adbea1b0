"""Why a job waits: every reason, said from plain facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from procrastinate.model.job import Job, Status
from procrastinate.model.monitoring.fleet import WorkerInfo
from procrastinate.model.monitoring.search import Count
from procrastinate.model.monitoring.why import Place, WaitReason, reasons
from procrastinate.model.queues import Pause

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(minutes=5)
READY = Job(7, Status.TODO, "mail", "send", {})
LOCKED = replace(READY, lock="l", hold="lock")
LATER = replace(READY, hold="schedule", scheduled_at=SOON)
PLACE = Place(NOON, False, None, Count(0), None, None, Count(0))
WORKER = WorkerInfo(
    id=1,
    name="w",
    host=None,
    pid=None,
    version=None,
    queues=None,
    task_names=("send",),
    concurrency=2,
    busy=1,
    trusted=True,
    blocked_since=None,
    started_at=NOON,
    last_heartbeat=NOON,
    seconds_since_heartbeat=1.0,
)
PAUSE = Pause("mail", NOON, SOON, "ann", "bounces")


def told(
    job: Job,
    place: Place = PLACE,
    workers: tuple[WorkerInfo, ...] = (WORKER,),
    pauses: tuple[Pause, ...] = (),
) -> list[tuple[str, str]]:
    return [(each.kind, each.text) for each in reasons(job, place, workers, pauses)]


def test_a_job_that_is_ready_waits_for_its_turn() -> None:
    assert told(READY) == [("ready", "it is ready, and the next of its queue")]
    assert told(READY, replace(PLACE, before=Count(1))) == [
        ("ready", "it is ready, and 1 job of its queue comes first")
    ]
    assert told(READY, replace(PLACE, before=Count(10_000, False))) == [
        ("ready", "it is ready, and 10,000+ jobs of its queue come first")
    ]


def test_a_time_is_said_with_its_end() -> None:
    (reason,) = reasons(LATER, PLACE, [WORKER], [])
    assert reason == WaitReason("schedule", "it is scheduled for later", SOON)
    assert told(replace(LATER, attempts=1)) == [
        ("retry", "it waits for its next attempt, after 1 attempt")
    ]
    assert told(LATER, replace(PLACE, now=SOON)) == [
        ("schedule", "its time has come, and a worker will make it ready within seconds")
    ]


def test_a_lock_is_said_with_its_holder_or_who_is_first_in_line() -> None:
    held = replace(PLACE, holder=3, in_line=Count(2))
    (reason,) = reasons(LOCKED, held, [WORKER], [])
    assert reason == WaitReason(
        "lock", "job 3 holds its lock 'l', and 2 jobs before it in line", None, 3
    )
    assert told(LOCKED, replace(PLACE, first=4)) == [
        ("lock", "job 4 is first in the line of its lock 'l'")
    ]
    assert told(LOCKED) == [
        ("lock", "its lock 'l' is free, and workers will look at its line soon")
    ]
    assert told(replace(READY, lock="l"), held)[0][0] == "lock"
    assert told(replace(READY, lock="l")) == told(READY)


def test_pauses_of_the_queue_and_of_all_are_said() -> None:
    (reason,) = reasons(READY, PLACE, [WORKER], [PAUSE, Pause("other", NOON)])
    assert reason == WaitReason("pause", "its queue 'mail' is paused by ann: bounces", SOON)
    assert told(READY, pauses=(Pause("*", NOON),)) == [("pause", "all queues are paused")]


def test_that_no_worker_can_run_it_is_said() -> None:
    other = replace(WORKER, queues=("other",))
    assert told(READY, workers=()) == [("no-worker", "no worker is alive")]
    assert told(READY, workers=(other,)) == [
        ("no-worker", "no live worker serves its queue 'mail': 1 live worker serves other queues")
    ]
    assert told(READY, workers=(other, other))[0][1].endswith(": 2 live workers serve other queues")
    stranger = replace(WORKER, task_names=("other",))
    assert told(READY, workers=(stranger,)) == [
        ("unknown-task", "no live worker of its queue knows the task 'send'")
    ]
    assert told(READY, workers=(stranger, replace(WORKER, task_names=None))) == told(READY)
    assert [kind for kind, _ in told(LATER, workers=())] == ["schedule", "no-worker"]


def test_that_all_slots_are_busy_is_said() -> None:
    full = replace(WORKER, busy=2)
    assert told(READY, workers=(full, replace(full, task_names=("other",)))) == [
        ("busy", "all 2 slots of its workers are busy"),
        *told(READY),
    ]
    single = replace(WORKER, concurrency=1)
    assert told(READY, workers=(single,))[0] == ("busy", "the only slot of its workers is busy")
    assert told(READY, workers=(full, WORKER)) == told(READY)
    assert told(READY, workers=(replace(WORKER, trusted=False),))[0][0] == "busy"


def test_what_keeps_workers_from_claiming_is_said() -> None:
    blocked = replace(WORKER, blocked_since=NOON, busy=2)
    silent = replace(WORKER, trusted=False)
    full = replace(WORKER, busy=2)
    unheard = "the database must confirm a sign of life before any claim"
    expected = {
        (blocked,): ["its only worker 1 is blocked: a task holds up the event loop"],
        (blocked, blocked): ["all 2 of its workers are blocked: a task holds up the event loop"],
        (silent,): [f"its only worker 1 is not trusted: {unheard}"],
        (blocked, full, full): [
            "1 of its 3 workers is blocked: a task holds up the event loop",
            "all 4 slots of the others are busy",
        ],
        (full, silent, silent): [
            f"2 of its 3 workers are not trusted: {unheard}",
            "all 2 slots of the others are busy",
        ],
        (blocked, WORKER): [],
        (blocked, full, replace(WORKER, busy=None)): [],
    }
    for workers, texts in expected.items():
        busy = [("busy", text) for text in texts]
        assert told(READY, workers=workers) == [*busy, *told(READY)]
    stranger = replace(WORKER, task_names=("other",))
    assert told(READY, workers=(blocked, stranger)) == told(READY, workers=(blocked,))


def test_a_job_that_runs_or_has_ended_does_not_wait() -> None:
    running = replace(READY, status=Status.DOING, worker=1)
    assert told(running) == [("running", "it is running, on worker 1")]
    assert [kind for kind, _ in told(running, replace(PLACE, abort_requested=True))] == [
        "running",
        "abort-requested",
    ]
    assert told(replace(READY, status=Status.FAILED)) == [("ended", "it has ended: failed")]
