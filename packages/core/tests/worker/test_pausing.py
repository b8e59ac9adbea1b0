"""Workers and paused queues: what does not start, what goes back, and what goes on.

How lines and schedules go past paused queues is in the connectors' test kit, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

import procrastinate
from procrastinate import Status
from procrastinate.errors import ConnectorException
from procrastinate.model.queues import NO_PAUSES, Pause, Pauses
from procrastinate.observing import events
from procrastinate.observing.observers import Observers
from procrastinate.storage import claim
from procrastinate.storage.queues import InForce
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.helpers.pausing import Paused, Pausing

PATIENCE = 30.0  # seconds


class Noting(procrastinate.Observer):
    """Notes the pauses that a worker has noticed, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.seen: list[events.Paused] = []
        self._news = asyncio.Event()

    def on_paused(self, event: events.Paused) -> None:
        self.seen.append(event)
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def ran() -> list[int]:
    return []


@pytest.fixture
def app(app: procrastinate.App, ran: list[int]) -> procrastinate.App:
    @app.task(name="note")
    async def note(n: int) -> None:
        ran.append(n)

    return app


@pytest.fixture
def noting(app: procrastinate.App) -> Noting:
    noting = Noting()
    app._gateway.observers = Observers([noting])
    return noting


async def defer(app: procrastinate.App, n: int, queue: str = "mail", **options: Any) -> int:
    return await app.configure_task("note", queue=queue, **options).defer_async(n=n)


async def work(app: procrastinate.App, **options: Any) -> None:
    """Run what is ready, until nothing is."""
    await app.run_worker_async(wait=False, install_signal_handlers=False, **options)


async def eventually(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (found := check()) or (not isinstance(found, bool) and not await found):
            await asyncio.sleep(0.01)


async def unbegun(app: procrastinate.App, *ids: int) -> bool:
    """Whether jobs wait, and none of their attempts counts."""
    jobs = [await app.job_manager.get_job_async(job_id) for job_id in ids]
    return all(job.status is Status.TODO and job.attempts == 0 for job in jobs)


# What does not start


@pytest.mark.one_partition("no order holds over several")
@pytest.mark.parametrize("served", [None, ["mail", "other"]])
async def test_jobs_of_a_paused_queue_wait_and_keep_their_order(
    app: procrastinate.App, ran: list[int], served: list[str] | None
) -> None:
    await app.queue_manager.pause_async("mail")
    first = [await defer(app, n) for n in (1, 2)]
    await defer(app, 3, "other")
    urgent = await defer(app, 4, priority=5)
    await work(app, queues=served)
    assert ran == [3]
    assert await unbegun(app, *first, urgent)
    await app.queue_manager.resume_async("mail")
    await work(app, queues=served, concurrency=1)
    assert ran == [3, 4, 1, 2]


async def test_a_worker_of_paused_queues_alone_has_nothing_to_do(
    app: procrastinate.App, ran: list[int]
) -> None:
    await app.queue_manager.pause_async("mail")
    await defer(app, 1)
    await work(app, queues=["mail"])
    assert ran == []


async def test_a_pause_of_all_queues_spares_builtin(app: procrastinate.App, ran: list[int]) -> None:
    await app.queue_manager.pause_async("*")
    waiting = await defer(app, 1)
    await defer(app, 2, "builtin")
    await work(app)
    assert ran == [2]
    await app.queue_manager.pause_async("builtin")
    await defer(app, 3, "builtin")
    await work(app)
    assert ran == [2]
    await app.queue_manager.resume_async("builtin")
    await work(app)
    assert ran == [2, 3]
    assert await unbegun(app, waiting)
    await app.queue_manager.resume_async("*")
    await work(app)
    assert ran == [2, 3, 1]


async def test_scheduled_jobs_wait_too(app: procrastinate.App, ran: list[int]) -> None:
    await app.queue_manager.pause_async("mail")
    await defer(app, 1, schedule_at=datetime.now(UTC) - timedelta(seconds=5))
    await work(app)
    assert ran == []
    await app.queue_manager.resume_async("mail")
    await work(app)
    assert ran == [1]


def test_run_jobs_leaves_them() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    task = app.task(name="task", queue="mail")(lambda: None)
    with app.open():
        app.queue_manager.pause("mail")
        task.defer()
        assert run_jobs(app) == []
        app.queue_manager.resume("mail")
        assert len(run_jobs(app)) == 1


def test_to_wait_for_a_job_of_a_paused_queue_is_to_wait() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    task = app.task(name="task", queue="mail", result=True)(lambda: 7)
    with app.open():
        app.queue_manager.pause("mail")
        job_id = task.defer()
        with pytest.raises(TimeoutError):
            task.wait_for(job_id, timeout=0.05)
        app.queue_manager.resume("mail")
        assert task.wait_for(job_id, timeout=PATIENCE) == 7


# Lines before locks


async def test_jobs_of_a_paused_queue_hold_up_no_line(
    app: procrastinate.App, ran: list[int]
) -> None:
    """Neither if a claim meets them, nor if one hands its lock over to the next."""
    waiting = [await defer(app, n, lock="a", priority=9 - n) for n in (1, 2)]
    for n in (3, 4, 5):
        await defer(app, n, "other", lock="a")
    await defer(app, 6, "third", lock="a", priority=3)
    await app.queue_manager.pause_async("mail")
    await work(app, concurrency=1)
    assert ran == [6, 3, 4, 5]
    assert await unbegun(app, *waiting)
    await app.queue_manager.resume_async("mail")
    await defer(app, 7, "other", lock="a", priority=8)
    await work(app, concurrency=4)
    assert ran == [6, 3, 4, 5, 1, 7, 2]


async def test_a_line_goes_on_past_parked_jobs_of_a_paused_queue(
    app: procrastinate.App, ran: list[int], noting: Noting
) -> None:
    """They were parked while their queue ran, and are let in again after its pause."""
    may_end = asyncio.Event()

    @app.task(name="hold", queue="other", lock="a")
    async def hold() -> None:
        await may_end.wait()

    await hold.defer_async()
    async with app.worker(concurrency=5):
        await eventually(lambda: _runs(app, "hold"))
        parked = [await defer(app, n, lock="a") for n in (1, 2)]
        fence = [await defer(app, n, queue) for n, queue in ((10, "mail"), (11, "other"))]
        await eventually(lambda: {10, 11} <= {*ran})  # what came before them is parked by now
        assert len(fence) == 2
        await app.queue_manager.pause_async("mail")
        await noting.until(1)
        await defer(app, 3, "other", lock="a")
        may_end.set()
        await eventually(lambda: 3 in ran)
        assert ran[2:] == [3]
        assert await unbegun(app, *parked)
        await app.queue_manager.resume_async("mail")
        await eventually(lambda: len(ran) == 5)
    assert ran[2:] == [3, 1, 2]


async def _runs(app: procrastinate.App, task: str) -> bool:
    return bool(await app.job_manager.list_jobs_async(task=task, status="doing"))


# While a worker runs


@pytest.mark.parametrize(
    "options", [{}, {"listen_notify": False, "fetch_job_polling_interval": 0.05}]
)
async def test_a_worker_takes_notice_of_a_pause_and_of_its_end(
    app: procrastinate.App, ran: list[int], noting: Noting, options: dict[str, Any]
) -> None:
    """What runs, runs on; what fails goes back into the queue; nothing else starts."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task(name="hold", queue="mail", retry=1)
    async def hold() -> None:
        begun.set()
        await may_end.wait()
        if not ran:
            raise ValueError

    held = await hold.defer_async()
    async with app.worker(name="w", concurrency=2, **options):
        await begun.wait()
        pause = await app.queue_manager.pause_async("mail", reason="r", by="b")
        await noting.until(1)
        waiting = await defer(app, 1)
        may_end.set()
        await eventually(lambda: _has_failed_once(app, held))
        await defer(app, 2, "other")
        await eventually(lambda: ran == [2])
        assert await unbegun(app, waiting)
        await app.queue_manager.resume_async("mail")
        await noting.until(2)
        await eventually(lambda: ran == [2, 1])
        await eventually(lambda: _is(app, held, Status.SUCCEEDED))
    first, second = noting.seen
    assert (first.worker_name, first.queue, first.pause) == ("w", "mail", pause)
    assert (second.worker_id, second.queue, second.pause) == (first.worker_id, "mail", None)


async def _has_failed_once(app: procrastinate.App, job_id: int) -> bool:
    job = await app.job_manager.get_job_async(job_id)
    return job.status is Status.TODO and job.attempts == 1


async def _is(app: procrastinate.App, job_id: int, status: Status) -> bool:
    return await app.job_manager.get_job_status_async(job_id) is status


async def test_a_pause_ends_by_itself(
    app: procrastinate.App,
    ran: list[int],
    noting: Noting,
    query: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker knows when: nobody tells it that the time has come."""
    caplog.set_level("INFO", logger="procrastinate.worker")
    until = datetime.now(UTC) + timedelta(hours=1)
    await app.queue_manager.pause_async("mail", until=until, reason="a\nb", by="Ada")
    await defer(app, 1)
    async with app.worker():
        await noting.until(1)
        soon = "statement_timestamp() + interval '0.3 seconds'"
        query(
            f"with changed as (update procrastinate_queues set paused_until = {soon})"
            " select pg_notify('procrastinate_pauses', 'mail')"
        )
        await eventually(lambda: ran == [1])
    assert [each.pause is None for each in noting.seen][-1]
    said = [each.getMessage() for each in caplog.records if "queue mail" in each.getMessage()]
    assert said[0] == f"queue mail is paused by Ada until {until.isoformat()}: a\\nb"
    assert said[-1] == "queue mail is resumed"


# Taking notice, without a worker


class Notices:
    """A `Pausing` of some queues, and what it has called."""

    def __init__(self, queues: list[str] | None = None) -> None:
        self.paused = Paused()
        self.calls = list[str]()
        self.told = list[tuple[str, Pause | None]]()
        telling: Any = type("Telling", (), {"paused": lambda _, *about: self.told.append(about)})
        self._pausing: Any = Pausing(
            None,  # type: ignore[arg-type]
            self.paused,
            queues,
            interval=1.0,
            on_paused=lambda: self.calls.append("paused"),
            on_resumed=lambda: self.calls.append("resumed"),
            telling=telling(),
        )

    def read(self, *pauses: Pause) -> list[str]:
        self.calls.clear()
        self.told.clear()
        self._pausing._read(Pauses(pauses))
        return self.calls


MAIL = Pause("mail", datetime.now(UTC))
ALL = Pause("*", datetime.now(UTC))


def test_only_changes_are_acted_on() -> None:
    notices = Notices()
    assert not notices.paused.is_known
    assert notices.read() == ["resumed"]  # claims may begin
    assert notices.paused.is_known
    assert notices.read(MAIL) == ["paused"]
    assert notices.read(MAIL) == []
    assert notices.told == []
    changed = Pause("mail", MAIL.paused_at, reason="because")
    assert notices.read(changed) == []
    assert notices.told == [("mail", changed)]
    assert notices.read(ALL) == ["paused", "resumed"]
    assert notices.told == [("*", ALL), ("mail", None)]
    assert notices.read() == ["resumed"]


@pytest.mark.parametrize("listens", [True, False])
async def test_news_are_read_at_once_while_it_waits_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """Else jobs of a queue that was paused during an outage would start after it."""
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 3600.0)
    failed, may_answer = asyncio.Event(), False

    class Calls:
        async def run_async(self, flow: Any) -> InForce:
            if not may_answer:
                failed.set()
                raise ConnectorException("the database is away")
            return InForce(Pauses((MAIL,)), None)

    known = asyncio.Event()
    paused, calls = Paused(), cast(Any, Calls())
    notices = Pausing(
        *(calls, paused, None), interval=3600.0, on_paused=known.set, on_resumed=known.set
    )
    reading = asyncio.create_task(notices.run())
    async with asyncio.timeout(PATIENCE):
        await failed.wait()
        may_answer = True
        if listens:
            notices.listening(True)
        else:
            notices.look_now()
        await known.wait()
    reading.cancel()
    assert paused.has("mail")


def test_a_worker_tells_only_of_queues_that_it_serves() -> None:
    notices = Notices(["other"])
    notices.read(MAIL)
    assert notices.told == []
    notices.read(MAIL, ALL)
    assert notices.told == [("*", ALL)]
    notices.read()
    assert notices.told == [("*", None)]


@pytest.mark.parametrize(
    ("names", "paused"),
    [
        ([], []),
        (["mail"], ["mail"]),
        (["*"], ["mail", "other"]),
        (["*", "builtin"], ["mail", "other", "builtin"]),
        (["builtin"], ["builtin"]),
    ],
)
def test_which_queues_pauses_cover(names: list[str], paused: list[str]) -> None:
    pauses = Pauses(tuple(Pause(name, MAIL.paused_at) for name in names))
    queues = ["mail", "other", "builtin"]
    assert [queue for queue in queues if pauses.has(queue)] == paused
    assert [
        queue for queue in queues if any(each.covers(queue) for each in pauses.pauses)
    ] == paused
    assert pauses.running(queues) == [queue for queue in queues if queue not in paused]
    assert bool(pauses) is bool(names)


async def test_a_sweep_counts_no_job_of_a_paused_queue(app: procrastinate.App) -> None:
    await defer(app, 1)
    await defer(app, 2, "other")
    await app._gateway.partitions_async(anew=True)

    async def swept(queues: list[str] | None, paused: Pauses) -> list[tuple[int, int]]:
        flow = claim.sweep(queues=queues, paused=paused)
        found = await app._gateway.run_async(flow)
        return [(each.ready, each.elsewhere) for each in found]

    def total(found: list[tuple[int, int]]) -> tuple[int, int]:
        return sum(ready for ready, _ in found), sum(elsewhere for _, elsewhere in found)

    assert total(await swept(["mail"], NO_PAUSES)) == (1, 1)
    assert total(await swept(["mail"], Pauses((MAIL,)))) == (0, 1)
    assert total(await swept(None, Pauses((MAIL,)))) == (1, 0)
    assert total(await swept(None, Pauses((ALL,)))) == (0, 0)
