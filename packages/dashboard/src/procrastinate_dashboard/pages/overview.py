"""The first page: how it goes now, what needs a person, and how it went over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from procrastinate import Throughput, WorkerInfo
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.queue_info import QueueInfo
from procrastinate.model.monitoring.search import Count
from procrastinate_dashboard import charts
from procrastinate_dashboard.attention import Needs, needs
from procrastinate_dashboard.charts import Plot, Series
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.site import Site, now


@dataclass(frozen=True)
class Span:
    """How far back to look, in which steps, and how a step is labelled."""

    length: timedelta
    step: timedelta
    label: str


SPANS = {
    "1h": Span(timedelta(hours=1), timedelta(minutes=1), "%H:%M"),
    "6h": Span(timedelta(hours=6), timedelta(minutes=5), "%H:%M"),
    "24h": Span(timedelta(hours=24), timedelta(minutes=20), "%H:%M"),
    "7d": Span(timedelta(days=7), timedelta(hours=2), "%d %b %H:%M"),
    "30d": Span(timedelta(days=30), timedelta(hours=8), "%d %b"),
}
FAILURES = 2_000  # the latest ones that are looked at for what needs a person
RUNNING = 20  # the jobs that have run longest, of which some may be stuck
OUTCOMES = ("succeeded", "failed", "cancelled", "aborted")
QUANTILES = (("p50", 0.5), ("p95", 0.95))


@dataclass(frozen=True)
class Step:
    """What ended from a time on; None if nothing did."""

    begins_at: datetime
    found: Throughput | None

    def count(self, outcome: str) -> int:
        """Return how many jobs ended so."""
        return 0 if self.found is None else int(getattr(self.found, outcome))

    def quantile(self, what: str, q: float) -> float | None:
        """Return a quantile of ``run`` or ``waited``, in seconds; None if nothing was measured."""
        return None if self.found is None else getattr(self.found, what).quantile(q)


def overview(site: Site, request: Request) -> Response:
    """Show the state of everything."""
    name = request.query.get("span", "")
    name = name if name in SPANS else "1h"  # what is asked for is a key of shared answers
    span = SPANS[name]
    queues = site.ask("queues", site.app.queue_manager.list_queues)
    workers = site.ask("workers", site.app.job_manager.list_workers)
    over_time = site.ask(("throughput", name), lambda: _throughput(site, span))
    failures = site.ask("latest failures", lambda: _failures(site))
    failed = total(queues, "failed")
    alive = [each for each in workers if each.is_alive]
    return site.page(
        request,
        "overview.html",
        spans=list(SPANS),
        span=name,
        totals={what: total(queues, what) for what in ("ready", "running", "scheduled")},
        failed=failed,
        behind=total(queues, "behind_a_lock"),
        oldest=min((q.oldest_ready_since for q in queues if q.oldest_ready_since), default=None),
        alive=alive,
        slots=sum(each.concurrency or 0 for each in alive),
        busy=sum(each.busy or 0 for each in alive),
        needs=_needs(site, queues, workers, failures),
        recent=recently(failures, failed),
        ended=sum(step.count(each) for step in over_time for each in OUTCOMES),
        plots=[*plots(over_time, span)],
    )


def total(queues: Sequence[QueueInfo], what: str) -> Count:
    """Add up one count of all queues."""
    return sum((getattr(each, what) for each in queues), Count(0))


def _failures(site: Site) -> list[FailureGroup]:
    since = now() - timedelta(hours=1)
    return site.app.job_manager.list_failures(since=since, budget=FAILURES)


def recently(failures: Sequence[FailureGroup], failed: Count) -> Count | None:
    """Return how many of the jobs that failed did so within the hour; None if that is not known.

    The jobs say so at once. What workers count comes a minute later, and may not be kept.
    """
    found = sum((each.count for each in failures), Count(0))
    return found if found.value or failed.value < FAILURES else None


def _needs(
    site: Site,
    queues: Sequence[QueueInfo],
    workers: Sequence[WorkerInfo],
    failures: Sequence[FailureGroup],
) -> list[Needs]:
    manager = site.app.job_manager
    return needs(
        redaction=site.redaction,
        queues=queues,
        workers=workers,
        schedules=site.ask("schedules", manager.list_schedules),
        pauses=site.ask("pauses", site.app.queue_manager.list_pauses),
        failures=failures,
        running=site.ask(
            "longest running", lambda: manager.search_jobs(state="running", limit=RUNNING).jobs
        ),
        now=now(),
        thresholds=site.thresholds,
    )


def _throughput(site: Site, span: Span) -> list[Step]:
    seconds = int(span.step.total_seconds())
    until = now()
    since = (until - span.length).timestamp() // seconds * seconds
    begin = datetime.fromtimestamp(since, UTC)
    found = site.app.job_manager.throughput(since=begin, step=span.step)
    return steps(found, begin, until, span.step)


def steps(
    found: Sequence[Throughput], since: datetime, until: datetime, length: timedelta
) -> list[Step]:
    """Return a step for each length of time, also if nothing ended in it."""
    by_time = {each.begins_at: each for each in found}
    count = int((until - since) / length) + 1
    times = [since + length * number for number in range(count)]
    return [Step(time, by_time.get(time)) for time in times]


def plots(over_time: Sequence[Step], span: Span) -> list[tuple[Plot, Markup]]:
    """Return what was done, how long it took, and how long it had waited, over time."""
    labels = [each.begins_at.strftime(span.label) for each in over_time]
    done = [Series(name, name, [each.count(name) for each in over_time]) for name in OUTCOMES]
    ended = Plot("Jobs ended", labels, done)
    took = Plot("Run time", labels, _quantiles(over_time, "run"), "s")
    waited = Plot("Waiting time", labels, _quantiles(over_time, "waited"), "s")
    return [(ended, charts.bars(ended)), *((each, charts.lines(each)) for each in (took, waited))]


def _quantiles(over_time: Sequence[Step], what: str) -> list[Series]:
    return [
        Series(name, name, [each.quantile(what, q) for each in over_time]) for name, q in QUANTILES
    ]
