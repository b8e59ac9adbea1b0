"""An event loop that belongs to the worker: jobs can neither stop it nor cancel what it needs."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import procrastinate
from procrastinate.model.job import Status
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.process import own_loop


async def exit_in_a_task() -> None:
    sys.exit(3)


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()


async def exit_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)


async def exit_in_a_task_of_its_own() -> None:
    asyncio.create_task(exit_in_a_task())  # noqa: RUF006
    await asyncio.sleep(0)


def interrupt() -> None:
    raise KeyboardInterrupt


async def interrupt_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(interrupt)


async def interrupt_in_a_task_of_its_own() -> None:
    async def child() -> None:
        interrupt()

    asyncio.create_task(child())  # noqa: RUF006
    await asyncio.sleep(0)


async def cancel_all_tasks() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


loops: list[asyncio.AbstractEventLoop] = []


def raises_exit(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


async def leave_a_factory_that_exits() -> None:
    asyncio.get_running_loop().set_task_factory(raises_exit)


async def leave_a_factory_that_makes_nothing() -> None:
    asyncio.get_running_loop().set_task_factory(lambda loop, coroutine, **_: None)


async def leave_a_factory_that_takes_no_names() -> None:
    asyncio.get_running_loop().set_task_factory(lambda loop: None)  # type: ignore[arg-type,misc]


def leave_a_factory_from_a_thread() -> None:
    loops[-1].set_task_factory(raises_exit)


def cancel_all_tasks_from_a_thread() -> None:
    done = threading.Event()

    def cancel() -> None:
        for task in asyncio.all_tasks(loops[-1]):
            task.cancel()
        done.set()

    loops[-1].call_soon_threadsafe(cancel)
    assert done.wait(10)


def stop_the_loop_from_a_thread() -> None:
    loops[-1].call_soon_threadsafe(loops[-1].stop)


@pytest.fixture
def _sigint_is_handled() -> Iterator[None]:
    """As the worker of a program handles it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint_is_handled")
@pytest.mark.parametrize(
    "function",
    [
        stop_the_loop,
        exit_in_a_callback,
        exit_in_a_task_of_its_own,
        interrupt_in_a_callback,
        interrupt_in_a_task_of_its_own,
        cancel_all_tasks,
        cancel_all_tasks_from_a_thread,
        stop_the_loop_from_a_thread,
        leave_a_factory_that_exits,
        leave_a_factory_that_makes_nothing,
        leave_a_factory_that_takes_no_names,
        leave_a_factory_from_a_thread,
    ],
)
async def test_a_job_cannot_stop_the_worker_of_this_process(function: Callable[[], Any]) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    nasty = app.task(name="nasty")(function)
    ended = threading.Event()

    @app.task
    def innocent() -> None:
        ended.set()

    worker = app.worker(install_signal_handlers=False)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await worker.run_as_program()

    ids = [await nasty.defer_async() for _ in range(3)]
    running = asyncio.create_task(asyncio.to_thread(own_loop.run, main()))
    ids.append(await innocent.defer_async())
    assert await asyncio.to_thread(ended.wait, 10)
    worker.stop()
    async with asyncio.timeout(10):
        await running

    jobs = [await app.job_manager.get_job_async(each) for each in ids]
    assert all(job.status.is_final for job in jobs)
    assert jobs[-1].status is Status.SUCCEEDED


async def test_a_guest_whose_tasks_are_all_cancelled_writes_every_ending() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    spared = asyncio.all_tasks()

    @app.task(name="nasty")
    async def nasty() -> None:
        for task in asyncio.all_tasks() - spared:
            task.cancel()

    async with app.open_async():
        job_id = await nasty.defer_async()
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await asyncio.wait([worker], timeout=10)
        job = await app.job_manager.get_job_async(job_id)

    assert job.status is Status.SUCCEEDED
    assert worker.cancelled() or worker.exception() is not None


def test_a_factory_that_works_is_kept() -> None:
    made: list[str] = []

    def factory(loop: Any, coroutine: Any, **given: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **given)

    async def child() -> None: ...

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(child())
        assert asyncio.get_running_loop().get_task_factory() is not None

    own_loop.run(main())
    assert made[0].endswith("child")


def test_what_the_program_itself_raises_ends_it() -> None:
    async def main() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        own_loop.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_what_the_program_raises_does_not_keep_the_loop_from_being_closed(turns: int) -> None:
    seen: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("closed")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: seen.append(said))
        started = numbers()
        await anext(started)
        kept.append(started)
        for _ in range(turns):
            await asyncio.sleep(0)
        sys.exit(0)

    kept: list[AsyncIterator[int]] = []
    with pytest.raises(SystemExit) as raised:
        own_loop.run(main())
    assert raised.value.code == 0
    assert seen == ["closed"]


def test_a_program_that_returns_gives_its_value() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        return "value"

    assert own_loop.run(main()) == "value"


def test_an_interrupted_program_is_cancelled_and_seen_to_its_end() -> None:
    seen: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            seen.append("clean-up")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_loop.run(main())
    assert seen == ["clean-up"]
