"""`DatabaseCollector`: what the database knows, asked at each scrape.

Rules

1. Counts are exact. All of them together may take ``timeout`` seconds; a state that could not be
   counted in that time is absent, and is not tried again for `TRY_AGAIN_AFTER`. A count is shown
   again until `SHARE` of the time has gone into it: one that took a second, for 20 seconds.
2. A scrape never fails, and never waits for longer than ``timeout`` and `REST_MAY_TAKE`: without an
   answer of the database, ``procrastinate_up`` is 0 and nothing else is there. The next scrape
   tries again. A connection may be silent for hours, so a thread waits for it, and is left behind.
3. Scrapes that come together, or within ``max_age`` seconds, get one answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import procrastinate
from procrastinate.errors import ProcrastinateException, QueryCanceled
from procrastinate_prometheus import names
from procrastinate_prometheus.names import Named

logger = logging.getLogger("procrastinate.exporter")

TRY_AGAIN_AFTER = 300.0  # seconds
SHARE = 0.05
REST_MAY_TAKE = 5.0  # seconds for all but the counts: 8 in all, and Prometheus waits for 10
MOST_LEFT_BEHIND = 5  # threads that wait for a silent database; with so many, no scrape asks it
SHORTEST = 0.05  # seconds that are left for a count to be worth a try
#: In the order in which they are counted: what is most asked for, and soonest counted, first.
STATES = (
    *("ready", "running", "scheduled", "behind-a-lock", "failed", "aborted", "cancelled"),
    "succeeded",
)


class DatabaseCollector(Collector):
    """Collects the jobs in each state, and the wait of each queue, from an app's database.

    It opens the app if that is not open. ``timeout`` is how many seconds the counts of one scrape
    may take together. Register it: ``REGISTRY.register(DatabaseCollector(app))``; once for each
    database, not in each worker.
    """

    def __init__(
        self,
        app: procrastinate.App,
        *,
        timeout: float = 3.0,
        max_age: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._timeout = timeout
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._asking: _Asking | None = None
        self._left_behind: list[_Asking] = []
        self._found: list[Metric] = []
        self._found_at = float("-inf")
        self._not_before: dict[str, float] = {}  # when to count a state again
        self._counts: dict[str, Mapping[str, int]] = {}  # the last ones, by state and queue
        self._is_up = True  # as the log says

    def describe(self) -> list[Metric]:
        """Return what there may be, without asking the database."""
        return [_family(named) for named in names.OF_DATABASE]

    def collect(self) -> Iterator[Metric]:
        """Return what the database knows now (rules 2 and 3)."""
        with self._lock:
            if self._clock() < self._found_at + self._max_age:
                return iter(self._found)
            asking = self._asking = self._asking or self._begin()
        if asking is not None:
            asking.done.wait(self._timeout + REST_MAY_TAKE)
        with self._lock:
            if asking is None or asking is self._asking:
                self._end(asking)
            return iter(self._found)

    def _begin(self) -> _Asking | None:
        """Ask the database, unless too many wait for it already."""
        self._left_behind = [each for each in self._left_behind if not each.done.is_set()]
        return _Asking(self._ask) if len(self._left_behind) < MOST_LEFT_BEHIND else None

    def _end(self, asking: _Asking | None) -> None:
        """Note what the database has said by now."""
        self._asking = None
        self._found_at = self._clock()
        if asking is None or not asking.done.is_set():
            self._left_behind += [] if asking is None else [asking]
            self._found = self._down("it is silent")
        elif isinstance(asking.error, ProcrastinateException):
            self._found = self._down(str(asking.error))
        elif asking.error is not None:
            raise asking.error
        else:
            self._found = self._up(asking.found)

    def _down(self, why: str) -> list[Metric]:
        if self._is_up:
            logger.warning("the database does not answer: %s", why)
        self._is_up = False
        return [_value(names.UP, 0)]

    def _up(self, found: list[Metric]) -> list[Metric]:
        if not self._is_up:
            logger.info("the database answers again")
        self._is_up = True
        return [_value(names.UP, 1), *found]

    def _ask(self) -> list[Metric]:
        self._app.open()  # again is harmless
        queues = self._app.queue_manager.list_queues()
        self._count_what_is_due()
        counts = dict(self._counts)  # one that was left behind may still count
        known = {each.name for each in queues}.union(*counts.values())
        now = datetime.now(UTC)
        since = {each.name: each.oldest_ready_since for each in queues}
        latency, paused = _family(names.LATENCY), _family(names.PAUSED)
        pauses = {each.name for each in queues if each.pause is not None}
        for queue in sorted(known):
            oldest = since.get(queue)
            seconds = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
            latency.add_metric([queue], seconds)
            paused.add_metric([queue], int(queue in pauses))
        return [_jobs(counts, known), latency, paused, _value(names.WORKERS, self._alive())]

    def _alive(self) -> int:
        workers = self._app.job_manager.list_workers()
        return sum(each.is_alive for each in workers)

    def _count_what_is_due(self) -> None:
        """Count each state by queue, as far as there is time (rule 1)."""
        deadline = self._clock() + self._timeout
        for state in STATES:
            began = self._clock()
            left = deadline - began
            if left < SHORTEST or began < self._not_before.get(state, float("-inf")):
                continue
            self._counts.pop(state, None)
            try:
                self._counts[state] = self._app.queue_manager.count(state, timeout=left)
                self._not_before[state] = began + (self._clock() - began) / SHARE
            except QueryCanceled:
                logger.info("%s jobs cannot be counted within %.1f s", state, left)
                self._not_before[state] = self._clock() + TRY_AGAIN_AFTER


class _Asking:
    """A question to the database, in a thread of its own: ``done`` is set once it has an answer."""

    def __init__(self, ask: Callable[[], list[Metric]]) -> None:
        self.done = threading.Event()
        self.found: list[Metric] = []
        self.error: Exception | None = None
        self._ask = ask
        threading.Thread(target=self._run, name="procrastinate-collector", daemon=True).start()

    def _run(self) -> None:
        try:
            self.found = self._ask()
        except Exception as exc:
            self.error = exc
        finally:
            self.done.set()


def _family(named: Named) -> GaugeMetricFamily:
    return GaugeMetricFamily(named.name, named.help, labels=named.labels)


def _value(named: Named, value: float) -> Metric:
    family = _family(named)
    family.add_metric([], value)
    return family


def _jobs(counts: Mapping[str, Mapping[str, int]], queues: set[str]) -> Metric:
    """Return the jobs of all queues in all states that were counted, zeros too."""
    family = _family(names.JOBS)
    for state, found in counts.items():
        for queue in sorted(queues):
            family.add_metric([queue, state], found.get(queue, 0))
    return family
