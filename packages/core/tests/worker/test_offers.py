"""Threads that go on with the next job by themselves, while the event loop does something else.

The loop stands still where a test waits for a thread without `await`. So it knows nothing of what
the threads have taken meanwhile, which is when it must not err.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

import procrastinate
from procrastinate.model.claiming.ahead import Ahead
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, UNSTARTED, AbortReason
from procrastinate.model.job import Job, Status
from procrastinate.model.liveness.trust import Trust
from procrastinate.model.partitions import ONE
from procrastinate.model.queues import Pause, Pauses
from procrastinate.model.worker_options import worker_options
from procrastinate.storage.claim import Claim
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.backlog import backlog
from procrastinate.worker.backlog.backlog import Backlog
from procrastinate.worker.clock import since_boot
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.running import threads
from procrastinate.worker.running.slots import Slots
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.writer import Writer

PATIENCE = 60.0  # seconds for what a thread does at once
FIRST, SECOND, THIRD = 1, 2, 3


async def _hands_nothing_over(*_: object) -> None:
    return None


class Held:
    """A task whose jobs wait, each until the test lets it end."""

    def __init__(self) -> None:
        self.contexts: dict[int, procrastinate.JobContext] = {}
        self.begins = {n: threading.Event() for n in range(1, 7)}
        self.may_end = {n: threading.Event() for n in range(1, 7)}
        self.raises: dict[int, BaseException] = {}

    def __call__(self, context: procrastinate.JobContext, n: int) -> None:
        self.contexts[n] = context
        self.begins[n].set()
        assert self.may_end[n].wait(PATIENCE)
        if n in self.raises:
            raise self.raises[n]

    def end(self, n: int) -> None:
        self.may_end[n].set()

    def has_begun(self, n: int) -> bool:
        """Wait for a job to begin, while the loop stands still."""
        return self.begins[n].wait(PATIENCE)


class Scene:
    """Slots and a backlog whose claims are made up, and whose endings no one writes."""

    def __init__(self, app: procrastinate.App, concurrency: int) -> None:
        trust = Trust(timeout=60.0, sent_at=since_boot())
        self.wanted = 0  # how often more jobs were asked for
        ahead = Ahead(random.Random(1))
        self.writer = Writer(
            cast(Any, None),
            1,
            "never",
            Places(ONE),
            Outages(cast(Any, None), ONE),
            on_written=_nothing,
            on_requeued=_nothing,
            on_released=_nothing,
            hand_over=_hands_nothing_over,
            echoes=Echoes(),
            on_lost=_nothing,
        )
        self.slots = Slots(
            app=app,
            registry=app._registry,
            writer=self.writer,
            options=worker_options(concurrency=concurrency),
            worker=cast(Any, SimpleNamespace(name="scene", stop=_nothing)),
            ahead=ahead,
            read_errors=lambda job_id: [],
            is_doubtful=lambda: False,
            trust=trust,
        )
        self.paused = Paused()
        self.backlog = Backlog(
            self.slots,
            self.writer,
            concurrency=concurrency,
            ahead=ahead,
            trust=trust,
            on_change=self._want,
            on_look=_nothing,
            paused=self.paused,
        )

    def _want(self) -> None:
        self.wanted += 1

    def claim(self, *jobs: Job) -> None:
        self.backlog.take(Claim(list(jobs)), short=False, sent_at=since_boot())

    def pause(self, *queues: str) -> None:
        self.paused.now = Pauses(tuple(Pause(each, datetime.now(UTC)) for each in queues))

    def outcome(self, job_id: int) -> Any:
        entry = self.writer.unwritten.get(job_id)
        return entry and entry.outcome

    async def until_ended(self, *job_ids: int) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            while not all(job_id in self.writer for job_id in job_ids):
                await asyncio.sleep(0.001)
        return [self.outcome(job_id) for job_id in job_ids]


def _nothing(*args: object) -> None: ...


def job(
    n: int, task: str = "held", lease: int = 1, lock: str | None = None, queue: str = "default"
) -> Job:
    return Job(n, Status.DOING, queue, task, {"n": n}, attempts=1, lease=lease, lock=lock)


@pytest.fixture
def app() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


@pytest.fixture
def held(app: procrastinate.App) -> Iterator[Held]:
    held = Held()

    @app.task(name="held", pass_context=True)
    def task(context: procrastinate.JobContext, n: int) -> None:
        held(context, n)

    yield held
    for each in held.may_end.values():
        each.set()


@pytest.fixture
async def scene(app: procrastinate.App, held: Held) -> Scene:
    """One slot: the first job runs, and the second and the third wait."""
    scene = Scene(app, concurrency=1)
    scene.claim(job(FIRST), job(SECOND), job(THIRD))
    await asyncio.sleep(0)
    assert held.has_begun(FIRST)
    return scene


def let_the_thread_go_on(held: Held) -> None:
    """Let the first job end and the second one begin: the loop hears of neither meanwhile."""
    held.end(FIRST)
    assert held.has_begun(SECOND)


def wait_for_reports(scene: Scene, count: int) -> None:
    """Wait until threads have told of some ends, while the loop stands still."""
    deadline = time.monotonic() + PATIENCE
    while len(scene.slots._threads._ended) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waits(held: Held) -> None:
    """Let the second job wait on offer."""


def was_taken(held: Held) -> None:
    """Let a thread have begun the second job, of which the loop does not know yet."""
    let_the_thread_go_on(held)


both = pytest.mark.parametrize("second", [waits, was_taken])
Second = Callable[[Held], None]


@both
async def test_the_jobs_of_a_paused_queue_that_wait_go_back(
    scene: Scene, held: Held, second: Second
) -> None:
    """What a thread has begun before runs on; what comes with a later answer goes back too."""
    scene.claim(job(4, queue="mail"), job(5))
    second(held)
    scene.pause("default")
    scene.backlog.give_back_paused()
    begun = [SECOND] if second is was_taken else []
    scene.claim(job(6))
    back = {*range(2, 7)} - {*begun, 4}
    assert {n for n in range(1, 7) if scene.outcome(n) == UNSTARTED} == back
    for n in (FIRST, *begun):
        held.end(n)
    assert await scene.until_ended(FIRST, *begun) == [SUCCEEDED] * (1 + len(begun))
    held.end(4)
    assert await scene.until_ended(4) == [SUCCEEDED]
    assert {*held.contexts} == {FIRST, *begun, 4}


async def test_a_pause_of_other_queues_changes_nothing(scene: Scene, held: Held) -> None:
    scene.pause("mail")
    scene.backlog.give_back_paused()
    for n in (FIRST, SECOND, THIRD):
        held.end(n)
    assert await scene.until_ended(FIRST, SECOND, THIRD) == [SUCCEEDED] * 3


async def test_the_next_job_begins_while_the_loop_stands_still(scene: Scene, held: Held) -> None:
    offered = time.time()
    let_the_thread_go_on(held)

    assert held.contexts[SECOND].start_timestamp >= offered
    assert held.contexts[SECOND].start_timestamp > held.contexts[FIRST].start_timestamp
    held.end(SECOND)
    held.end(THIRD)
    assert await scene.until_ended(FIRST, SECOND, THIRD) == [SUCCEEDED] * 3
    assert not scene.backlog.busy


async def test_a_job_has_ended_when_its_code_returned_and_not_when_the_loop_heard_of_it(
    scene: Scene, held: Held
) -> None:
    let_the_thread_go_on(held)
    held.end(SECOND)
    wait_for_reports(scene, 2)
    reported = time.monotonic()
    await scene.until_ended(FIRST, SECOND)

    for n in (FIRST, SECOND):
        entry = scene.writer.unwritten[n]
        assert 0 < entry.began <= entry.ended <= reported


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
async def test_after_a_job_that_raises_the_loop_starts_the_next_one(
    scene: Scene, held: Held, error: type[BaseException]
) -> None:
    held.raises[FIRST] = error()
    held.end(FIRST)
    wait_for_reports(scene, 1)

    assert not held.begins[SECOND].is_set()
    for n in (SECOND, THIRD):
        held.end(n)
    failed, *others = await scene.until_ended(FIRST, SECOND, THIRD)
    assert failed.status is Status.FAILED
    assert others == [SUCCEEDED] * 2


async def test_without_trust_a_thread_does_not_begin_what_was_offered(
    scene: Scene, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "since_boot", lambda: since_boot() + 60.0)
    held.end(FIRST)

    assert await scene.until_ended(FIRST, SECOND, THIRD) == [SUCCEEDED, UNSTARTED, UNSTARTED]
    assert not held.begins[SECOND].is_set()
    assert not scene.backlog.busy


@both
async def test_stopping_hands_back_what_has_not_begun(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)

    scene.backlog.give_back()

    begun = held.begins[SECOND].is_set()
    assert scene.outcome(SECOND) == (None if begun else UNSTARTED)
    assert scene.outcome(THIRD) == UNSTARTED
    held.end(FIRST)
    held.end(SECOND)
    assert await scene.until_ended(FIRST, SECOND) == [SUCCEEDED, SUCCEEDED if begun else UNSTARTED]
    assert not held.begins[THIRD].is_set()


@both
async def test_a_job_that_is_aborted_has_not_begun_or_is_told(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)

    begun = held.begins[SECOND].is_set()
    scene.backlog.abort({SECOND})

    assert scene.outcome(SECOND) == (None if begun else UNSTARTED)
    if begun:
        assert held.contexts[SECOND].abort_reason() is AbortReason.USER_REQUEST
    for n in (FIRST, SECOND, THIRD):
        held.end(n)
    await scene.until_ended(FIRST, SECOND, THIRD)
    assert held.begins[SECOND].is_set() is begun


@both
async def test_a_job_that_is_lost_does_not_begin_or_is_told(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)

    begun = held.begins[SECOND].is_set()
    scene.backlog.lose({SECOND})
    for n in (FIRST, SECOND, THIRD):
        held.end(n)
    await scene.until_ended(FIRST, THIRD)

    assert held.begins[SECOND].is_set() is begun
    if begun:
        assert held.contexts[SECOND].abort_reason() is AbortReason.LEASE_LOST


@both
async def test_a_job_that_comes_again_with_a_new_claim_runs_once_and_under_that(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)

    scene.claim(job(SECOND, lease=2), job(THIRD, lease=2))
    for n in (FIRST, SECOND, THIRD):
        held.end(n)
    await scene.until_ended(FIRST, SECOND, THIRD)

    entries = [scene.writer.unwritten.get(n) for n in (SECOND, THIRD)]
    assert [(entry and entry.job.lease, entry and entry.outcome) for entry in entries] == [
        (2, SUCCEEDED),
        (2, SUCCEEDED),
    ]
    assert len(scene.writer) == 3


@both
async def test_every_job_is_held_whatever_threads_have_taken(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)

    assert scene.backlog.leases() == {FIRST: 1, SECOND: 1, THIRD: 1}
    assert all(n in scene.backlog for n in (FIRST, SECOND, THIRD))
    assert scene.backlog.room() == 0


@both
async def test_leaving_gives_back_what_runs_and_begins_nothing_more(
    scene: Scene, held: Held, second: Second
) -> None:
    second(held)
    begun = held.begins[SECOND].is_set()

    scene.backlog.give_back()
    scene.slots.abort_all()
    scene.slots.give_back()
    scene.slots.close()
    for n in (FIRST, SECOND, THIRD):
        held.end(n)
    await asyncio.sleep(0.01)

    assert scene.outcome(SECOND) == (INTERRUPTED if begun else UNSTARTED)
    assert scene.outcome(THIRD) == UNSTARTED
    assert not held.begins[THIRD].is_set()


async def test_a_job_that_is_left_while_its_thread_takes_it_does_not_begin(
    scene: Scene, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop gives it back between the two steps of its thread: taking it, and beginning it."""
    taken, go_on = threading.Event(), threading.Event()

    def slow_question(moment: float) -> bool:
        taken.set()
        return go_on.wait(PATIENCE)

    scene.backlog.give_back()
    monkeypatch.setattr(scene.backlog, "_trusted_since", slow_question)
    again = [replace(job(n), id=n + 10, task_kwargs={"n": n}) for n in (SECOND, THIRD)]
    go_on.set()
    scene.claim(*again)
    await asyncio.sleep(0)
    go_on.clear()
    held.end(FIRST)
    assert taken.wait(PATIENCE)

    scene.backlog.give_back()
    scene.slots.abort_all()
    scene.slots.give_back()
    go_on.set()
    await asyncio.sleep(0.01)

    assert not held.begins[SECOND].is_set()


async def test_closed_slots_begin_nothing_more(scene: Scene, held: Held) -> None:
    scene.slots.close()
    held.end(FIRST)
    wait_for_reports(scene, 1)

    assert not held.begins[SECOND].is_set()


async def test_more_jobs_are_wanted_when_threads_have_taken_those_that_waited(
    app: procrastinate.App, held: Held
) -> None:
    scene = Scene(app, concurrency=1)
    scene.claim(job(FIRST), job(SECOND))
    await asyncio.sleep(0)
    let_the_thread_go_on(held)
    assert scene.wanted == 0

    await scene.until_ended(FIRST)

    assert scene.wanted == 1


@pytest.mark.parametrize("locked", [FIRST, THIRD], ids=["started by the loop", "by a thread"])
async def test_the_end_of_a_job_with_a_lock_is_written_without_a_pause(
    app: procrastinate.App, held: Held, locked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on with another job, and another one is left for the next thread."""
    monkeypatch.setattr(threads, "PAUSE", 60.0)
    scene = Scene(app, concurrency=2)
    scene.claim(*(job(n, lock="line" if n == locked else None) for n in range(1, 7)))
    await asyncio.sleep(0)
    held.end(SECOND)
    await scene.until_ended(SECOND)
    assert held.has_begun(FIRST)
    assert held.has_begun(THIRD)

    held.end(locked)

    assert await scene.until_ended(locked) == [SUCCEEDED]
    assert scene.slots._threads.offers_left


async def test_a_job_on_offer_for_which_there_is_no_thread_goes_back_as_any_other(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    Watched(app)
    go_on = asyncio.Event()

    @app.task(name="waits")
    async def waits(n: int) -> None:
        await go_on.wait()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: complaints.append(what))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    scene = Scene(app, concurrency=1)
    scene.claim(job(FIRST, "waits"), job(SECOND, "plain"), job(THIRD, "on_loop"))
    await asyncio.sleep(0.01)
    assert len(scene.slots.offers) == 1
    go_on.set()

    first, second, third = await scene.until_ended(FIRST, SECOND, THIRD)
    assert (first, second.status, third) == (SUCCEEDED, Status.TODO, SUCCEEDED)
    assert complaints == []


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_job_that_was_given_back_does_not_begin_when_a_thread_is_free_at_last(
    app: procrastinate.App, held: Held, timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task(name="late", pass_context=True, timeout=timeout)
    def late(context: procrastinate.JobContext, n: int) -> None:
        held(context, n)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    scene = Scene(app, concurrency=2)
    scene.claim(job(FIRST))
    await asyncio.sleep(0.01)
    assert held.has_begun(FIRST)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    scene.claim(job(SECOND, "late"))
    await asyncio.sleep(0.01)
    assert len(scene.slots) == 2

    scene.slots.give_back()
    scene.slots.close()
    held.end(FIRST)
    wait_for_reports(scene, 2)

    assert not held.begins[SECOND].is_set()
    if timeout is None:  # else its code on the loop has begun
        assert scene.outcome(SECOND) == UNSTARTED


class Watched:
    """Plain and ``async def`` tasks that count how many of them run at once."""

    def __init__(self, app: procrastinate.App) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.began: list[int] = []

        @app.task(name="plain")
        def plain(n: int) -> None:
            self.enters(n)
            time.sleep(0.0001 * (n % 3))
            self.leaves()

        @app.task(name="raising")
        def raising(n: int) -> None:
            self.enters(n)
            self.leaves()
            raise ValueError(n)

        @app.task(name="timed", timeout=60.0)
        def timed(n: int) -> None:
            plain(n)

        @app.task(name="on_loop")
        async def on_loop(n: int) -> None:
            self.enters(n)
            await asyncio.sleep(0.0002 * (n % 3))
            self.leaves()

        @app.task(name="hidden")
        def hidden(n: int) -> Any:
            return on_loop(n)

    def enters(self, n: int) -> None:
        with self.lock:
            self.began.append(n)
            self.running += 1
            self.most = max(self.most, self.running)

    def leaves(self) -> None:
        with self.lock:
            self.running -= 1


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("concurrency", [1, 2, 3, 10])
@pytest.mark.parametrize(
    "tasks",
    [["plain"], *(["plain", other] for other in ("on_loop", "hidden", "timed", "raising"))],
    ids=lambda tasks: tasks[-1],
)
async def test_no_more_jobs_run_at_once_than_there_are_slots_and_each_runs_once(
    app: procrastinate.App, concurrency: int, tasks: list[str]
) -> None:
    watched = Watched(app)
    scene = Scene(app, concurrency)
    dice = random.Random(concurrency)
    ids = range(1, 301)
    for first in ids[::30]:
        scene.claim(*(job(n, dice.choice(tasks)) for n in range(first, first + 30)))
        await scene.until_ended(first)
        await asyncio.sleep(dice.random() / 1000)
    await scene.until_ended(*ids)

    assert watched.most <= concurrency
    assert sorted(watched.began) == [*ids]
    assert len(scene.writer) == len(ids)
    if concurrency == 1:
        assert watched.began == [*ids]
