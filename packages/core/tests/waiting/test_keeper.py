"""The thread that keeps the waits: the database is away, or a node of it, or nobody waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.drive import Flow, Limit, Request, T, run_steps
from procrastinate.errors import AppNotOpen, ConnectionFailed, ConnectionLost, PartitionAway
from procrastinate.model.endings import waits
from procrastinate.model.partitions import VALUES, Partitions
from procrastinate.waiting import hearing, keeper, nodes
from procrastinate.waiting.keeper import Keeper
from procrastinate.waiting.wait import AsyncWait

HERE, THERE = VALUES[1], VALUES[2]


class Silent(ListeningConnector):
    """It listens, and hears nothing."""

    contract: ClassVar[int] = 2

    @classmethod
    def from_url(cls, url: str) -> Silent:
        return cls()

    async def open_async(self, pool: Any = None) -> None: ...

    async def close_async(self) -> None: ...

    def session_async(self, **options: Any) -> Any: ...

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        async def heard() -> AsyncIterator[Notification]:
            await asyncio.Event().wait()
            yield Notification("", "")

        yield heard()


class Cluster:
    """A way to a database of two nodes, the jobs of which have ended by default."""

    def __init__(self) -> None:
        self.connector = Silent()
        self.away: set[int] = set()
        self.is_away = False
        self.status = "failed"  # of each job
        self.asked: list[tuple[str, Any]] = []

    async def run_async(self, flow: Flow[T], *, limit: Limit | None = None) -> T:
        await asyncio.sleep(0)
        if self.is_away:
            raise ConnectionLost("it is away")
        return run_steps(flow, self._answer)

    def _answer(self, request: Request) -> Any:
        partition = request.params.get("partition")
        self.asked.append((request.name, partition))
        if partition in self.away:
            raise PartitionAway("the node is away", sqlstate="57P01")
        match request.name:
            case "get_settings":
                return [(64, 0, 1)]
            case "whether it is a cluster":
                return [(1,)]
            case "the partitions of the nodes":
                return [(1, HERE), (2, THERE)]
            case "look_at_jobs":
                return [(each, self.status) for each in request.params["ids"]]  # type: ignore[union-attr]
            case "read_jobs":
                return [(each, self.status, each) for each in request.params["ids"]]  # type: ignore[union-attr]
        return []

    def learn(self, partitions: Partitions) -> None: ...

    async def open_async(self) -> None: ...

    async def close_async(self) -> None: ...


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster, of which nothing is asked by the way: all that is done has a reason."""
    monkeypatch.setattr(waits, "POLL_DEAF", 3600.0)
    monkeypatch.setattr(keeper, "AGAIN_AFTER", 0.01)
    return Cluster()


async def test_only_the_waits_for_jobs_of_a_node_that_is_away_are_late(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "ASK_EVERY", 0.01)
    cluster.away = {THERE}
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    late, here = AsyncWait(64 + 2), AsyncWait(64 + 1)
    kept.start()
    assert kept.enter(late)
    assert kept.enter(here)
    assert await here.outcome(30.0) == (65,)
    assert not late._outcome.done()
    assert "a part of the database does not answer" in caplog.text
    cluster.away = set()
    assert await late.outcome(30.0) == (66,)
    kept.close(5.0)
    assert ("remove_waits", HERE) in cluster.asked
    assert not kept.enter(late)


async def test_waits_go_on_if_it_cannot_be_asked_whether_a_node_is_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_way() -> Any:
        raise ValueError("no way")

    monkeypatch.setattr(nodes, "ASK_EVERY", 0.01)
    cluster.away = {THERE}
    kept = Keeper(cluster, no_way, on_end=lambda *_: None)  # type: ignore[arg-type]
    late = AsyncWait(64 + 2)
    kept.start()
    assert kept.enter(late)
    async with asyncio.timeout(30):
        while "cannot be asked" not in caplog.text:
            await asyncio.sleep(0.01)
    cluster.away = set()
    assert await late.outcome(30.0) == (66,)
    kept.close(5.0)


async def test_a_keeper_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "IDLE_ENDS_AFTER", 0.0)
    cluster, ended = Cluster(), asyncio.Event()
    loop = asyncio.get_running_loop()
    kept = Keeper(
        cluster,  # type: ignore[arg-type]
        lambda: cluster,  # type: ignore[arg-type,return-value]
        on_end=lambda _, left, died_of: loop.call_soon_threadsafe(
            ended.set if (left, died_of) == ([], None) else ended.clear
        ),
    )
    kept.start()
    async with asyncio.timeout(30):
        await ended.wait()
    assert not kept.enter(AsyncWait(1))


async def test_if_a_driver_fails_at_listening_it_is_said_and_waits_go_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Silent, channels: Sequence[str]) -> Any:
        raise ValueError("a fault of the driver's")

    monkeypatch.setattr(Silent, "listen", broken)
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    wait = AsyncWait(64 + 1)
    kept.start()
    assert kept.enter(wait)
    assert await wait.outcome(30.0) == (65,)
    kept.close(5.0)
    assert "a fault of the driver's" in caplog.text


async def test_who_hears_nothing_time_after_time_tries_less_often_until_it_hears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    done = asyncio.Event()

    def no_pause(in_vain: int) -> float:
        asked.append(in_vain)
        if len(asked) == 5:
            done.set()
        return 0.0

    @asynccontextmanager
    async def listen(self: Silent, channels: Sequence[str]) -> AsyncIterator[Any]:
        async def once() -> AsyncIterator[Notification]:
            yield Notification("", "")
            raise ConnectionLost("it broke")

        if len(asked) != 3:
            raise ConnectionFailed("there is a pooler")
        yield once()

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(hearing, "longest_pause", no_pause)
    monkeypatch.setattr(Silent, "listen", listen)
    hears: list[bool] = []
    listening = hearing.Hearing(
        Silent(),
        "channel",
        open=nothing,
        send=nothing,
        on_ended=lambda ids: None,
        on_change=hears.append,
    )
    task = asyncio.create_task(listening.run())
    async with asyncio.timeout(30):
        await done.wait()
    task.cancel()
    assert (asked, hears.count(True)) == ([0, 1, 2, 0, 1], 1)


def test_the_pause_between_tries_to_listen_doubles_up_to_a_limit() -> None:
    pauses = [hearing.longest_pause(in_vain) for in_vain in (0, 1, 2, 4, 5, 10_000)]
    assert pauses == [1.0, 2.0, 4.0, 16.0, 16.0, 16.0]


class Socket:
    """What a driver has in hand while it connects."""


async def test_a_connection_that_was_being_made_at_the_end_does_not_wait_for_a_collection(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting: list[weakref.ref[Socket]] = []

    @asynccontextmanager
    async def connect(self: Silent, channels: Sequence[str]) -> AsyncIterator[Any]:
        socket = Socket()
        connecting.append(weakref.ref(socket))
        await asyncio.Event().wait()
        yield socket

    monkeypatch.setattr(Silent, "listen", connect)
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    gc.disable()
    try:
        kept.start()
        async with asyncio.timeout(30):
            while not connecting:
                await asyncio.sleep(0.001)
        await asyncio.to_thread(kept.close, 30.0)
        assert connecting[0]() is None
    finally:
        gc.enable()


async def test_a_database_that_is_away_is_waited_for_and_said_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.is_away = True
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    wait = AsyncWait(64 + 1)
    kept.start()
    assert kept.enter(wait)
    async with asyncio.timeout(30):
        while "it is away" not in caplog.text:
            await asyncio.sleep(0.01)
    cluster.is_away = False
    assert await wait.outcome(30.0) == (65,)
    kept.close(5.0)
    assert caplog.text.count("when the database is back") == 1


async def test_closing_does_not_wait_for_a_database_that_is_away(cluster: Cluster) -> None:
    cluster.is_away = True
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    those = [AsyncWait(65), AsyncWait(66)]
    assert kept.enter(those[0])
    kept.start()
    assert kept.enter(those[1])
    await asyncio.to_thread(kept.close, 30.0)
    for wait in those:
        outcome = await wait.outcome(30.0)
        assert isinstance(outcome, AppNotOpen)


async def test_a_node_that_is_away_at_the_end_keeps_no_rows_at_others(cluster: Cluster) -> None:
    cluster.status = "todo"
    kept = Keeper(cluster, lambda: cluster, on_end=lambda *_: None)  # type: ignore[arg-type,return-value]
    kept.start()
    for job_id, partition in ((65, HERE), (66, THERE)):
        assert kept.enter(AsyncWait(job_id))
        async with asyncio.timeout(30):
            while ("register_waits", partition) not in cluster.asked:
                await asyncio.sleep(0.001)
    cluster.away = {HERE}
    await asyncio.to_thread(kept.close, 30.0)
    removals = [partition for name, partition in cluster.asked if name == "remove_waits"]
    assert removals == [HERE, THERE]
