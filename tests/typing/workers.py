"""What a type checker knows of workers. Never run, only checked."""

from __future__ import annotations

from typing import assert_type

import procrastinate
from procrastinate import App, Worker, WorkerFailed

app = App(connector=procrastinate.AiopgConnector())


async def a_worker_is_an_object() -> None:
    worker = app.worker(queues=["mail"], concurrency=10, name="guest")
    assert_type(worker, Worker)
    assert_type(await worker.run(), None)
    assert_type(worker.stop(), None)
    assert_type(worker.is_alive, bool)
    assert_type(worker.failure, BaseException | None)
    assert_type(worker.name, str)


async def a_worker_lives_in_a_block() -> None:
    async with app.worker(on_failure="cancel", shutdown_graceful_timeout=None) as worker:
        assert_type(worker, Worker)
    try:
        async with app.open_async(), app.worker():
            pass
    except WorkerFailed as exc:
        assert_type(exc.__cause__, BaseException | None)


def what_follows_a_failure_is_known() -> None:
    def tell(exc: BaseException) -> None: ...

    async def tell_async(exc: BaseException) -> None: ...

    app.worker(on_failure=tell)
    app.worker(on_failure=tell_async)
    app.worker(on_failure="terminate")
    app.worker(on_failure="exit")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.worker(on_failure=len)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def a_workers_options_are_known() -> None:
    app.run_worker(queues=("mail", "reports"), delete_jobs="successful", wait=False)
    app.run_worker(colour="red")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    app.worker(concurrency="10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.run_worker(delete_jobs="no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def a_workers_options_are_known_asynchronously() -> None:
    assert_type(await app.run_worker_async(concurrency=3, additional_context={"a": 1}), None)
    await app.run_worker_async(wait=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
