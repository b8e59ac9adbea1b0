"""The whole way of jobs on every PostgreSQL that is found: those of the wheel, and any other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import procrastinate
import procrastinate_embedded
from procrastinate import Status

FOUND = procrastinate_embedded.installed_versions()
SUPPORTED = {version: folder for version, folder in FOUND.items() if version >= 14}


def test_the_versions_of_the_wheel_are_among_them() -> None:
    assert {16, 18} <= set(SUPPORTED)


@pytest.mark.slow
@pytest.mark.parametrize("version", sorted(SUPPORTED))
def test_jobs_go_all_their_ways(version: int) -> None:
    order: list[int] = []
    running = threading.Lock()

    with procrastinate_embedded.server(
        durable=False, version=version, bin_dir=Path(SUPPORTED[version])
    ) as server:
        app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=server.dsn))

        @app.task(name="locked")
        def locked(n: int) -> None:
            assert running.acquire(blocking=False)
            order.append(n)
            running.release()

        @app.task(
            name="flaky", retry=procrastinate.RetryStrategy(max_attempts=2), pass_context=True
        )
        async def flaky(context: procrastinate.JobContext) -> None:
            if context.job.attempts < 3:
                raise ValueError(context.job.attempts)

        @app.periodic(cron="* * * * * *", queueing_lock="second")
        @app.task(name="second", queue="nobody")
        async def second(timestamp: int) -> None: ...

        with app.open():
            assert app.schema_manager.apply_schema()[0] == "0001_initial"
            ids = locked.configure(lock="one").batch_defer(*[{"n": n} for n in range(20)])
            retried = flaky.defer()
            later = flaky.configure(schedule_in={"hours": 1}).defer()
            flaky.configure(queueing_lock="q", queue="nobody").defer()
            with pytest.raises(procrastinate.AlreadyEnqueued):
                flaky.configure(queueing_lock="q", queue="nobody").defer()
            app.run_worker(wait=False, concurrency=5, queues=["default"])

            deadline = time.monotonic() + 10
            while not app.job_manager.list_jobs(task="second"):
                assert time.monotonic() < deadline, "no tick was deferred"
                app.run_worker(wait=False, queues=["default"])
            jobs = {job.id: job for job in app.job_manager.list_jobs()}
            assert app.job_manager.cancel_job_by_id(later)
            assert [counts.name for counts in app.job_manager.list_queues()] == [
                "default",
                "nobody",
            ]

    assert order == list(range(20))
    assert {jobs[id].status for id in ids} == {Status.SUCCEEDED}
    assert (jobs[retried].status, jobs[retried].attempts) == (Status.SUCCEEDED, 3)
    assert [error["message"] for error in jobs[retried].errors] == ["1", "2"]
    assert jobs[later].status is Status.TODO
