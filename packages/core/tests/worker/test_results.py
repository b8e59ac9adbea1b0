"""What a task returned, on its way from the slot to the writer."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import procrastinate
from procrastinate import AsyncCallNext, CallNext, JobContext, RunningWorker, Status, json_codec
from procrastinate.model.endings import results
from procrastinate.model.endings.outcome import RESULT_REFUSED, SUCCEEDED, Finished, Requeued
from procrastinate.model.endings.results import LARGEST
from procrastinate.model.job import Job
from procrastinate.model.text.json_text import DEEPEST, DIGITS
from procrastinate.storage.finish import Ended
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate.worker.writing import writer
from procrastinate.worker.writing.parts import groups
from procrastinate.worker.writing.writer import Writer

NOT_JSON = (
    "the result of type set is not kept:"
    " encoding it raised TypeError: Object of type set is not JSON serializable"
)


class Encoder:
    """An app's ``json_dumps``, which notes the threads that encode results."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.raises: BaseException | None = None

    def __call__(self, value: Any) -> str:
        if isinstance(value, dict) and "n" in value:  # a job's arguments
            return json_codec.dumps(value)
        main = threading.current_thread() is threading.main_thread()
        self.threads.append("loop" if main else "thread")
        if self.raises is not None:
            raise self.raises
        return json_codec.dumps(value)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def app(encoder: Encoder) -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector(json_dumps=encoder))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Ended]:
    """What the writer is told of attempts; not of jobs that go back for want of a slot."""
    entries: list[Ended] = []
    add = Writer.add

    def noting(writer: Writer, entry: Ended) -> None:
        if not isinstance(entry.outcome, Requeued) or entry.outcome.begun:
            entries.append(entry)
        add(writer, entry)

    monkeypatch.setattr(Writer, "add", noting)
    return entries


async def outer(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
    return {"outer": await call_next()}


async def inner(call_next: AsyncCallNext, context: JobContext, worker: RunningWorker) -> Any:
    return {"inner": await call_next()}


def in_thread(call_next: CallNext, context: JobContext, worker: RunningWorker) -> Any:
    return {"in thread": call_next()}


def task_of(app: procrastinate.App, kind: str, body: Callable[[], Any], **options: Any) -> Any:
    """A task that returns what the body does, of this kind."""

    async def coroutine(n: int) -> Any:
        return body()

    def function(n: int) -> Any:
        return body()

    def wrapper(n: int) -> Awaitable[Any]:
        return coroutine(n)

    kinds: dict[str, Callable[[int], Any]] = {
        "coroutine": coroutine,
        "function": function,
        "wrapper": wrapper,
    }
    return app.task(name="task", **options)(kinds[kind])


async def run(app: procrastinate.App, task: Any, count: int = 1, **options: Any) -> None:
    await task.batch_defer_async(*[{"n": n} for n in range(count)])
    await app.run_worker_async(wait=False, **options)


def outcomes(written: list[Ended]) -> list[Any]:
    return [entry.outcome for entry in written]


def kept(text: str) -> Finished:
    return Finished(Status.SUCCEEDED, result=text)


def not_kept(why: str) -> Finished:
    return Finished(Status.SUCCEEDED, result_error=why)


KINDS = pytest.mark.parametrize(
    ("kind", "where"), [("coroutine", "loop"), ("function", "thread"), ("wrapper", "loop")]
)


@KINDS
@pytest.mark.parametrize("timeout", [None, 60])
async def test_what_a_task_returns_is_encoded_where_it_ran(
    app: procrastinate.App,
    encoder: Encoder,
    written: list[Ended],
    kind: str,
    where: str,
    timeout: float | None,
) -> None:
    await run(app, task_of(app, kind, lambda: [1, None], result=True, timeout=timeout), 3)
    assert outcomes(written) == [kept("[1,null]")] * 3
    assert [entry.kept for entry in written] == [True] * 3
    assert encoder.threads == [where] * 3


@KINDS
async def test_none_is_a_result(
    app: procrastinate.App, written: list[Ended], kind: str, where: str
) -> None:
    await run(app, task_of(app, kind, lambda: None, result=True))
    assert outcomes(written) == [kept("null")]


@KINDS
async def test_the_result_of_another_task_is_not_looked_at(
    app: procrastinate.App, encoder: Encoder, written: list[Ended], kind: str, where: str
) -> None:
    await run(app, task_of(app, kind, set), 2)
    assert [entry.outcome is SUCCEEDED and not entry.kept for entry in written] == [True, True]
    assert encoder.threads == []


@pytest.mark.parametrize(
    ("kind", "of_task", "of_worker", "result", "where"),
    [
        ("coroutine", [outer, inner], [], '{"outer":{"inner":1}}', "loop"),
        ("coroutine", [inner], [outer], '{"outer":{"inner":1}}', "loop"),
        ("function", [in_thread], [], '{"in thread":1}', "thread"),
        ("function", [], [in_thread], '{"in thread":1}', "thread"),
        ("function", [], [outer], '{"outer":1}', "thread"),
        ("function", [in_thread], [outer, inner], '{"outer":{"inner":{"in thread":1}}}', "thread"),
        ("wrapper", [], [outer], '{"outer":1}', "thread"),
    ],
)
async def test_the_value_of_the_outermost_middleware_is_kept(
    app: procrastinate.App,
    encoder: Encoder,
    written: list[Ended],
    kind: str,
    of_task: Any,
    of_worker: Any,
    result: str,
    where: str,
) -> None:
    task = task_of(app, kind, lambda: 1, result=True, middleware=of_task)
    await run(app, task, middleware=of_worker)
    assert outcomes(written) == [kept(result)]
    assert encoder.threads == [where]


@KINDS
async def test_what_cannot_be_kept_costs_the_result_alone_and_is_told(
    app: procrastinate.App,
    written: list[Ended],
    kind: str,
    where: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await run(app, task_of(app, kind, lambda: {"secret"}, result=True), name="w")
    assert outcomes(written) == [not_kept(NOT_JSON)]
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage() == f"task[1](n=0) has succeeded, but {NOT_JSON}"
    assert record.name == "procrastinate.jobs"
    fields = ("action", "job_id", "status", "worker_name")
    assert [record.__dict__[field] for field in fields] == [
        *("result_not_kept", 1, "succeeded", "w")
    ]


async def test_results_that_are_not_kept_are_not_logged_if_no_jobs_are(
    app: procrastinate.App, written: list[Ended], caplog: pytest.LogCaptureFixture
) -> None:
    await run(app, task_of(app, "coroutine", set, result=True), log_jobs="none")
    assert outcomes(written) == [not_kept(NOT_JSON)]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@KINDS
async def test_a_strict_task_fails_without_its_result_and_is_tried_again(
    app: procrastinate.App, written: list[Ended], kind: str, where: str
) -> None:
    values = iter([{"secret"}, 7])
    await run(app, task_of(app, kind, lambda: next(values), result="strict", retry=1))
    again, ended = outcomes(written)
    assert isinstance(again, Requeued)
    assert again.error is not None
    assert again.error["type"] == "procrastinate.errors.ResultNotKept"
    assert again.error["message"] == NOT_JSON
    assert ended == kept("7")


@KINDS
async def test_a_strict_task_that_has_no_retry_has_failed(
    app: procrastinate.App, written: list[Ended], kind: str, where: str
) -> None:
    await run(app, task_of(app, kind, set, result="strict"))
    (entry,) = written
    assert (entry.outcome.status, entry.kept) == (Status.FAILED, True)
    assert entry.outcome.error is not None
    assert entry.outcome.error["type"] == "procrastinate.errors.ResultNotKept"


@KINDS
@pytest.mark.parametrize(
    "exception",
    [SystemExit(1), GeneratorExit(), MemoryError(), asyncio.CancelledError(), StopIteration(1)],
)
async def test_no_encoder_keeps_a_slot(
    app: procrastinate.App,
    encoder: Encoder,
    written: list[Ended],
    kind: str,
    where: str,
    exception: BaseException,
) -> None:
    encoder.raises = exception
    task = task_of(app, kind, lambda: 1, result=True)
    await run(app, task, 2, concurrency=1)
    encoder.raises = None
    await run(app, task, 1, concurrency=1)
    assert [entry.outcome.status for entry in written] == [Status.SUCCEEDED] * 3
    results = [getattr(entry.outcome, "result", None) for entry in written]
    assert results == [None, None, "1"]


def interrupting(value: Any) -> str:
    if isinstance(value, dict):
        return json_codec.dumps(value)
    raise KeyboardInterrupt


def test_an_interruption_that_meets_an_encoder_frees_the_slot_and_goes_on() -> None:
    app = procrastinate.App(connector=InMemoryConnector(json_dumps=interrupting))
    task = task_of(app, "function", lambda: 1, result=True)
    task.defer(n=1)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(app)


class Later:
    """Something to await."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self._value


async def test_what_is_awaited_is_the_result_of_a_plain_function(
    app: procrastinate.App, written: list[Ended]
) -> None:
    await run(app, task_of(app, "function", lambda: Later(5), result=True))
    assert outcomes(written) == [kept("5")]


@pytest.mark.parametrize(
    ("kind", "value", "type_name"),
    [
        ("coroutine", Later(5), "Later"),
        ("coroutine", iter([1]), "list_iterator"),
        ("function", (n for n in "ab"), "generator"),
        ("function", functools.partial(print), "partial"),
    ],
)
async def test_what_would_still_have_to_run_is_no_result(
    app: procrastinate.App, written: list[Ended], kind: str, value: Any, type_name: str
) -> None:
    await run(app, task_of(app, kind, lambda: value, result=True))
    said = f"encoding it raised TypeError: Object of type {type_name} is not JSON serializable"
    assert outcomes(written) == [not_kept(f"the result of type {type_name} is not kept: {said}")]


def test_results_are_kept_of_jobs_that_a_test_runs(
    app: procrastinate.App, written: list[Ended]
) -> None:
    task = task_of(app, "function", lambda: "here", result=True)
    task.defer(n=1)
    run_jobs(app)
    assert outcomes(written) == [kept('"here"')]


async def test_a_blueprint_s_task_keeps_results_in_the_app_that_took_it_up(
    app: procrastinate.App, written: list[Ended]
) -> None:
    blueprint = procrastinate.Blueprint()
    task = task_of(blueprint, "function", lambda: 1, result=True)  # type: ignore[arg-type]
    app.add_tasks_from(blueprint, namespace="there")
    await run(app, task)
    assert outcomes(written) == [kept("1")]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_what_returns_although_it_was_asked_to_end_has_a_result(
    app: procrastinate.App, written: list[Ended], kind: str
) -> None:
    @app.task(name="asked", pass_context=True, result=True)
    def function(context: JobContext, n: int) -> str:
        app.job_manager.cancel_job_by_id(context.job.id, abort=True)
        return "done"

    @app.task(name="asked on the loop", pass_context=True, result=True)
    async def coroutine(context: JobContext, n: int) -> str:
        await app.job_manager.cancel_job_by_id_async(context.job.id, abort=True)
        return "done"

    await run(app, function if kind == "function" else coroutine)
    assert outcomes(written) == [kept('"done"')]
    (job,) = await app.job_manager.list_jobs_async()
    assert (job.status, job.result) == (Status.SUCCEEDED, "done")


@pytest.mark.parametrize(
    ("delete_jobs", "left"),
    [
        ("never", ["failed", "fine", "kept", "kept, failed"]),
        ("successful", ["failed", "kept", "kept, failed"]),
        ("always", ["kept", "kept, failed"]),
    ],
)
async def test_a_job_of_a_task_that_keeps_results_stays_whatever_its_end(
    any_app: procrastinate.App, delete_jobs: str, left: list[str]
) -> None:
    def fail() -> None:
        raise ValueError

    any_app.task(name="kept", result=True)(lambda: None)
    any_app.task(name="kept, failed", result=True)(fail)
    any_app.task(name="fine")(lambda: None)
    any_app.task(name="failed")(fail)
    for name in any_app.tasks:
        await any_app.tasks[name].defer_async()

    await any_app.run_worker_async(wait=False, delete_jobs=delete_jobs)

    jobs = await any_app.job_manager.list_jobs_async()
    assert sorted(job.task_name for job in jobs) == left


LOCKED = Job(4, Status.DOING, "default", "task", {}, lock="x")
BARE = Ended(Job(1, Status.DOING, "default", "task", {}), SUCCEEDED)
WITH_RESULT = Ended(Job(2, Status.DOING, "default", "task", {}), kept("1"), kept=True)
FAILED = Ended(Job(3, Status.DOING, "default", "task", {}), Finished(Status.FAILED), kept=True)
WITH_LOCK = Ended(LOCKED, kept("1"), kept=True)


@pytest.mark.parametrize(
    ("delete_jobs", "entries", "expected"),
    [
        ("never", [BARE, BARE], [[BARE, BARE]]),
        ("never", [BARE, WITH_RESULT, BARE], [[BARE, WITH_RESULT, BARE]]),
        ("never", [BARE, WITH_RESULT, FAILED], [[BARE, WITH_RESULT, FAILED]]),
        ("never", [WITH_RESULT, WITH_LOCK], [[WITH_RESULT], [WITH_LOCK]]),
        ("successful", [WITH_RESULT, WITH_RESULT], [[WITH_RESULT, WITH_RESULT]]),
        ("successful", [BARE, WITH_RESULT, BARE], [[BARE, BARE], [WITH_RESULT]]),
        ("always", [WITH_RESULT, FAILED, BARE], [[WITH_RESULT, FAILED], [BARE]]),
    ],
)
def test_one_statement_writes_endings_with_results_and_without_unless_some_are_deleted(
    delete_jobs: str, entries: list[Ended], expected: list[list[Ended]]
) -> None:
    assert groups(entries, delete_jobs) == expected


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


LIMITS: list[Any] = [
    None,
    {"a": [1, True, None, "é\n\\u0000"]},
    nested(DEEPEST),
    10 ** (DIGITS - 1),
    "x" * (LARGEST - 2),
    "\U0001f600" * 1_000,
]


async def test_what_is_at_the_limits_is_read_back_as_it_was(any_app: procrastinate.App) -> None:
    @any_app.task(name="number", result=True)
    async def number(n: int) -> Any:
        return LIMITS[n]

    await number.batch_defer_async(*[{"n": n} for n in range(len(LIMITS))])
    await any_app.run_worker_async(wait=False, concurrency=3)
    jobs = await any_app.job_manager.list_jobs_async()
    assert [(job.has_result, job.result_error) for job in jobs] == [(True, None)] * len(LIMITS)
    assert [job.result == value for job, value in zip(jobs, LIMITS, strict=True)] == [True] * 6


async def test_what_cannot_be_kept_spoils_nothing_beside_it(any_app: procrastinate.App) -> None:
    values: list[Any] = [1, {2}, "a\0b", nested(3_000), 10**5_000, "x" * LARGEST, float("nan"), 8]

    @any_app.task(name="number", result=True)
    def number(n: int) -> Any:
        return values[n]

    await number.batch_defer_async(*[{"n": n} for n in range(len(values))])
    await any_app.run_worker_async(wait=False, concurrency=3)
    jobs = await any_app.job_manager.list_jobs_async()
    assert [job.status for job in jobs] == [Status.SUCCEEDED] * len(values)
    assert [job.result for job in jobs] == [1, *[None] * 6, 8]
    assert [job.result_error is None for job in jobs] == [True, *[False] * 6, True]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value with a text that nothing but the database looks at, and that it refuses."""
    value, checked_text = "refused", results.checked_text

    def checked(given: Any, *args: Any, **options: Any) -> str:
        return "{" if given == value else checked_text(given, *args, **options)

    monkeypatch.setattr(results, "checked_text", checked)
    monkeypatch.setattr(writer, "REFUSED_AGAIN_AFTER", 0.01)
    return value


class NoDecision(procrastinate.BaseRetryStrategy):
    """A strategy that fails, and forgets which job it was asked about."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> Any:
        job.lease = 17
        raise SystemExit("no")


@pytest.mark.parametrize(
    ("result", "retry", "lock", "delete_jobs", "ends_as"),
    [
        (True, 1, None, "never", "succeeded"),
        ("strict", 0, None, "never", "failed"),
        ("strict", 0, None, "always", "failed"),
        ("strict", 0, "one after the other", "never", "failed"),
        ("strict", NoDecision(), None, "never", "failed"),
        ("strict", 1, None, "never", "succeeded"),
        ("strict", 1, "one after the other", "always", "succeeded"),
    ],
)
async def test_a_result_that_the_database_refuses_fails_an_attempt_of_a_strict_task(
    any_app: procrastinate.App,
    refused: str,
    result: Any,
    retry: Any,
    lock: str | None,
    delete_jobs: str,
    ends_as: str,
) -> None:
    @any_app.task(name="task", result=result, retry=retry, pass_context=True)
    async def task(context: JobContext, n: int) -> Any:
        return refused if n == 0 and context.job.attempts == 1 else n

    for n in range(2):
        await task.configure(lock=lock).defer_async(n=n)
    async with asyncio.timeout(60):
        await any_app.run_worker_async(wait=False, delete_jobs=delete_jobs)

    jobs = await any_app.job_manager.list_jobs_async()
    assert [job.status for job in jobs] == [ends_as, "succeeded"]
    assert jobs[1].result == 1
    strict = result == "strict"
    errors = [(each["type"], each["message"]) for each in jobs[0].errors]
    assert errors == [("procrastinate.errors.ResultNotKept", RESULT_REFUSED)] * strict
    assert jobs[0].result_error == (None if strict else RESULT_REFUSED)
    assert jobs[0].attempts == 1 + (strict and retry == 1)
    assert jobs[0].result == (0 if jobs[0].attempts == 2 else None)


def test_observers_and_tests_are_told_of_a_strict_task_s_refused_result(refused: str) -> None:
    told: list[tuple[str, str]] = []

    class Seeing(procrastinate.Observer):
        def on_raised(self, event: Any) -> None:
            told.append((type(event.exception).__name__, event.status))

        def on_ended(self, event: Any) -> None:
            told.extend(("ended", each.status) for each in event.attempts)

    app = procrastinate.App(connector=InMemoryConnector(), observers=[Seeing()])
    app.task(name="task", result="strict")(lambda: refused).defer()
    with pytest.raises(procrastinate.errors.ResultNotKept, match="the database refused it"):
        run_jobs(app)
    assert told == [("ResultNotKept", "failed"), ("ended", "failed")]


async def test_the_result_of_a_job_that_was_taken_away_is_not_written(
    dsn: str, query: Callable[..., Any]
) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))

    @app.task(name="lost", result=True)
    def lost() -> str:
        query("update procrastinate_jobs set lease = lease + 1")  # as another claim would
        return "mine"

    async with app.open_async():
        await lost.defer_async()
        async with asyncio.timeout(60):
            await app.run_worker_async(wait=False)
    assert query("select status::text, result, result_error from procrastinate_jobs") == [
        ("doing", None, None)
    ]
