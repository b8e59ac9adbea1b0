"""What observers are told, and that nothing that they do reaches a job."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

import procrastinate
from procrastinate import Job, NewJob, Observer, Status, connectors
from procrastinate.app import changing_jobs
from procrastinate.model.endings.outcome import SUCCEEDED, WHY_LOST, Finished, Requeued, Standing
from procrastinate.observing import events
from procrastinate.observing.observer import HOOKS
from procrastinate.storage.finish import Ended, Settled, handed_back
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.telling import Telling

#: What jobs and workers lead to. (`on_busy` is told by the clock: a short job may lead to none.)
BY_TIME = "on_busy"
EVENTS = [hook for hook in HOOKS if hook.startswith("on_") and hook != BY_TIME]
KINDS = pytest.mark.parametrize("kind", ["coroutine", "function"])
HERE: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="nowhere")


class Recorder(Observer):
    """Notes every event, by the name of its method."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def of(self, name: str) -> list[Any]:
        return [event for each, event in self.seen if each == name]


def _noting(hook: str) -> Callable[[Recorder, Any], None]:
    return lambda self, event: self.seen.append((hook, event))


for _hook in EVENTS:
    setattr(Recorder, _hook, _noting(_hook))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(params=["postgresql", "memory"])
async def app(
    request: pytest.FixtureRequest, recorder: Recorder
) -> AsyncIterator[procrastinate.App]:
    """An open app with the recorder, on aiopg and in memory."""
    if request.param == "memory":
        connector: connectors.Connector = InMemoryConnector()
    else:
        connector = procrastinate.AiopgConnector(dsn=request.getfixturevalue("dsn"))
    async with procrastinate.App(connector=connector, observers=[recorder]).open_async() as app:
        yield app


def in_memory(*observers: Observer | str) -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector(), observers=observers)


def task_of_kind(app: procrastinate.App, kind: str, body: Callable[[], Any], **options: Any) -> Any:
    async def coroutine() -> Any:
        return body()

    return app.task(name="task", **options)(coroutine if kind == "coroutine" else lambda: body())


# What is told


@KINDS
async def test_a_job_that_fails_once_and_then_succeeds(
    app: procrastinate.App, recorder: Recorder, kind: str
) -> None:
    bodies = iter([lambda: 1 / 0, lambda: None])
    task = task_of_kind(app, kind, lambda: next(bodies)(), retry=1)
    job_id = await task.defer_async()
    await app.run_worker_async(wait=False, name="w")

    # The job may be claimed again before this worker's loop hears that it is back.
    assert [name for name in recorder.names() if name != "on_requeued"] == [
        "on_deferred",
        "on_worker_started",
        *("on_claimed", "on_started", "on_raised"),
        *("on_claimed", "on_started", "on_ended"),
        "on_worker_stopped",
    ]
    (deferred,) = recorder.of("on_deferred")
    assert (deferred.ids, deferred.in_transaction) == ((job_id,), False)
    assert [(job.task_name, job.args) for job in deferred.jobs] == [("task", "{}")]
    (begun,) = recorder.of("on_worker_started")
    assert (begun.worker_name, begun.queues, begun.concurrency) == ("w", None, 1)
    (raised,) = recorder.of("on_raised")
    assert (raised.job.id, type(raised.exception), raised.status) == (
        *(job_id, ZeroDivisionError, Status.TODO),
    )
    (requeued,) = recorder.of("on_requeued")
    (again,) = requeued.attempts
    assert (again.job.id, again.job.attempts, again.status) == (job_id, 1, Status.TODO)
    assert again.error["type"] == "ZeroDivisionError"
    (ended,) = recorder.of("on_ended")
    (last,) = ended.attempts
    assert (last.job.id, last.job.attempts, last.status) == (job_id, 2, Status.SUCCEEDED)
    assert last.error is None
    assert last.duration >= 0
    whose = {(event.worker_name, event.worker_id) for _, event in recorder.seen[1:]}
    assert whose == {("w", begun.worker_id)}


@pytest.mark.parametrize("delete_jobs", ["never", "always"])
@KINDS
async def test_each_attempt_that_starts_ends_once(
    app: procrastinate.App, recorder: Recorder, kind: str, delete_jobs: Any
) -> None:
    """With locks, with failures, and if jobs are removed at their end."""

    def body(n: int) -> None:
        if n % 5 == 0:
            raise ValueError(n)

    async def coroutine(n: int) -> None:
        body(n)

    task = app.task(name="task", retry=1)(coroutine if kind == "coroutine" else body)
    free, locked = task, task.configure(lock="l")
    ids = await free.batch_defer_async(*({"n": n} for n in range(30)))
    ids += await locked.batch_defer_async(*({"n": n} for n in range(10)))
    await app.run_worker_async(wait=False, concurrency=7, delete_jobs=delete_jobs)

    started = [job.id for event in recorder.of("on_started") for job in event.jobs]
    ended = [each for event in recorder.of("on_ended") for each in event.attempts]
    requeued = [each for event in recorder.of("on_requeued") for each in event.attempts]
    over = [each for each in requeued if each.duration is not None]
    assert sorted(each.job.id for each in ended) == sorted(ids)
    assert sorted(started) == sorted(each.job.id for each in (*ended, *over))
    assert sum(each.status is Status.FAILED for each in ended) == 8
    assert [each.error["type"] for each in over] == ["ValueError"] * 8
    assert len(recorder.of("on_raised")) == 16


async def test_a_job_of_an_unknown_task_does_not_start(
    recorder: Recorder, dsn: str, until: Any
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn), observers=[recorder])
    async with app.open_async():
        job_id = await app.configure_task("nowhere").defer_async()
        async with app.worker():
            await until(lambda: recorder.of("on_requeued"))
    (attempt,) = recorder.of("on_requeued")[0].attempts
    assert (attempt.job.id, attempt.duration, attempt.error) == (job_id, None, None)
    assert recorder.of("on_started") == []


async def test_a_job_that_fails_because_its_task_is_unknown_took_no_time(
    app: procrastinate.App, recorder: Recorder
) -> None:
    job_id = await app.configure_task("nowhere").defer_async()
    await app.run_worker_async(wait=False)
    (attempt,) = recorder.of("on_ended")[0].attempts
    assert (attempt.job.id, attempt.status, attempt.duration) == (job_id, Status.FAILED, None)
    job = await app.job_manager.get_job_async(job_id)
    assert job.started_at == job.finished_at is not None


def test_what_was_written_is_told_and_not_what_was_wanted() -> None:
    recorder = Recorder()
    telling = Telling(procrastinate.observing.observers.Observers([recorder]), "w", 1)

    def job(job_id: int) -> Job:
        return Job(job_id, Status.DOING, "q", "task", {}, attempts=1, lease=1, worker=1)

    entries = [
        Ended(job(1), SUCCEEDED, 1.0, 2.0),
        Ended(job(2), Requeued(error={"type": "E"}), 1.0, 2.0),  # and abortion was asked for
        Ended(job(3), SUCCEEDED, 1.0, 2.0),  # removed
        Ended(job(4), SUCCEEDED, 1.0, 2.0),  # taken by another worker
        Ended(job(5), Finished(Status.FAILED, {"type": "E"}), 1.0, 2.0),  # written before
        handed_back(job(6)),
    ]
    telling.written(
        entries,
        Settled(
            {1: Status.SUCCEEDED, 2: Status.ABORTED, 3: None, 6: Status.TODO},
            {4: Standing(Status.DOING, 9, 2, 1), 5: Standing(Status.FAILED, 1, 1, 0)},
        ),
    )
    (ended,) = recorder.of("on_ended")
    assert [(each.job.id, each.status, each.error) for each in ended.attempts] == [
        (1, Status.SUCCEEDED, None),
        (2, Status.ABORTED, {"type": "E"}),
        (3, Status.SUCCEEDED, None),
        (5, Status.FAILED, {"type": "E"}),
    ]
    (requeued,) = recorder.of("on_requeued")
    assert [(each.job.id, each.duration) for each in requeued.attempts] == [(6, None)]
    (lost,) = recorder.of("on_lease_lost")
    assert [each.id for each in lost.jobs] == [4]


async def test_a_job_that_another_worker_has_taken_is_lost_once(
    recorder: Recorder, dsn: str, query: Any, until: Any
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn), observers=[recorder])

    @app.task(name="task")
    async def task() -> None:
        await asyncio.Event().wait()

    async with app.open_async():
        job_id = await task.defer_async()
        async with app.worker(abort_job_polling_interval=0.1):
            await until(lambda: recorder.of("on_started"))
            query("insert into procrastinate_workers (id, name) values (99, 'other')")
            query(
                "update procrastinate_jobs set worker_id = 99, lease = lease + 1,"
                " crashes = crashes + 1 where id = %s",
                job_id,
            )
            await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
            query("delete from procrastinate_workers where id <> 99")
            await until(lambda: recorder.of("on_lease_lost"))
    (lost,) = recorder.of("on_lease_lost")
    assert [each.id for each in lost.jobs] == [job_id]
    assert recorder.of("on_ended") + recorder.of("on_requeued") == []


async def test_jobs_of_a_dead_worker_are_told_as_recovered(
    recorder: Recorder, dsn: str, query: Any
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn), observers=[recorder])

    @app.task(name="task")
    async def task() -> None: ...

    async with app.open_async():
        job_id = await task.defer_async()
        query(
            "insert into procrastinate_workers (id, name, last_heartbeat)"
            " values (99, 'dead', now() - interval '1 day')"
        )
        query(
            "update procrastinate_jobs set status = 'doing', worker_id = 99, lease = 1,"
            " attempts = 1 where id = %s",
            job_id,
        )
        await app.run_worker_async(wait=False)
    (recovered,) = recorder.of("on_recovered")
    assert [(each.job_id, each.task_name, each.status) for each in recovered.jobs] == [
        (job_id, "task", Status.TODO)
    ]
    (ended,) = recorder.of("on_ended")
    assert [(each.job.id, each.status) for each in ended.attempts] == [(job_id, Status.SUCCEEDED)]


async def test_a_job_that_is_given_up_because_its_workers_died_is_told_as_ended_once(
    recorder: Recorder, dsn: str, query: Any
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn), observers=[recorder])
    async with app.open_async():
        ids = [await app.configure_task("task").defer_async() for _ in range(2)]
        query(
            "insert into procrastinate_workers (id, name, last_heartbeat)"
            " values (99, 'dead', now() - interval '1 day')"
        )
        query(
            "update procrastinate_jobs set status = 'doing', worker_id = 99, lease = 1,"
            " attempts = 1, abort_requested = true where id = any(%s)",
            ids,
        )
        await app.run_worker_async(wait=False)
    (ended,) = recorder.of("on_ended")
    assert sorted(each.job.id for each in ended.attempts) == ids
    assert {
        (each.job.queue, each.job.task_name, each.status, each.duration, each.error["message"])
        for each in ended.attempts
    } == {("default", "task", Status.ABORTED, None, WHY_LOST[Status.ABORTED])}


# Changes by hand


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_changes_by_hand_are_told(
    app: procrastinate.App, recorder: Recorder, kind: str
) -> None:
    manager = app.job_manager

    async def do(method: str, *args: Any, **given: Any) -> None:
        if kind == "plain":
            await asyncio.to_thread(getattr(manager, method), *args, **given)
        else:
            await getattr(manager, f"{method}_async")(*args, **given)

    ids = await app.configure_task("task").batch_defer_async(*[{}] * 4)
    await do("cancel_job_by_id", ids[0])
    await do("cancel_job_by_id", ids[0])  # changes nothing
    await do("retry_job_by_id", ids[0])
    await do("cancel_jobs", status="todo", limit=2)
    await do("retry_jobs", status="cancelled")
    await do("cancel_job_by_id", ids[0], delete_job=True)
    await do("cancel_jobs", queue="default", delete_job=True)
    changes = [(each.change, sorted(each.ids)) for each in recorder.of("on_changed")]
    assert [each for each in changes if each[0] != "deleted"] == [
        ("cancelled", ids[:1]),
        ("retried", ids[:1]),
        ("cancelled", ids[:2]),
        ("retried", ids[:2]),
    ]
    deleted = [job_id for change, some in changes if change == "deleted" for job_id in some]
    assert sorted(deleted) == ids
    assert not any(each.in_transaction for each in recorder.of("on_changed"))


async def test_a_change_of_many_jobs_is_told_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing_jobs, "BATCH", 2)
    recorder = Recorder()
    app = in_memory(recorder)
    async with app.open_async():
        ids = await app.configure_task("task").batch_defer_async(*[{}] * 5)
        assert await app.job_manager.cancel_jobs_async(queue="default") == ids
    told = [each.ids for each in recorder.of("on_changed")]
    assert [job_id for some in told for job_id in some] == ids
    assert max(map(len, told)) == 2


async def test_running_jobs_that_are_asked_to_end_are_told_apart() -> None:
    recorder = Recorder()
    app = in_memory(recorder)
    async with app.open_async():

        @app.task(name="asking")
        async def asking() -> None:
            await app.job_manager.cancel_jobs_async(task="asking", abort=True)

        ids = [await asking.configure(schedule_in={"hours": 1}).defer_async()]
        ids.insert(0, await asking.defer_async())
        await app.run_worker_async(wait=False)
    assert {(each.change, *each.ids) for each in recorder.of("on_changed")} == {
        ("abort requested", ids[0]),
        ("cancelled", ids[1]),
    }


def test_changes_in_a_callers_transaction_are_told_as_such() -> None:
    recorder = Recorder()
    app = in_memory(recorder)
    with app.open():
        job_id = app.configure_task("task").defer()
        app.job_manager.cancel_job_by_id(job_id, connection=object())
        app.job_manager.retry_jobs(id=job_id, connection=object())
    assert [event.in_transaction for event in recorder.of("on_changed")] == [True, True]


async def test_jobs_of_periodic_tasks_are_told_as_deferred() -> None:
    recorder = Recorder()
    app = in_memory(recorder)

    @app.periodic(cron="* * * * * *")
    @app.task(name="tick", queue="q")
    async def tick(timestamp: int) -> None: ...

    async with app.open_async():
        await app.run_worker_async(wait=False)  # enters the schedule
        assert isinstance(app.connector, InMemoryConnector)
        app.connector.clock.move(2)
        await app.run_worker_async(wait=False)
        listed = await app.job_manager.list_jobs_async(task="tick")
    told = [
        (job_id, job.task_name, job.queue)
        for event in recorder.of("on_deferred")
        for job_id, job in zip(event.ids, event.jobs, strict=True)
    ]
    assert told == [(job.id, "tick", "q") for job in listed]
    assert len(told) >= 1


# Around


class Around(Observer):
    """Sets a context variable around attempts, and gives new jobs a number."""

    def __init__(self) -> None:
        self.around: list[tuple[int, str, str]] = []

    @contextlib.contextmanager
    def around_attempt(self, job: Job) -> Iterator[None]:
        token = HERE.set(f"attempt {job.id} {job.meta}")
        thread = threading.current_thread().name
        try:
            yield
        except BaseException as exc:
            self.around.append((job.id, thread, type(exc).__name__))
            raise
        else:
            self.around.append((job.id, thread, "returned"))
        finally:
            HERE.reset(token)

    @contextlib.contextmanager
    def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
        for number, job in enumerate(jobs):
            job.meta = {**(job.meta or {}), "number": number}
        yield


@KINDS
async def test_an_attempt_runs_inside_of_what_observers_enter(
    any_connector: connectors.Connector, kind: str
) -> None:
    seen = []
    around = Around()
    app = procrastinate.App(connector=any_connector, observers=[around])

    def body() -> None:
        seen.append((HERE.get(), threading.current_thread().name))
        raise KeyError

    async with app.open_async():
        task = task_of_kind(app, kind, body)
        job_id = await task.defer_async()
        await app.run_worker_async(wait=False)
        job = await app.job_manager.get_job_async(job_id)
    ((here, thread),) = seen
    assert here == f"attempt {job_id} {{'number': 0}}"
    assert around.around == [(job_id, thread, "KeyError")]
    assert (job.status, job.errors[0]["type"]) == (Status.FAILED, "KeyError")
    assert "around_attempt" not in job.errors[0]["traceback"]


@pytest.fixture(params=["postgresql", "memory"])
def any_connector(request: pytest.FixtureRequest) -> connectors.Connector:
    if request.param == "memory":
        return InMemoryConnector()
    return procrastinate.AiopgConnector(dsn=request.getfixturevalue("dsn"))


async def test_what_an_observer_gives_new_jobs_comes_back_with_them(
    any_connector: connectors.Connector,
) -> None:
    app = procrastinate.App(connector=any_connector, observers=[Around(), Around()])

    @app.task(name="task")
    async def task() -> None: ...

    async with app.open_async():
        ids = [await task.defer_async(), *await task.batch_defer_async({}, {}, {})]
        with app.open():
            ids += [task.defer(), *task.batch_defer({}, {})]
        jobs = [await app.job_manager.get_job_async(job_id) for job_id in ids]
    assert [job.meta for job in jobs] == [{"number": n} for n in (0, 0, 1, 2, 0, 0, 1)]


@pytest.mark.parametrize(
    "meta", [{"x": object()}, {"x": "\0"}, {"x": float("nan")}, ["x"], {"x": "y" * 20_000}]
)
def test_what_cannot_be_stored_is_left_out_and_told(
    meta: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Observer):
        @contextlib.contextmanager
        def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
            jobs[0].meta = meta
            yield

    app = in_memory(Bad())
    with app.open():
        ids = app.configure_task("task").batch_defer({}, {"n": 1})
        assert [app.job_manager.get_job(job_id).meta for job_id in ids] == [None, None]
    assert [each.name for each in caplog.records] == ["procrastinate.observers"]


class Adding(Observer):
    """Adds to the meta of each job, as several observers do."""

    def __init__(self, **added: Any) -> None:
        self.added = added

    @contextlib.contextmanager
    def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
        for job in jobs:
            job.meta = {**(job.meta or {}), **self.added}
        yield


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "bad, reason",
    [
        (object(), "TypeError"),
        ({"deep": [object()]}, "TypeError"),
        (float("nan"), "ValueError"),
        ("\0", "ValueError: PostgreSQL stores no text that contains a NUL"),
        ("\ud800", "UnicodeEncodeError"),
        (CIRCLE, "RecursionError"),
        ("y" * 16_384, "ValueError: with it, meta is longer than 16 KiB as JSON"),
    ],
)
def test_one_key_that_cannot_be_stored_costs_no_other_and_is_told_once(
    bad: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = in_memory(Adding(trace="t", a=1), Adding(bad=bad), Adding(z=[2]))
    with app.open():
        ids = app.configure_task("task").batch_defer({}, {})
        ids.append(app.configure_task("task").defer())
        metas = [app.job_manager.get_job(job_id).meta for job_id in ids]
    assert metas == [{"trace": "t", "a": 1, "z": [2]}] * 3
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "procrastinate.observers")
    assert record.__dict__["action"] == "meta_left_out"
    assert "not stored: key 'bad': " + reason in record.getMessage()


def test_each_kind_of_meta_that_cannot_be_stored_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = in_memory(Adding(x=object(), y=object()), Adding(z=float("inf")))
    with app.open():
        job_id = app.configure_task("task").defer()
        assert app.job_manager.get_job(job_id).meta is None
    told = [each.getMessage().partition(" stored: ")[2][:7] for each in caplog.records]
    assert told == ["key 'x'", "key 'y'", "key 'z'"]


def test_meta_is_filled_up_to_its_last_byte() -> None:
    pad = 16 * 1024 - len('{"a":"","b":1}')
    app = in_memory(Adding(a="y" * pad, b=1, over=2))
    with app.open():
        job_id = app.configure_task("task").defer()
        meta = app.job_manager.get_job(job_id).meta
    assert meta == {"a": "y" * pad, "b": 1}


def test_a_defer_that_fails_passes_through_and_is_not_told() -> None:
    recorder, seen = Recorder(), []

    class Watching(Observer):
        @contextlib.contextmanager
        def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
            try:
                yield
            except procrastinate.AlreadyEnqueued as exc:
                seen.append(exc)  # and does not raise it again

    app = in_memory(recorder, Watching())
    with app.open():
        deferrer = app.configure_task("task", queueing_lock="q")
        deferrer.defer()
        with pytest.raises(procrastinate.AlreadyEnqueued) as caught:
            deferrer.defer()
    assert seen == [caught.value]
    assert len(recorder.of("on_deferred")) == 1


def test_jobs_in_a_callers_transaction_are_told_as_such() -> None:
    recorder = Recorder()
    app = in_memory(recorder)
    with app.open():
        app.configure_task("task", connection=object()).defer()
    assert [event.in_transaction for event in recorder.of("on_deferred")] == [True]


# What observers do wrong


class Odd(BaseException):
    """What no handler expects."""


class Thief(Observer):
    """Takes out of every event what can be taken, and out of what it is shown before a defer."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()

    def _rob(self, event: Any) -> None:
        self.kinds.add(type(event).__name__)
        for name in ("jobs", "ids", "attempts", "queues"):
            with contextlib.suppress(AttributeError, TypeError):
                getattr(event, name).clear()

    on_deferred = on_claimed = on_started = on_ended = on_requeued = _rob  # type: ignore[assignment]
    on_worker_started = _rob  # type: ignore[assignment]

    @contextlib.contextmanager
    def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
        with contextlib.suppress(AttributeError):
            jobs.clear()  # type: ignore[attr-defined]
        yield


async def test_an_observer_cannot_take_jobs_out_of_an_event() -> None:
    thief = Thief()
    app = procrastinate.App(connector=InMemoryConnector(), observers=[thief])
    ran: list[int] = []

    @app.task(retry=1)
    def note(n: int) -> None:
        ran.append(n)
        if ran.count(n) == 1:
            raise ValueError

    await note.batch_defer_async(*({"n": n} for n in range(5)))
    await note.defer_async(n=5)
    await app.run_worker_async(wait=False, install_signal_handlers=False, queues=["default"])
    assert sorted(ran) == sorted([*range(6)] * 2)
    assert {job.status for job in app.connector.jobs} == {Status.SUCCEEDED}  # type: ignore[attr-defined]
    assert thief.kinds == {
        *("Deferred", "Claimed", "Started", "Ended", "Requeued", "WorkerStarted"),
    }


def interrupting(hook: str) -> Observer:
    """An observer in one of whose methods Ctrl-C arrives."""

    def interrupted(self: Observer, subject: Any) -> Any:
        raise KeyboardInterrupt

    return type("Interrupted", (Observer,), {hook: interrupted})()  # type: ignore[no-any-return]


@pytest.mark.parametrize("hook", ["around_defer", "on_deferred"])
def test_ctrl_c_in_an_observer_ends_the_call_and_the_others_are_told(hook: str) -> None:
    left: list[str] = []

    class Before(Observer):
        @contextlib.contextmanager
        def around_defer(self, jobs: Sequence[NewJob]) -> Iterator[None]:
            try:
                yield
            except KeyboardInterrupt:
                left.append("interrupted")
                raise

    after = Recorder()
    app = in_memory(Before(), interrupting(hook), after)
    with app.open():
        with pytest.raises(KeyboardInterrupt):
            app.configure_task("task").defer()
        inserted = app.job_manager.list_jobs()
    assert len(inserted) == (hook == "on_deferred")
    assert len(after.of("on_deferred")) == len(inserted)
    assert left == ["interrupted"]


@KINDS
@pytest.mark.parametrize("hook", ["on_claimed", "around_attempt", "on_ended"])
async def test_ctrl_c_in_an_observer_at_a_worker_interrupts_the_process_and_no_job(
    kind: str, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts: list[int] = []
    observers = procrastinate.observing.observers
    monkeypatch.setattr(observers._thread, "interrupt_main", lambda: interrupts.append(1))
    app = in_memory(interrupting(hook))
    task = task_of_kind(app, kind, lambda: None)
    async with app.open_async():
        job_id = await task.defer_async()
        await app.run_worker_async(wait=False)
        assert await app.job_manager.get_job_status_async(job_id) is Status.SUCCEEDED
    assert interrupts == [1]


@pytest.mark.parametrize("error", [ValueError, SystemExit, Odd])
@KINDS
async def test_nothing_that_an_observer_raises_reaches_a_job(
    kind: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Each of its methods raises at each call; it is logged once for each method."""

    def raising(self: Observer, subject: Any) -> Any:
        raise error("broken")

    broken = type("Broken", (Observer,), dict.fromkeys(HOOKS, raising))()
    recorder = Recorder()
    app = in_memory(broken, recorder)
    done: list[int] = []
    task = task_of_kind(app, kind, lambda: done.append(1))
    failing = app.task(name="failing", retry=1)(lambda: 1 / 0)
    async with app.open_async():
        await app.queue_manager.pause_async("another")
        gone = await task.configure(queue="another").defer_async()
        assert await app.job_manager.cancel_job_by_id_async(gone)
        ids = await task.batch_defer_async({}, {}, {})
        ids.append(await failing.defer_async())
        await app.run_worker_async(wait=False)
        jobs = [await app.job_manager.get_job_async(job_id) for job_id in ids]

    assert [job.status for job in jobs] == [Status.SUCCEEDED] * 3 + [Status.FAILED]
    assert len(done) == 3
    assert {*recorder.names()} == {*EVENTS} - {"on_lease_lost", "on_recovered"}
    complaints = [each for each in caplog.records if each.name == "procrastinate.observers"]
    complaints = [each for each in complaints if f"Broken.{BY_TIME}" not in each.getMessage()]
    called = {*HOOKS} - {"on_lease_lost", "on_recovered", BY_TIME}
    assert {each.getMessage().split(" ")[2] for each in complaints} == {
        f"Broken.{hook}" for hook in called
    }

    assert len(complaints) == len(called)


@KINDS
async def test_what_a_context_manager_raises_reaches_no_job(kind: str) -> None:
    class Broken(Observer):
        @contextlib.contextmanager
        def around_attempt(self, job: Job) -> Iterator[None]:
            yield
            raise Odd

        def around_defer(self, jobs: Sequence[NewJob]) -> Any:
            return None  # is no context manager

    app = in_memory(Broken())
    task = task_of_kind(app, kind, lambda: None)
    async with app.open_async():
        job_id = await task.defer_async()
        await app.run_worker_async(wait=False)
        assert await app.job_manager.get_job_status_async(job_id) is Status.SUCCEEDED


@KINDS
async def test_an_observer_cannot_swallow_what_a_task_raises(kind: str) -> None:
    class Swallowing(Observer):
        def around_attempt(self, job: Job) -> Any:
            return contextlib.suppress(BaseException)

    app = in_memory(Swallowing())
    task = task_of_kind(app, kind, lambda: 1 / 0)
    async with app.open_async():
        job_id = await task.defer_async()
        await app.run_worker_async(wait=False)
        assert await app.job_manager.get_job_status_async(job_id) is Status.FAILED


def test_a_process_that_an_attempt_has_forked_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(procrastinate.observing.observers, "_FORKED", [])
    around = Around()
    observers = procrastinate.observing.observers.Observers([around])
    with observers.around("around_attempt", Job(1, Status.DOING, "q", "task", {})):
        monkeypatch.setattr(procrastinate.observing.observers.os, "getpid", lambda: -1)
    assert around.around == []


# Giving observers to an app


def test_methods_that_are_not_overridden_are_not_called() -> None:
    class One(Observer):
        def on_ended(self, event: events.Ended) -> None: ...

    observers = procrastinate.observing.observers.observers_of([One(), Observer()])
    assert [hook for hook in HOOKS if observers.sees(hook)] == ["on_ended"]


@pytest.mark.parametrize(
    "name, said",
    [
        ("on_endet", "do you mean on_ended"),
        ("on_end", "do you mean on_ended"),
        ("around_attempts", "do you mean around_attempt"),
        ("around_midnight_and_later", "the events are on_deferred, "),
    ],
)
def test_a_misspelt_method_is_refused(name: str, said: str) -> None:
    kind = type("Misspelt", (Recorder,), {name: lambda self, event: None})
    with pytest.raises(procrastinate.errors.InvalidOption, match=said):
        in_memory(kind())


def test_methods_of_other_base_classes_may_have_any_name() -> None:
    class Watch:
        def on_alarm(self) -> None: ...

    class Both(Watch, Observer):
        def _on_own(self) -> None: ...

    in_memory(Both())


class Asynchronous(Observer):
    async def on_ended(self, event: events.Ended) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("prometheus", "must be a list"),
        (Recorder(), "must be a list"),
        (7, "must be a list"),
        ([Recorder], "make an instance"),
        ([print], r"no procrastinate\.Observer"),
        ([Asynchronous()], "on_ended is `async def`"),
        (["nowhere"], "no observer named 'nowhere'"),
    ],
)
def test_what_is_no_observer_is_refused(given: Any, said: str) -> None:
    with pytest.raises(procrastinate.InvalidOption, match=said):
        procrastinate.App(connector=InMemoryConnector(), observers=given)


class _EntryPoint:
    name = "recorder"
    dist = None
    value = "somewhere:Recorder"

    def __init__(self, provided: object) -> None:
        self._provided = provided

    def load(self) -> object:
        return self._provided


def provide(monkeypatch: pytest.MonkeyPatch, provided: object) -> None:
    def entry_points(group: str) -> Mapping[str, Any]:
        assert group == "procrastinate.observers"
        return {"recorder": [_EntryPoint(provided)]}

    monkeypatch.setattr(connectors, "entry_points", entry_points)


def test_an_installed_observer_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, Recorder)
    (observer,) = in_memory("recorder").observers
    assert isinstance(observer, Recorder)
    provide(monkeypatch, object)
    with pytest.raises(procrastinate.InvalidOption, match=r"no procrastinate\.Observer"):
        in_memory("recorder")


def test_other_apps_on_the_same_tasks_have_the_same_observers() -> None:
    recorder = Recorder()
    app = in_memory(recorder)
    assert app.with_connector(InMemoryConnector()).observers == (recorder,)
    with app.replace_connector(InMemoryConnector()):
        assert app.observers == (recorder,)
