"""What needs a person: a pure function of what the database says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from procrastinate import Job, ScheduleInfo, WorkerInfo
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.queue_info import QueueInfo
from procrastinate.model.monitoring.search import Count
from procrastinate.model.queues import Pause, Pauses
from procrastinate_dashboard.asking import address
from procrastinate_dashboard.health import serves
from procrastinate_dashboard.redaction import Redaction
from procrastinate_dashboard.showing import lasting, line, number, short
from procrastinate_dashboard.thresholds import Thresholds

#: So many jobs behind locks are told of: some lock is passed on too slowly, or not at all.
MANY_BEHIND_LOCKS = 100
MOST = 4  # things of a kind
USUAL = Thresholds()


@dataclass(frozen=True)
class Needs:
    """One thing to look at: what it is, where to look, and the class of its mark."""

    what: str
    why: str
    link: str
    css: str = "failed"


def needs(
    *,
    redaction: Redaction,
    queues: Sequence[QueueInfo],
    workers: Sequence[WorkerInfo],
    schedules: Sequence[ScheduleInfo],
    pauses: Sequence[Pause],
    failures: Sequence[FailureGroup],
    running: Sequence[Job],
    now: datetime,
    thresholds: Thresholds = USUAL,
) -> list[Needs]:
    """Return what needs a person, the worst first."""
    return [
        *_first(
            _of_queues(queues, workers, Pauses(tuple(pauses)), now - thresholds.late, now), "queues"
        ),
        *_first(_of_workers(workers, running), "workers"),
        *_first(
            _of_long_jobs(_not_blocked(running, workers), queues, thresholds, now),
            "jobs?state=running",
        ),
        *_of_failures(failures, redaction),
        *_of_locks(queues),
        *_first(_of_schedules(schedules, now), "schedules"),
        *_first(_of_pauses(pauses, now), "queues"),
    ]


def _first(found: Iterable[Needs], page: str) -> list[Needs]:
    """Return some of a kind, and how many more there are: one kind must not hide the others."""
    every = list(found)
    if len(every) <= MOST:
        return every
    return [
        *every[:MOST],
        Needs(f"And {len(every) - MOST:,} more", "like these", page, every[MOST].css),
    ]


def _of_queues(
    queues: Iterable[QueueInfo],
    workers: Sequence[WorkerInfo],
    pauses: Pauses,
    late: datetime,
    now: datetime,
) -> Iterator[Needs]:
    waiting = [each for each in queues if each.oldest_ready_since and not pauses.has(each.name)]
    for queue in sorted(waiting, key=_waits_since):
        waits = now - _waits_since(queue)
        link = address("jobs", state="ready", queue=queue.name)
        name = line(queue.name, 60)
        why = f"{number(queue.ready)} ready, the oldest for {lasting(waits)}"
        if not any(serves(each, queue.name) for each in workers):
            yield Needs(f"No worker serves {name}", why, link)
        elif _waits_since(queue) < late:
            yield Needs(f"Queue {name} is late", why, link)


def _waits_since(queue: QueueInfo) -> datetime:
    assert queue.oldest_ready_since is not None
    return queue.oldest_ready_since


def _of_workers(workers: Iterable[WorkerInfo], running: Sequence[Job]) -> Iterator[Needs]:
    held = Counter(each.worker for each in running)
    for worker in workers:
        name = f"{line(worker.name, 40)} ({worker.id})"
        if not worker.is_alive:
            why = f"no sign of life for {lasting(worker.seconds_since_heartbeat)}"
            yield Needs(f"Worker {name} is silent", why, "workers")
        elif _is_blocked(worker):
            why = "a task holds up its event loop, so that no other goes on"
            if held[worker.id]:
                why += f"; of the jobs that run longest it holds {held[worker.id]:,}"
            yield Needs(f"Worker {name} is blocked", why, "workers", "aborted")
        elif worker.trusted is False:
            why = "the database does not confirm its signs of life: it claims nothing"
            yield Needs(f"Worker {name} is not trusted", why, "workers", "aborted")


def _not_blocked(running: Iterable[Job], workers: Iterable[WorkerInfo]) -> list[Job]:
    """Return the jobs of other workers than those that are told of as blocked, with their jobs."""
    blocked = {each.id for each in workers if _is_blocked(each)}
    return [each for each in running if each.worker not in blocked]


def _is_blocked(worker: WorkerInfo) -> bool:
    return worker.is_alive and worker.blocked_since is not None


def _of_long_jobs(
    running: Iterable[Job], queues: Iterable[QueueInfo], thresholds: Thresholds, now: datetime
) -> Iterator[Needs]:
    behind = {each.name: each.behind_a_lock for each in queues}
    for job in running:
        wait = behind.get(job.queue, Count(0)) if job.lock is not None else Count(0)
        longest = thresholds.late if wait.value else thresholds.long
        if job.started_at is not None and job.started_at < now - longest:
            what = f"Job {job.id} runs for {lasting(now - job.started_at)}"
            why = f"{line(job.task_name, 60)}{_lock_of(job, wait)}"
            yield Needs(what, why, f"jobs/{job.id}", "aborted")


def _lock_of(job: Job, wait: Count) -> str:
    if job.lock is None:
        return ""
    held = f", and holds the lock {line(job.lock, 60)}"
    waiting = f"{number(wait)} {'job waits' if str(wait) == '1' else 'jobs wait'}"
    return f"{held}; {waiting} behind locks in its queue" if wait.value else held


def _of_failures(failures: Iterable[FailureGroup], redaction: Redaction) -> Iterator[Needs]:
    groups = sorted(failures, key=lambda each: -each.count.value)
    for group in groups[:3]:
        what = f"{number(group.count)} \N{MULTIPLICATION SIGN} {line(group.task_name, 60)} failed"
        why = line(redaction.text(f"{short(group.error_type)}: {group.error_text}"), 120)
        yield Needs(what, why, address("failures", span="1h"))


def _of_locks(queues: Iterable[QueueInfo]) -> Iterator[Needs]:
    behind = sum((each.behind_a_lock for each in queues), Count(0))
    if behind.value >= MANY_BEHIND_LOCKS:
        link = address("jobs", state="behind-a-lock")
        why = "the page of any of them says which job holds its lock"
        yield Needs(f"{number(behind)} jobs wait behind locks", why, link, "behind-a-lock")


def _of_schedules(schedules: Iterable[ScheduleInfo], now: datetime) -> Iterator[Needs]:
    for schedule in schedules:
        if schedule.is_late(now) and schedule.next_tick is not None:
            why = f"a job was due {lasting(now - schedule.next_tick)} ago, and none was deferred"
            name = line(schedule.task_name, 60)
            yield Needs(f"Schedule of {name} is late", why, "schedules", "aborted")


def _of_pauses(pauses: Iterable[Pause], now: datetime) -> Iterator[Needs]:
    for pause in pauses:
        what = "All queues are" if pause.queue == "*" else f"Queue {line(pause.queue, 60)} is"
        who = f" by {line(pause.by, 40)}" if pause.by else ""
        reason = f": {line(pause.reason, 80)}" if pause.reason else ""
        why = f"for {lasting(now - pause.paused_at)}{who}{reason}"
        yield Needs(f"{what} paused", why, "queues", "scheduled")
