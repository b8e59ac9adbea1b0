"""The loop of a process that is a worker's own has precise timers."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import time

import pytest

from procrastinate.worker.process import event_loop, own_loop


@pytest.mark.skipif(sys.platform != "linux", reason="timers are coarse with epoll")
def test_a_sleep_may_be_shorter_than_a_millisecond() -> None:
    """With epoll alone none ends sooner, and any sleep ends up to a millisecond late."""
    assert own_loop.run(_some_sleep_of_200_microseconds_is_short())


async def _some_sleep_of_200_microseconds_is_short() -> bool:
    for _ in range(10_000):  # on a busy machine many last longer
        began = time.monotonic()
        await asyncio.sleep(0.0002)
        if time.monotonic() - began < 0.0009:
            return True
    return False


def test_a_policy_of_the_programs_own_chooses_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "new_event_loop", Loop)
    loop = event_loop.new_event_loop()
    loop.close()
    assert type(loop) is Loop


def test_without_epoll_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(selectors, "EpollSelector", raising=False)
    loop = event_loop.new_event_loop()
    loop.close()
    assert type(loop) is asyncio.SelectorEventLoop


def test_a_descriptor_that_select_cannot_take_means_epoll_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("filedescriptor out of range in select()")

    monkeypatch.setattr(event_loop.select, "select", refuse)
    with asyncio.Runner(loop_factory=event_loop.new_event_loop) as runner:
        assert runner.run(_answered()) == b"ping"


def test_what_is_ready_is_heard_with_and_without_a_timeout() -> None:
    assert own_loop.run(_answered()) == b"ping"


async def _answered() -> bytes:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        loop.call_later(0.001, there.send, b"ping")
        async with asyncio.timeout(10):
            return await loop.sock_recv(here, 4)
