"""A worker goes on with the lines before locks: the end of a job begins the next one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import procrastinate
from procrastinate.errors import ConnectionLost
from procrastinate.model.claiming.ahead import Ahead
from procrastinate.model.endings.outcome import SUCCEEDED
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import ONE
from procrastinate.model.worker_options import worker_options
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, Settled
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker.claiming import claiming, meeting
from procrastinate.worker.claiming.claiming import Claiming
from procrastinate.worker.claiming.claims import Claims
from procrastinate.worker.claiming.meeting import IN_A_ROW, Meeting
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.stopping import StopRequests
from procrastinate.worker.writing.parts import evenly
from procrastinate.worker.writing.writer import LINES_AT_ONCE

Until = Callable[..., Awaitable[None]]
Query = Callable[..., list[tuple[Any, ...]]]
HandOver = Callable[..., Awaitable[HandedOver]]

JOBS = 200
STEPS = 20


@pytest.fixture(autouse=True)
def lines_are_always_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly a busy machine goes on with them."""
    monkeypatch.setattr(claiming, "LINES_EXPECTED_FOR", 3600.0)


@pytest.fixture
def around_hand_over(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Let a function stand between workers and the handing over of locks."""
    hand_over = Claims.hand_over

    def around(function: Callable[..., Awaitable[HandedOver]]) -> None:
        async def wrapped(self: Claims, *args: Any) -> HandedOver:
            return await function(hand_over, self, *args)

        monkeypatch.setattr(Claims, "hand_over", wrapped)

    return around


@pytest.mark.parametrize("result", [False, True], ids=["", "with results"])
async def test_the_end_of_a_job_begins_the_next_one_of_its_line(
    any_app: procrastinate.App, around_hand_over: Any, until: Until, result: bool
) -> None:
    ran: list[int] = []
    handed_over: list[int] = []

    async def noting(hand_over: HandOver, *args: Any) -> HandedOver:
        done = await hand_over(*args)
        handed_over.extend(job.task_kwargs["n"] for job in done.claim.jobs)
        return done

    around_hand_over(noting)

    @any_app.task(name="in_line", lock="line", result=result)
    async def in_line(n: int) -> int:
        ran.append(n)
        return n

    async with any_app.worker(concurrency=2):
        await in_line.batch_defer_async(*({"n": n} for n in range(JOBS)))
        await until(lambda: len(ran) == JOBS)

    assert ran == list(range(JOBS))
    jobs = await any_app.job_manager.list_jobs_async()
    assert [job.result for job in jobs] == (ran if result else [None] * JOBS)
    assert len(handed_over) >= 10, "of nearly all"
    assert handed_over == sorted(handed_over)


async def test_a_worker_that_does_not_wait_goes_on_with_lines_in_the_same_way(
    app: procrastinate.App, around_hand_over: Any
) -> None:
    """It looks again before it ends, and not at the end of each job."""
    ran: list[int] = []
    handed_over: list[Job] = []

    async def noting(hand_over: HandOver, *args: Any) -> HandedOver:
        done = await hand_over(*args)
        handed_over.extend(done.claim.jobs)
        return done

    around_hand_over(noting)

    @app.task(name="in_line", lock="line")
    async def in_line(n: int) -> None:
        ran.append(n)

    await in_line.batch_defer_async(*({"n": n} for n in range(50)))
    await app.run_worker_async(concurrency=2, wait=False)
    assert ran == list(range(50))
    assert len(handed_over) >= 40


async def test_many_lines_go_on_in_parts(
    app: procrastinate.App, around_hand_over: Any, until: Until
) -> None:
    """So that the jobs of some lines run while the database goes on with others."""
    ran: dict[str, list[int]] = {f"line {n}": [] for n in range(LINES_AT_ONCE + 10)}
    sizes: list[int] = []
    together = asyncio.Barrier(len(ran))

    async def noting(hand_over: HandOver, claims: Claims, ended: Any, limit: int) -> HandedOver:
        done = await hand_over(claims, ended, limit)
        sizes.append(len(ended))
        return done

    around_hand_over(noting)

    @app.task(name="in_line")
    async def in_line(line: str, n: int) -> None:
        ran[line].append(n)
        await together.wait()

    for line in ran:
        in_this_line = in_line.configure(lock=line)
        await in_this_line.batch_defer_async(*({"line": line, "n": n} for n in range(STEPS)))
    async with app.worker(concurrency=len(ran)):
        await until(lambda: all(len(each) == STEPS for each in ran.values()))

    assert all(each == list(range(STEPS)) for each in ran.values())
    assert sizes
    assert max(sizes) <= LINES_AT_ONCE


async def test_after_a_lost_answer_every_job_of_a_line_runs_once_and_in_order(
    any_app: procrastinate.App, around_hand_over: Any, until: Until
) -> None:
    ran: list[int] = []
    lost: list[int] = []

    async def losing(hand_over: HandOver, *args: Any) -> HandedOver:
        done = await hand_over(*args)
        if done.claim.jobs and len(lost) < 5:
            lost.extend(job.id for job in done.claim.jobs)
            raise ConnectionLost("the answer was lost")
        return done

    around_hand_over(losing)

    @any_app.task(name="in_line", lock="line")
    async def in_line(n: int) -> None:
        ran.append(n)

    async with any_app.worker(concurrency=2):
        await in_line.batch_defer_async(*({"n": n} for n in range(JOBS)))
        await until(lambda: len(ran) == JOBS)

    assert len(lost) == 5
    assert ran == list(range(JOBS))
    jobs = any_app.job_manager.list_jobs_async(limit=JOBS)
    assert {(job.status, job.attempts) for job in await jobs} == {(Status.SUCCEEDED, 1)}


async def test_what_is_handed_over_to_a_worker_that_stops_goes_back(
    app: procrastinate.App, query: Query, around_hand_over: Any
) -> None:
    ran: list[int] = []
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(hand_over: HandOver, *args: Any) -> HandedOver:
        done = await hand_over(*args)
        if done.claim.jobs:
            in_flight.set()
            await go_on.wait()
        return done

    around_hand_over(slowly)

    @app.task(name="in_line", lock="line")
    async def in_line() -> None:
        ran.append(1)

    await in_line.batch_defer_async(*[{}] * 50)
    running = asyncio.create_task(app.run_worker_async(concurrency=2))
    async with asyncio.timeout(60):
        await in_flight.wait()
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(running, return_exceptions=True)

    ended = query("select count(*) from procrastinate_jobs where status = 'succeeded'")
    waiting = query("select count(*) from procrastinate_jobs where status = 'todo'")
    assert ended == [(len(ran),)]
    assert waiting == [(50 - len(ran),)]
    assert query("select count(*) from procrastinate_locks where job_id is not null") == [(0,)]


class Lines:
    """A worker's claiming, of which only the lines are looked at."""

    def __init__(self) -> None:
        self.room = 3
        self.trusts = True
        self.sent: list[int] = []
        self.taken: list[Job] = []
        self.refused: list[Job] = []
        self.fails = False
        self.waits: list[asyncio.Event] = []
        self.stop = StopRequests(on_request=lambda: None)
        self.wake = asyncio.Event()
        self.claiming = Claiming(
            cast(Any, None),
            1,
            worker_options(),
            stop=self.stop,
            wake=self.wake,
            trusted=lambda: self.trusts,
            ahead=Ahead(random.Random(1)),
            unknown=None,
            places=Places(ONE),
            outages=Outages(cast(Any, None), ONE),
            paused=Paused(),
        )
        inner: Any = self.claiming
        self.meeting: Meeting = inner._meeting
        inner._fetcher = SimpleNamespace(
            hand_over=self._hand_over,
            left_none_in=lambda partition, is_claimed: not is_claimed,
            went_back=lambda jobs, partition: None,
            hear=lambda payload: True,
            claims_beside_lines=False,
        )
        inner._backlog = SimpleNamespace(
            room=lambda enough=None: self.room,
            free=lambda: self.room,
            take_next=lambda claim, sent_at: self.taken.extend(claim.jobs),
            refuse=self.refused.extend,
        )
        self.unwritten = [7]
        inner._writer = self.unwritten
        # A line goes on, and a claim has found nothing to do.
        self.claiming.went_back([], ["queue"], 0)
        inner._claim_alarm.set(float("inf"))

    async def _hand_over(self, ended: list[Ended], limit: int, partition: int) -> HandedOver:
        self.sent.append(limit)
        if self.waits:
            await self.waits.pop(0).wait()
        if self.fails:
            raise ConnectionLost("lost")
        settled = Settled({each.job.id: Status.SUCCEEDED for each in ended})
        return HandedOver(settled, Claim([Job(8, Status.DOING, "q", "t", {}, lock="l")]))

    async def end_a_job(self) -> Settled | None:
        job = Job(7, Status.DOING, "q", "t", {}, lock="l")
        return await self.claiming.hand_over([Ended(job, SUCCEEDED)], 0)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (64, [64]), (65, [33, 32]), (128, [64, 64]), (129, [43, 43, 43])],
)
def test_lines_are_divided_evenly(count: int, sizes: list[int]) -> None:
    jobs = [Job(n, Status.DOING, "q", "t", {}, lock="l") for n in range(count)]
    ended = [Ended(job, SUCCEEDED) for job in jobs]
    parts = evenly(ended, 64)
    assert [len(part) for part in parts] == sizes
    assert [each for part in parts for each in part] == ended


async def test_a_lock_is_handed_over_if_there_is_nothing_else_to_claim() -> None:
    lines = Lines()
    settled = await lines.end_a_job()
    assert settled == Settled({7: Status.SUCCEEDED})
    assert lines.sent == [1]
    assert [job.id for job in lines.taken] == [8]


async def test_aborts_are_heard_for_each_answer_that_is_under_way() -> None:
    """Lines of several partitions may go on beside each other."""
    lines = Lines()
    looks: list[int] = []
    first, second = asyncio.Event(), asyncio.Event()
    lines.waits = [first, second]
    inner: Any = lines.claiming
    inner._look_for_aborts = lambda: looks.append(1)
    one = asyncio.create_task(lines.end_a_job())
    other = asyncio.create_task(lines.end_a_job())
    await asyncio.sleep(0)
    assert lines.sent == [1, 1]
    first.set()
    await one
    lines.claiming.heard_of_aborts({8})
    second.set()
    await other
    assert looks == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines.claiming.look_now(),
        lambda lines: lines.claiming.heard_of("queue"),
        lambda lines: lines.stop.request(),
        lambda lines: setattr(lines, "trusts", False),
        lambda lines: setattr(lines, "room", 0),
        lambda lines: setattr(lines.claiming, "_lines_until", 0.0),
        lambda lines: lines.meeting.sent(),
    ],
    ids=["look", "news", "stop", "no trust", "no room", "no line goes on", "beside a claim"],
)
async def test_what_keeps_a_worker_from_going_on_with_a_line(
    change: Callable[[Lines], None],
) -> None:
    """Above all: that another job may come first."""
    lines = Lines()
    change(lines)
    assert await lines.end_a_job() is None
    assert lines.sent == []


async def test_a_worker_looks_at_once_if_an_answer_was_lost() -> None:
    lines = Lines()
    lines.fails = True
    with pytest.raises(ConnectionLost):
        await lines.end_a_job()
    assert lines.wake.is_set()
    lines.fails = False
    assert await lines.end_a_job() is None, "the claim that looks comes first"


@pytest.mark.parametrize("change", ["nothing", "news", "look"])
async def test_ends_wake_no_claiming_that_waits_for_the_time_of_its_next_look(change: str) -> None:
    """In a step of ten lines it woke twice, in vain: a fortieth of the step."""
    lines = Lines()
    inner: Any = lines.claiming
    inner._backlog.wants_look = False
    lines.wake.clear()
    sleep = asyncio.create_task(inner._sleep(float("inf")))
    await asyncio.sleep(0)
    lines.claiming.something_ended()
    assert not lines.wake.is_set()
    if change == "news":
        lines.claiming.heard_of("queue")
    elif change == "look":
        lines.claiming.look_now()
    woken = lines.wake.is_set()
    sleep.cancel()
    await asyncio.gather(sleep, return_exceptions=True)
    assert woken is (change != "nothing")
    lines.claiming.something_ended()
    assert lines.wake.is_set(), "nothing waits for a time"


async def meeting_claims(lines: Lines) -> asyncio.Task[Settled | None]:
    """End jobs while claims are under way, as often as is borne, and then one more."""
    lines.meeting.sent()
    for _ in range(IN_A_ROW):
        assert await lines.end_a_job() is None
    last = asyncio.create_task(lines.end_a_job())
    for _ in range(3):
        await asyncio.sleep(0)
    return last


async def test_endings_that_meet_claims_again_and_again_wait_for_the_answer() -> None:
    """Else those of some lines would meet the claims for the others, to the end of all lines."""
    lines = Lines()
    last = await meeting_claims(lines)
    assert not last.done()
    lines.meeting.brought(full=False)
    lines.meeting.ended()
    assert await last == Settled({7: Status.SUCCEEDED})
    assert lines.sent == [1]


async def test_endings_do_not_wait_for_a_claim_that_leaves_a_backlog() -> None:
    """The next one follows at once."""
    lines = Lines()
    last = await meeting_claims(lines)
    lines.meeting.brought(full=True)
    lines.meeting.ended()
    lines.meeting.sent()
    assert await last is None


async def test_endings_of_many_lines_do_not_wait() -> None:
    lines = Lines()
    lines.unwritten *= claiming.FEW_LINES + 1
    assert await (await meeting_claims(lines)) is None


async def test_endings_do_not_wait_long_for_a_slow_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MAY_TAKE", 0.01)
    assert await (await meeting_claims(Lines())) is None
