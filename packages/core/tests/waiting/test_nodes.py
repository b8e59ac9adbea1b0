"""A node of a distributed database is away: only the waits for its jobs are late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from procrastinate.connector import ListeningConnector, Notification
from procrastinate.drive import Flow, Limit, Request, T, run_steps
from procrastinate.errors import PartitionAway
from procrastinate.model.partitions import VALUES, Partitions
from procrastinate.waiting import keeper, nodes
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
    """A way to a database of two nodes, the jobs of which have ended."""

    def __init__(self) -> None:
        self.connector = Silent()
        self.away: set[int] = set()
        self.asked: list[tuple[str, Any]] = []

    async def run_async(self, flow: Flow[T], *, limit: Limit | None = None) -> T:
        await asyncio.sleep(0)
        return run_steps(flow, self._answer)

    def _answer(self, request: Request) -> Any:
        partition = request.params.get("partition")
        self.asked.append((request.name, partition))
        if partition in self.away:
            raise PartitionAway("the node is away", sqlstate="57P01")
        match request.name:
            case "get_settings":
                return [(64, 0)]
            case "whether it is a cluster":
                return [(1,)]
            case "the partitions of the nodes":
                return [(1, HERE), (2, THERE)]
            case "look_at_jobs":
                return [(each, "failed") for each in request.params["ids"]]  # type: ignore[union-attr]
            case "read_jobs":
                return [(each, "failed", each) for each in request.params["ids"]]  # type: ignore[union-attr]
        return []

    def learn(self, partitions: Partitions) -> None: ...

    async def open_async(self) -> None: ...

    async def close_async(self) -> None: ...


async def test_only_the_waits_for_jobs_of_a_node_that_is_away_are_late(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "ASK_EVERY", 0.01)
    cluster = Cluster()
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
