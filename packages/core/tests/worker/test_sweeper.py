"""What a sweeper does with what it found: claim, tell others, promote in time."""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from procrastinate.drive import NoAnswer
from procrastinate.errors import ConnectionLost, PartitionAway, QueryCanceled
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.partitions import VALUES, Partitions
from procrastinate.storage.claim import Promotion, Waiting
from procrastinate.storage.workers import Beat
from procrastinate.worker.claiming.sweeper import PROMOTE_AGAIN_AFTER, Sweeper
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.helpers.pausing import Paused

MANY = Partitions(64)
INTERVAL = 5.0
ONE, TWO, THREE = VALUES[:3]
LOST = ConnectionLost("the connection broke")
AWAY = PartitionAway("connection refused", sqlstate="08006")


class Scripted:
    """Answers flows by name, and notes them with the partition that they are about."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {
            "sweep": [],
            "promote_due": Promotion(0, None),
            "partitions_by_node": [],
        }

    async def run_async(self, flow: Any, **options: Any) -> Any:
        about: Any = None
        said = inspect.getgeneratorlocals(flow)
        if "flow" in said:  # of `drive.at`
            about, flow = said["partition"], said["flow"]
            said = inspect.getgeneratorlocals(flow)
        if flow.__name__ == "announce":
            about = said["partitions"]
        name = flow.__name__
        flow.close()
        self.ran.append((name, about))
        answer = self.answers.get(f"{name} {about}", self.answers.get(name))
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    """A sweeper with a clock of its own."""

    def __init__(self, queues: list[str] | None = None) -> None:
        self.now = 1_000.0
        self.calls = Scripted()
        self.outages = Outages(self.calls, MANY)  # type: ignore[arg-type]
        self.found: list[int] = []
        self.queues: dict[int, str | None] = {}
        self.rang = 0
        self.paused = Paused()
        self.sweeper = Sweeper(
            self.calls,  # type: ignore[arg-type]
            MANY,
            queues,
            UnknownTasks(),
            self.outages,
            self.paused,
            interval=INTERVAL,
            on_found=self._find,
            clock=lambda: self.now,
        )
        self.sweeper.on_hot = self._ring
        self.sweeper.room = lambda: 2
        self.sweeper.listens = True

    def _find(self, partition: int, queue: str | None) -> None:
        self.found.append(partition)
        self.queues[partition] = queue

    def _ring(self) -> None:
        self.rang += 1

    def beat(self, rank: int, live: int) -> None:
        # The server's clock stands at the beginning of an interval of number 200,000,001.
        now = datetime.fromtimestamp(200_000_001 * INTERVAL, UTC)
        self.sweeper.beaten(Beat(False, rank, live, now))

    async def sweep(self, *found: Waiting) -> list[tuple[str, Any]]:
        self.calls.answers["sweep"] = list(found)
        self.calls.ran.clear()
        await self.sweeper.sweep()
        return self.calls.ran


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_was_found_is_claimed_from_next(bench: Bench) -> None:
    found = Waiting(ONE, 1, 0, None, "q"), Waiting(TWO, 0, 3, None), Waiting(THREE, 1, 0, 9.0)
    await bench.sweep(*found)
    assert set(bench.found) == set(bench.sweeper.turns.heard) == {ONE, THREE}
    assert bench.queues == {ONE: "q", THREE: None}
    assert bench.rang == 1


async def test_a_sweep_that_finds_nothing_wakes_nobody(bench: Bench) -> None:
    bench.beat(0, 2)
    assert await bench.sweep() == [("sweep", None)]
    assert (bench.found, bench.rang) == ([], 0)


@pytest.mark.parametrize(
    ("live", "found", "told"),
    [
        (2, [Waiting(ONE, 2, 0, None)], None),  # there is room for both
        (2, [Waiting(ONE, 2, 0, None), Waiting(TWO, 1, 0, None)], [ONE, TWO]),
        (2, [Waiting(ONE, 3, 0, None), Waiting(TWO, 0, 0, 9.0)], [ONE]),
        (1, [Waiting(ONE, 3, 0, None)], None),  # there is nobody to tell
    ],
)
async def test_others_are_told_of_what_there_is_no_room_for(
    bench: Bench, live: int, found: list[Waiting], told: list[int] | None
) -> None:
    bench.beat(0, live)
    ran = await bench.sweep(*found)
    assert ran == [("sweep", None), *([("announce", told)] if told else [])]


@pytest.mark.parametrize(("rank", "told"), [(0, None), (1, [TWO])])
async def test_at_its_turn_a_worker_of_some_queues_tells_of_the_others(
    rank: int, told: list[int] | None
) -> None:
    bench = Bench(["mine"])
    bench.beat(rank, 2)
    ran = await bench.sweep(Waiting(ONE, 1, 0, None), Waiting(TWO, 0, 1, None))
    assert ran == [("sweep", None), *([("announce", told)] if told else [])]


@pytest.mark.parametrize(
    ("rank", "live", "seconds"), [(0, 1, 5), (1, 4, 20), (2, 4, 5), (0, 4, 15), (3, 4, 10)]
)
async def test_workers_of_all_queues_take_turns(
    bench: Bench, rank: int, live: int, seconds: float
) -> None:
    bench.beat(rank, live)
    await bench.sweep()
    assert bench.sweeper.turns.sweep_at == pytest.approx(bench.now + seconds)


@pytest.mark.parametrize("reason", ["some queues", "deaf", "no beat yet"])
async def test_any_other_worker_sweeps_in_each_interval(reason: str) -> None:
    bench = Bench(["mine"] if reason == "some queues" else None)
    bench.sweeper.listens = reason != "deaf"
    if reason != "no beat yet":
        bench.beat(1, 4)
    await bench.sweep()
    assert bench.sweeper.turns.sweep_at == bench.now + INTERVAL


async def test_beats_that_say_the_same_do_not_put_a_turn_off(bench: Bench) -> None:
    bench.beat(1, 4)
    await bench.sweep()
    due = bench.sweeper.turns.sweep_at
    bench.now = due - 0.1
    bench.beat(1, 4)
    assert bench.sweeper.turns.sweep_at == due
    bench.beat(1, 2)  # two are gone
    assert bench.sweeper.turns.sweep_at != due


async def test_a_failed_sweep_is_due_again(bench: Bench) -> None:
    bench.calls.answers["sweep"] = LOST
    with pytest.raises(ConnectionLost):
        await bench.sweeper.sweep()
    assert bench.sweeper.turns.sweep_due_at(bench.now) <= bench.now


async def test_if_a_part_is_away_all_others_count_as_found(bench: Bench) -> None:
    bench.calls.answers |= {
        "sweep": AWAY,
        "partitions_by_node": [[ONE], list(VALUES[1:])],
        f"probe_partition {ONE}": AWAY,
    }
    await bench.sweeper.sweep()
    assert set(bench.found) == set(VALUES) - {ONE}
    assert ("promote_due", TWO) in bench.calls.ran
    assert ("promote_due", ONE) not in bench.calls.ran
    bench.calls.ran.clear()
    await bench.sweeper.sweep()
    assert ("sweep", None) not in bench.calls.ran  # it would wait for the node


# --- Schedules ------------------------------------------------------------------------------------


async def test_scheduled_jobs_are_promoted_when_they_are_due(bench: Bench) -> None:
    ran = await bench.sweep(Waiting(ONE, 0, 0, 2.0), Waiting(TWO, 0, 0, 0.0))
    assert ran == [("sweep", None), ("promote_due", TWO)]
    assert bench.found == []  # none was due after all
    bench.now += 2.0
    bench.calls.answers["promote_due"] = Promotion(3, 7.0)
    await bench.sweeper._promote_due()
    assert bench.calls.ran[2:] == [("promote_due", ONE)]
    assert (bench.found, bench.sweeper.turns.heard) == ([ONE], (ONE,))
    assert bench.sweeper._next_promotion() == (bench.now + 7.0, ONE)


async def test_a_job_that_is_scheduled_soon_makes_its_partition_due(bench: Bench) -> None:
    bench.calls.answers["promote_due"] = Promotion(0, 0.5)
    bench.sweeper.schedule_changed(TWO)
    await bench.sweeper._promote_due()
    assert bench.calls.ran == [("promote_due", TWO)]
    assert bench.sweeper._next_promotion() == (bench.now + 0.5, TWO)


@pytest.mark.parametrize("exc", [LOST, AWAY])
async def test_a_failed_promotion_is_made_again(bench: Bench, exc: Exception) -> None:
    bench.calls.answers["promote_due"] = exc
    bench.sweeper.schedule_changed(TWO)
    if exc is LOST:
        with pytest.raises(ConnectionLost):
            await bench.sweeper._promote_due()
    else:
        await bench.sweeper._promote_due()
        assert bench.sweeper._next_promotion()[0] == float("inf")
        bench.outages.away.clear()
    assert bench.sweeper._next_promotion() == (bench.now + PROMOTE_AGAIN_AFTER, TWO)


async def test_news_during_a_promotion_is_a_reason_for_another(bench: Bench) -> None:
    async def meanwhile(flow: Any, **options: Any) -> Any:
        flow.close()
        bench.sweeper.schedule_changed(TWO)
        return Promotion(0, None)

    bench.sweeper.schedule_changed(TWO)
    bench.calls.run_async = meanwhile  # type: ignore[method-assign]
    await bench.sweeper._promote(TWO)
    assert bench.sweeper._next_promotion() == (-float("inf"), TWO)


# --- Outages --------------------------------------------------------------------------------------


async def test_an_outage_is_probed_one_partition_at_a_time_until_it_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    monkeypatch.setattr("procrastinate.worker.database.outages.PROBE_EVERY", 0.01)
    back: list[int] = []
    bench.outages.on_back.append(back.append)
    for partition in (ONE, TWO, THREE):
        bench.outages.failed(partition, AWAY)
    bench.calls.answers["probe_partition"] = AWAY
    probing = asyncio.create_task(bench.outages.run())
    await until(lambda: len(bench.calls.ran) >= 4)
    assert bench.calls.ran[:4] == [("probe_partition", each) for each in (ONE, TWO, THREE, ONE)]
    assert back == []
    bench.calls.answers["probe_partition"] = None
    await until(lambda: not bench.outages.away)
    assert sorted(back) == sorted((ONE, TWO, THREE))
    probing.cancel()


async def test_each_outage_is_told_once_for_each_kind_of_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    monkeypatch.setattr("procrastinate.worker.database.outages.PROBE_EVERY", 0.01)
    caplog.set_level(logging.INFO, logger="procrastinate.worker")
    silent = QueryCanceled("statement timeout", sqlstate="57014")
    for exc in (AWAY, AWAY, silent, AWAY, silent):
        assert await bench.outages.is_one(exc)  # of a read over all partitions
    assert len(caplog.messages) == 2
    probing = asyncio.create_task(bench.outages.run())
    await until(lambda: len(caplog.messages) == 3)
    assert caplog.messages[-1] == "all parts of the database answer again"
    bench.outages.failed(ONE, AWAY)  # another outage
    assert len(caplog.messages) == 4
    probing.cancel()


async def test_with_one_partition_every_error_is_the_database_s() -> None:
    assert not await Outages(Scripted(), Partitions()).is_one(AWAY)  # type: ignore[arg-type]
    assert await Outages(Scripted(), MANY).is_one(AWAY)  # type: ignore[arg-type]
    assert not await Outages(Scripted(), MANY).is_one(LOST)  # type: ignore[arg-type]


SILENT = NoAnswer("the database has not answered within 5 s")


@pytest.mark.parametrize("partition", [ONE, None])
async def test_all_partitions_of_a_silent_node_are_away_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, partition: int | None
) -> None:
    bench.calls.answers |= {
        "partitions_by_node": [[ONE, TWO], [THREE]],
        f"probe_partition {ONE}": SILENT,
    }
    assert await bench.outages.is_one(SILENT, partition)
    assert set(bench.outages.away) == {ONE, TWO}
    assert len(caplog.messages) == 1
    assert await bench.outages.is_one(SILENT, TWO)
    assert not await bench.outages.is_one(SILENT, THREE)


async def test_a_node_that_fails_takes_its_other_partitions_with_it(bench: Bench) -> None:
    bench.calls.answers |= {
        "partitions_by_node": [[ONE, TWO], [THREE]],
        f"probe_partition {ONE}": AWAY,
    }
    assert await bench.outages.is_one(AWAY, TWO)
    assert set(bench.outages.away) == {ONE, TWO}


@pytest.mark.parametrize("answer", [SILENT, LOST, TimeoutError(), [[ONE], [TWO]], []])
async def test_a_call_without_an_answer_is_no_outage_of_a_node_if_none_fails(
    bench: Bench, answer: object
) -> None:
    """The database itself is silent, or all nodes answer, or it has none."""
    bench.calls.answers["partitions_by_node"] = answer
    assert not await bench.outages.is_one(SILENT, ONE)
    assert not bench.outages.away


async def test_a_sweep_waits_for_a_promotion_that_is_under_way(bench: Bench) -> None:
    """Else a worker that ends when nothing is ready would leave behind what becomes ready now."""
    go, run_async = asyncio.Event(), bench.calls.run_async

    async def slowly(flow: Any, **options: Any) -> Any:
        name = flow.__name__
        answer = await run_async(flow, **options)
        if name == "promote_due":
            await go.wait()
        return answer

    bench.calls.run_async = slowly  # type: ignore[method-assign]
    bench.calls.answers |= {"sweep": [Waiting(ONE, 0, 0, 0.0)], "promote_due": Promotion(1, None)}
    first = asyncio.create_task(bench.sweeper.sweep())
    while ("promote_due", ONE) not in bench.calls.ran:
        await asyncio.sleep(0)
    bench.calls.answers["sweep"] = []
    second = asyncio.create_task(bench.sweeper.sweep())
    while [name for name, _ in bench.calls.ran].count("sweep") < 2:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    go.set()
    await asyncio.gather(first, second)
    assert bench.found == [ONE]
