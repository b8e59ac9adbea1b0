"""What is asked of the database, and what is said when it has no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import procrastinate
from procrastinate.errors import ConnectionFailed, QueryCanceled
from procrastinate.testing import InMemoryConnector
from procrastinate_prometheus import DatabaseCollector, database
from procrastinate_prometheus.database import STATES, TRY_AGAIN_AFTER

SamplesOf = Callable[[Any], Mapping[str, float]]


class Scene:
    """An app on a database, and its collector, with a clock."""

    def __init__(self, app: procrastinate.App, samples_of: SamplesOf) -> None:
        self.app = app
        self.now = 0.0
        self.collector = DatabaseCollector(app, clock=lambda: self.now)
        self.registry = CollectorRegistry()
        self.registry.register(self.collector)
        self._samples_of = samples_of

    def scraped(self) -> Mapping[str, float]:
        """Return what a scrape finds, some time after the one before."""
        self.now += 60
        return self._samples_of(self.registry)

    def jobs(self) -> dict[str, float]:
        """Return how many jobs there are, by queue and state, but for none."""
        begin = "procrastinate_jobs{"
        return {
            name.removeprefix(begin).rstrip("}"): value
            for name, value in self.scraped().items()
            if name.startswith(begin) and value
        }


@pytest.fixture(params=["memory", "database"])
def scene(request: pytest.FixtureRequest, samples_of: SamplesOf) -> Iterator[Scene]:
    connector: Any = InMemoryConnector()
    if request.param == "database":
        dsn = request.getfixturevalue("procrastinate_dsn")
        connector = procrastinate.AiopgConnector(dsn=dsn)
    app = procrastinate.App(connector=connector)

    @app.task(name="work", queue="a")
    def work(fails: bool = False) -> None:
        if fails:
            raise ValueError

    with app.open():
        app.schema_manager.apply_schema()
        yield Scene(app, samples_of)


class Silent:
    """A database whose connections are open, and which says nothing until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "REST_MAY_TAKE", 0.01)
        self.app = procrastinate.App(connector=InMemoryConnector())
        self._goes_on = threading.Event()
        manager = type(self.app.queue_manager)
        list_queues = manager.list_queues

        def wait_and_list(self_: Any) -> Any:
            self._goes_on.wait()
            return list_queues(self_)

        monkeypatch.setattr(manager, "list_queues", wait_and_list)

    def go_on(self, collector: DatabaseCollector) -> None:
        self._goes_on.set()
        for asking in collector._left_behind:
            assert asking.done.wait(30)


def test_a_database_that_is_silent_is_down(
    monkeypatch: pytest.MonkeyPatch, samples_of: SamplesOf, caplog: pytest.LogCaptureFixture
) -> None:
    silent = Silent(monkeypatch)
    collector = DatabaseCollector(silent.app, timeout=0.01, max_age=0)
    registry = CollectorRegistry()
    registry.register(collector)
    for _ in range(database.MOST_LEFT_BEHIND + 2):
        assert samples_of(registry) == {"procrastinate_up{}": 0}
    assert len(collector._left_behind) == database.MOST_LEFT_BEHIND
    assert [each.getMessage() for each in caplog.records] == [
        "the database does not answer: it is silent"
    ]
    silent.go_on(collector)
    monkeypatch.setattr(database, "REST_MAY_TAKE", 30)
    assert samples_of(registry)["procrastinate_up{}"] == 1
    assert collector._left_behind == []


def test_what_is_no_fault_of_the_database_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    monkeypatch.setattr(type(app.queue_manager), "list_queues", lambda self: [][0])
    with pytest.raises(IndexError):
        list(DatabaseCollector(app).collect())


def test_jobs_are_counted_by_queue_and_state(scene: Scene) -> None:
    work = scene.app.tasks["work"]
    assert scene.jobs() == {}
    work.batch_defer({}, {}, {"fails": True})
    scene.app.run_worker(wait=False)
    work.configure(queue="b").defer()
    work.configure(schedule_in=timedelta(hours=1)).defer()
    assert scene.jobs() == {
        "queue=a,state=succeeded": 2,
        "queue=a,state=failed": 1,
        "queue=a,state=scheduled": 1,
        "queue=b,state=ready": 1,
    }
    samples = scene.scraped()
    assert samples["procrastinate_up{}"] == 1
    assert samples["procrastinate_jobs{queue=b,state=failed}"] == 0
    assert samples["procrastinate_workers{}"] == 0
    states = {name.rpartition("=")[2].rstrip("}") for name in samples if "state=" in name}
    assert states == set(STATES)


def test_the_wait_of_the_oldest_ready_job_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = scene.app.tasks["work"]
    work.configure(schedule_in=timedelta(hours=1)).defer()
    assert scene.scraped()["procrastinate_queue_latency_seconds{queue=a}"] == 0
    work.defer()
    (queue,) = scene.app.queue_manager.list_queues()
    assert queue.oldest_ready_since is not None
    earlier = replace(queue, oldest_ready_since=queue.oldest_ready_since - timedelta(hours=2))
    monkeypatch.setattr(type(scene.app.queue_manager), "list_queues", lambda self: [earlier])
    assert 7_200 <= scene.scraped()["procrastinate_queue_latency_seconds{queue=a}"] < 14_400


def test_a_pause_is_shown(scene: Scene) -> None:
    scene.app.tasks["work"].defer()
    assert scene.scraped()["procrastinate_queue_paused{queue=a}"] == 0
    scene.app.queue_manager.pause("a")
    assert scene.scraped()["procrastinate_queue_paused{queue=a}"] == 1


def test_a_state_that_takes_too_long_is_absent_and_left_alone_for_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = scene.app.queue_manager.count
    slow, asked = {"succeeded"}, []

    def counted(self: object, state: str, *, timeout: float) -> dict[str, int]:
        asked.append(state)
        if state in slow:
            raise QueryCanceled("canceling statement due to statement timeout")
        return count(state, timeout=30)

    monkeypatch.setattr(type(scene.app.queue_manager), "count", counted)
    scene.app.tasks["work"].defer()
    samples = scene.scraped()
    assert "procrastinate_jobs{queue=a,state=succeeded}" not in samples
    assert samples["procrastinate_jobs{queue=a,state=ready}"] == 1
    assert samples["procrastinate_up{}"] == 1
    slow.clear()
    asked.clear()
    assert "procrastinate_jobs{queue=a,state=succeeded}" not in scene.scraped()
    assert "succeeded" not in asked
    scene.now += TRY_AGAIN_AFTER
    assert "procrastinate_jobs{queue=a,state=succeeded}" in scene.scraped()


def test_a_count_that_took_long_is_shown_again_for_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(self: object, state: str, *, timeout: float) -> dict[str, int]:
        asked.append(state)
        scene.now += 1.0 if state == "running" else 0.0
        return {"a": len(asked)}

    monkeypatch.setattr(type(scene.app.queue_manager), "count", counted)
    first = scene.scraped()
    assert asked == list(STATES)
    scene.now -= 42  # so that the next scrape begins 19 seconds after this one began
    again = scene.scraped()
    assert asked == [*STATES, *(state for state in STATES if state != "running")]
    running = "procrastinate_jobs{queue=a,state=running}"
    assert again[running] == first[running] == 2
    scene.scraped()
    assert asked.count("running") == 2


def test_a_database_that_is_away_is_said_and_found_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene.app.tasks["work"].defer()

    def fail(self: object) -> None:
        raise ConnectionFailed("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(type(scene.app.queue_manager), "list_queues", fail)
        assert scene.scraped() == {"procrastinate_up{}": 0}
        assert scene.scraped() == {"procrastinate_up{}": 0}
    samples = scene.scraped()
    assert samples["procrastinate_up{}"] == 1
    assert samples["procrastinate_jobs{queue=a,state=ready}"] == 1
    said = [each.getMessage() for each in caplog.records if each.name == "procrastinate.exporter"]
    assert said[0] == "the database does not answer: connection refused"
    assert len([each for each in said if "does not answer" in each]) == 1


def test_scrapes_within_some_seconds_get_one_answer(scene: Scene) -> None:
    before = scene.scraped()
    scene.app.tasks["work"].defer()
    assert scene._samples_of(scene.registry) == before
    scene.now += 5
    assert scene._samples_of(scene.registry) != before


def test_an_app_that_cannot_be_opened_is_no_error(samples_of: SamplesOf) -> None:
    connector = procrastinate.Psycopg2Connector(dsn="host=127.0.0.1 port=9 connect_timeout=2")
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(procrastinate.App(connector=connector)))
    assert samples_of(registry) == {"procrastinate_up{}": 0}
