"""What is counted of a worker's jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import procrastinate
from procrastinate import Job, Status
from procrastinate.observing import events
from procrastinate.testing import InMemoryConnector
from procrastinate_prometheus import PrometheusObserver

SamplesOf = Callable[[Any], Mapping[str, float]]
PROCESSED = "procrastinate_jobs_processed_total"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def app_on(registry: CollectorRegistry) -> procrastinate.App:
    return procrastinate.App(
        connector=InMemoryConnector(), observers=[PrometheusObserver(registry)]
    )


def processed(samples: Mapping[str, float]) -> dict[str, float]:
    """Return the counts of outcomes by their labels."""
    begin = PROCESSED + "{"
    return {
        name.removeprefix(begin).rstrip("}"): value
        for name, value in samples.items()
        if name.startswith(begin)
    }


async def test_the_sums_are_the_outcomes_that_were_written(
    registry: CollectorRegistry, samples_of: SamplesOf
) -> None:
    app = app_on(registry)

    @app.task(name="work", queue="a", retry=2, pass_context=True)
    async def work(context: procrastinate.JobContext, failures: int) -> None:
        if context.job.attempts <= failures:
            raise ValueError(failures)

    @app.task(name="stop", queue="b")
    def stop() -> None:
        raise procrastinate.JobAborted

    async with app.open_async():
        await work.batch_defer_async(*({"failures": n} for n in (0, 0, 1, 2, 9)))
        await stop.batch_defer_async({}, {})
        # A slot for each job: one that is handed back before it begins has no first claim any more.
        await app.run_worker_async(wait=False, concurrency=10)
        ended = Counter(job.status.value for job in await app.job_manager.list_jobs_async())
    samples = samples_of(registry)
    assert processed(samples) == {
        "outcome=succeeded,queue=a,task=work": 4.0,
        "outcome=failed,queue=a,task=work": 1.0,
        "outcome=retried,queue=a,task=work": 5.0,
        "outcome=aborted,queue=b,task=stop": 2.0,
    }
    assert ended == {"succeeded": 4, "failed": 1, "aborted": 2}
    assert samples["procrastinate_job_duration_seconds_count{queue=a,task=work}"] == 10
    assert samples["procrastinate_job_queue_time_seconds_count{queue=a,task=work}"] == 5
    assert samples["procrastinate_job_queue_time_seconds_count{queue=b,task=stop}"] == 2
    assert samples["procrastinate_worker_slots{}"] == 0
    assert samples["procrastinate_worker_slots_busy{}"] == 0
    assert samples["procrastinate_leases_lost_total{}"] == 0


def test_slots_of_several_workers_are_added_up(
    registry: CollectorRegistry, samples_of: SamplesOf
) -> None:
    observer = PrometheusObserver(registry)

    def shown() -> tuple[float, float]:
        samples = samples_of(registry)
        return samples["procrastinate_worker_slots_busy{}"], samples["procrastinate_worker_slots{}"]

    observer.on_worker_started(events.WorkerStarted("w", 1, None, 10))
    observer.on_worker_started(events.WorkerStarted("v", 2, None, 5))
    assert shown() == (0, 15)
    observer.on_busy(events.Busy("w", 1, 7, 10))
    observer.on_busy(events.Busy("v", 2, 1, 5))
    assert shown() == (8, 15)
    observer.on_worker_stopped(events.WorkerStopped("w", 1))
    assert shown() == (1, 5)


def test_what_becomes_of_the_jobs_of_the_dead_is_counted(
    registry: CollectorRegistry, samples_of: SamplesOf
) -> None:
    observer = PrometheusObserver(registry)
    jobs: list[Any] = [
        SimpleNamespace(
            job=Job(1, Status.DOING, "a", "t", {}), status=Status(status), duration=None
        )
        for status in ("failed", "aborted")
    ]
    observer.on_ended(events.Ended("w", 1, jobs))
    observer.on_lease_lost(events.LeaseLost("w", 1, [each.job for each in jobs]))
    samples = samples_of(registry)
    assert processed(samples) == {
        "outcome=failed,queue=a,task=t": 1.0,
        "outcome=aborted,queue=a,task=t": 1.0,
    }
    assert samples["procrastinate_leases_lost_total{}"] == 2


async def test_several_observers_of_a_registry_share_its_metrics(
    registry: CollectorRegistry, samples_of: SamplesOf
) -> None:
    for app in (app_on(registry), app_on(registry)):
        app.task(name="t", queue="q")(lambda: None)
        async with app.open_async():
            await app.configure_task("t", queue="q").defer_async()
            await app.run_worker_async(wait=False)
    assert processed(samples_of(registry)) == {"outcome=succeeded,queue=q,task=t": 2.0}


async def test_any_name_can_be_a_label(registry: CollectorRegistry, samples_of: SamplesOf) -> None:
    app = app_on(registry)
    name = 'a "quoted"\\ \n {name}, é'
    app.task(name=name, queue=name)(lambda: None)
    async with app.open_async():
        await app.configure_task(name, queue=name).defer_async()
        await app.run_worker_async(wait=False)
    assert processed(samples_of(registry)) == {f"outcome=succeeded,queue={name},task={name}": 1.0}


def test_an_app_finds_it_by_its_name() -> None:
    app = procrastinate.App(connector=InMemoryConnector(), observers=["prometheus"])
    assert [type(each) for each in app.observers] == [PrometheusObserver]
