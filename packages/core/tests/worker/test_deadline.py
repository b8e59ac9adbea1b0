"""The deadline of a call on the event loop: what it severs, gives up, and leaves alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from procrastinate import deadline as deadline_module
from procrastinate.deadline import Deadline


class Severable:
    """Stands for a session's executor; severing it ends the wait, or not."""

    def __init__(self, *, ends_the_wait: bool = True) -> None:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.severed = 0
        self._ends_the_wait = ends_the_wait

    async def execute(self, query: object, /) -> list[tuple[object, ...]]:
        return []

    def sever(self) -> None:
        self.severed += 1
        if self._ends_the_wait and not self.answer.done():
            self.answer.set_exception(ConnectionResetError())


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_module, "SWEEP_EVERY", 0.02)
    monkeypatch.setattr(deadline_module, "SEVERING_MAY_TAKE", 0.1)


async def test_a_late_answer_severs_the_connection_and_cancels_nothing() -> None:
    deadline, executor = Deadline(0.05), Severable()
    deadline.connected(executor)
    with pytest.raises(ConnectionResetError):
        await executor.answer
    deadline.over()
    assert (deadline.severed, executor.severed) == (True, 1)


async def test_a_call_that_severing_does_not_end_is_given_up() -> None:
    deadline, executor = Deadline(0.05), Severable(ends_the_wait=False)
    deadline.connected(executor)
    with pytest.raises(asyncio.CancelledError) as caught:
        await executor.answer
    assert deadline.is_cause_of(caught.value)
    deadline.over()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_without_a_connection_the_call_is_given_up_at_once() -> None:
    deadline = Deadline(0.05)
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.sleep(10)
    assert deadline.is_cause_of(caught.value)
    deadline.over()


async def test_somebody_elses_cancellation_is_not_taken_for_its_own() -> None:
    async def call() -> bool:
        deadline = Deadline(10.0)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as exc:
            return deadline.is_cause_of(exc)
        finally:
            deadline.over()
        raise AssertionError

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    assert await task is False


async def test_the_time_begins_anew_with_the_connection_and_ends_with_the_call() -> None:
    deadline, executor = Deadline(1.5), Severable()
    await asyncio.sleep(1.0)
    deadline.connected(executor)
    await asyncio.sleep(0.7)
    deadline.over()
    await asyncio.sleep(1.0)
    assert (deadline.severed, executor.severed) == (False, 0)


async def test_a_loop_that_was_blocked_severs_nothing_for_that() -> None:
    """Answers that came meanwhile have not been read yet."""
    deadline, executor = Deadline(1.0), Severable()
    deadline.connected(executor)
    await asyncio.sleep(0.03)
    time.sleep(1.5)  # noqa: ASYNC251 - that is what is tested
    await asyncio.sleep(0.03)
    assert executor.severed == 0
    deadline.over()
