"""`PrometheusObserver`: counts what the workers of this process do.

Rules

1. What is counted has been written to the database, and is counted once. So the sum of
   ``procrastinate_jobs_processed_total`` is the number of outcomes that workers wrote. Only what a
   worker has just written when it is killed is not counted.
2. All observers of one registry count into the same metrics.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from procrastinate import Observer, Status
from procrastinate.observing import events
from procrastinate_prometheus import names
from procrastinate_prometheus.names import Named

#: Seconds. Jobs take from milliseconds to hours, and wait as long.
BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600)

_OUTCOMES = {status: status.value for status in Status} | {Status.TODO: "retried"}


class PrometheusObserver(Observer):
    """Counts attempts, durations and slots in a registry of prometheus_client, by default its own.

    Make it before a worker runs. In a program that has several processes, prometheus_client's
    multiprocess mode adds them up.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._metrics = _metrics_of(registry)

    def on_ended(self, event: events.Ended) -> None:
        """Count jobs that have ended, also those that were given up without an attempt."""
        self._metrics.count(event.attempts)

    def on_requeued(self, event: events.Requeued) -> None:
        """Count attempts that failed and are tried again."""
        self._metrics.count([each for each in event.attempts if each.error is not None])

    def on_lease_lost(self, event: events.LeaseLost) -> None:
        """Count jobs that were taken from a worker."""
        self._metrics.leases_lost.inc(len(event.jobs))

    def on_worker_started(self, event: events.WorkerStarted) -> None:
        """Note how many slots a worker has."""
        self._metrics.show_slots(event.worker_id, 0, event.concurrency)

    def on_busy(self, event: events.Busy) -> None:
        """Note how many slots of a worker have a job."""
        self._metrics.show_slots(event.worker_id, event.busy, event.concurrency)

    def on_worker_stopped(self, event: events.WorkerStopped) -> None:
        """Forget the slots of a worker."""
        self._metrics.show_slots(event.worker_id, 0, 0)


class _Metrics:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(named: Named) -> Histogram:
            return Histogram(
                named.name, named.help, named.labels, buckets=BUCKETS, registry=registry
            )

        def gauge(named: Named) -> Gauge:
            # Of processes that are gone, nothing is added up.
            return Gauge(
                *(named.name, named.help, named.labels),
                multiprocess_mode="livesum",
                registry=registry,
            )

        def counter(named: Named) -> Counter:
            return Counter(named.name, named.help, named.labels, registry=registry)

        self._processed = counter(names.PROCESSED)
        self._duration = histogram(names.DURATION)
        self._queue_time = histogram(names.QUEUE_TIME)
        self._slots_gauge = gauge(names.SLOTS)
        self._busy_gauge = gauge(names.SLOTS_BUSY)
        self.leases_lost = counter(names.LEASES_LOST)
        self._by_kind: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}
        self._slots: dict[int, tuple[int, int]] = {}  # busy, and all of them, by worker
        self._lock = threading.Lock()

    def count(self, attempts: Sequence[events.Attempted]) -> None:
        """Count attempts, and how long they took."""
        self.count_outcomes(
            Tally((each.job.queue, each.job.task_name, each.status) for each in attempts)
        )
        for each in attempts:
            job, seconds = each.job, each.duration
            if seconds is None:
                continue
            duration, queue_time = self._histograms(job.queue, job.task_name)
            duration.observe(seconds)
            waited = job.waited
            if waited is not None:
                queue_time.observe(waited)

    def _histograms(self, queue: str, task: str) -> tuple[Histogram, Histogram]:
        """Return those of a queue and a task. (To look each up anew takes as long as to count.)"""
        found = self._by_kind.get((queue, task))
        if found is None:
            found = self._duration.labels(queue, task), self._queue_time.labels(queue, task)
            self._by_kind[queue, task] = found
        return found

    def count_outcomes(self, outcomes: Tally[tuple[str, str, Status]]) -> None:
        """Count how many of a queue and task have got each status."""
        for (queue, task, status), count in outcomes.items():
            self._processed.labels(queue, task, _OUTCOMES[status]).inc(count)

    def show_slots(self, worker_id: int, busy: int, slots: int) -> None:
        """Show how many slots the workers of this process have, after one of them has changed."""
        with self._lock:
            self._slots[worker_id] = (busy, slots)
            if not slots:
                del self._slots[worker_id]
            self._busy_gauge.set(sum(busy for busy, _ in self._slots.values()))
            self._slots_gauge.set(sum(slots for _, slots in self._slots.values()))


_MADE: WeakKeyDictionary[CollectorRegistry, _Metrics] = WeakKeyDictionary()
_MAKING = threading.Lock()


def _metrics_of(registry: CollectorRegistry) -> _Metrics:
    """Return the metrics of a registry, which takes each name only once (rule 2)."""
    with _MAKING:
        if registry not in _MADE:
            _MADE[registry] = _Metrics(registry)
        return _MADE[registry]
