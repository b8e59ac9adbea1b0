"""What leads to what: links, parents, contexts, and what failures look like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

import procrastinate
from procrastinate import Job, JobAborted, NewJob, Status, observing

from .conftest import Recording

AsTask = Callable[..., Any]


def context_of(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def linked(span: ReadableSpan) -> list[int]:
    return [each.context.span_id for each in span.links]


def carried_by(meta: dict[str, Any] | None) -> int:
    """Return the id of the span that a job carries, and nothing else."""
    assert meta is not None
    assert {*meta} == {"traceparent"}
    return int(meta["traceparent"].split("-")[2], 16)


async def run(app: procrastinate.App, **options: Any) -> None:
    await app.run_worker_async(wait=False, install_signal_handlers=False, **options)


# From defer to attempt


async def test_an_attempt_links_to_what_deferred_its_job(
    recording: Recording, as_task: AsTask
) -> None:
    app = recording.app()
    task = as_task(app, lambda: None)
    async with app.open_async():
        job_id = await task.defer_async()
        await run(app)
        meta = (await app.job_manager.get_job_async(job_id)).meta
    defer, process = recording.spans()
    assert linked(process) == [context_of(defer).span_id]
    assert process.parent is None
    assert context_of(process).trace_id != context_of(defer).trace_id
    assert [each.attributes["messaging.message.id"] for each in (defer, process)] == [
        *(str(job_id), str(job_id)),
    ]
    assert process.attributes["procrastinate.job.attempt"] == 1
    assert carried_by(meta) == context_of(defer).span_id


async def test_with_parent_an_attempt_is_also_a_child(
    recording: Recording, as_task: AsTask
) -> None:
    app = recording.app(parent=True)
    task = as_task(app, lambda: None)
    async with app.open_async():
        await task.defer_async()
        await run(app)
    defer, process = recording.spans()
    assert process.parent.span_id == context_of(defer).span_id
    assert context_of(process).trace_id == context_of(defer).trace_id
    assert linked(process) == [context_of(defer).span_id]


async def test_what_a_task_defers_is_a_child_of_its_attempt(
    recording: Recording, as_task: AsTask
) -> None:
    app = recording.app()
    other = app.configure_task("other", queue="elsewhere")
    seen: list[int] = []

    def body() -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)
        other.defer()

    task = as_task(app, body)
    async with app.open_async():
        await task.defer_async()
        await run(app, queues=["mail"])
    _, inner, process = recording.spans()
    assert inner.name == "defer elsewhere"
    assert inner.parent.span_id == context_of(process).span_id
    assert seen == [context_of(process).span_id]


async def test_a_defer_is_a_child_of_what_goes_on_around_it_and_ends_with_it(
    recording: Recording,
) -> None:
    app = recording.app()
    async with app.open_async():
        tracer = recording.traces.get_tracer("test")
        with tracer.start_as_current_span("request") as request:
            await app.configure_task("task").defer_async()
            app.configure_task("task").defer()
            assert trace.get_current_span() is request
    first, second, outer = recording.spans()
    assert {first.parent.span_id, second.parent.span_id} == {context_of(outer).span_id}


async def test_baggage_comes_along(recording: Recording, as_task: AsTask) -> None:
    app = recording.app()
    seen: list[object] = []
    task = as_task(app, lambda: seen.append(baggage.get_all()))
    async with app.open_async():
        token = context.attach(baggage.set_baggage("customer", "ann"))
        await task.defer_async()
        context.detach(token)
        await run(app)
    assert seen == [{"customer": "ann"}]


async def test_the_span_of_the_worker_s_surroundings_is_a_link_and_no_parent(
    recording: Recording, as_task: AsTask
) -> None:
    app = recording.app(parent=True)
    task = as_task(app, lambda: None)
    async with app.open_async():
        await task.defer_async()
        with recording.traces.get_tracer("test").start_as_current_span("worker") as around:
            await run(app)
    defer, process, _ = recording.spans()
    assert process.parent.span_id == context_of(defer).span_id
    assert linked(process) == [
        *(context_of(defer).span_id, around.get_span_context().span_id),
    ]


async def test_each_attempt_links_to_the_one_defer(recording: Recording, as_task: AsTask) -> None:
    app = recording.app()
    bodies = iter([lambda: 1 / 0, lambda: None])
    task = as_task(app, lambda: next(bodies)(), retry=1)
    async with app.open_async():
        await task.defer_async()
        await run(app)
    defer, first, second = recording.spans()
    assert linked(first) == linked(second) == [context_of(defer).span_id]
    assert [each.attributes["procrastinate.job.attempt"] for each in (first, second)] == [1, 2]
    assert [each.status.status_code for each in (first, second)] == [
        *(StatusCode.ERROR, StatusCode.UNSET),
    ]


async def test_jobs_of_periodic_tasks_have_no_link_and_are_counted(recording: Recording) -> None:
    observer = recording.observer()
    job = NewJob("task", queue="mail")
    observer.on_deferred(observing.Deferred((job,), (1,), in_transaction=False))
    with observer.around_attempt(Job(1, Status.DOING, "mail", "task", {})):
        pass
    (process,) = recording.spans()
    assert process.links == ()
    (point,) = recording.points()["messaging.client.sent.messages"]
    assert point.value == 1


async def test_a_context_comes_through_postgresql(
    recording: Recording, as_task: AsTask, procrastinate_dsn: str
) -> None:
    connector = procrastinate.PsycopgConnector(conninfo=procrastinate_dsn)
    app = procrastinate.App(connector=connector, observers=[recording.observer()])
    task = as_task(app, lambda: None)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        first = await task.defer_async()
        batch = await task.batch_defer_async({}, {})
        await run(app)
        (job,) = await app.job_manager.list_jobs_async(id=first)
    spans = {each.attributes["messaging.message.id"]: each for each in recording.spans("process")}
    one, many = recording.spans("defer")
    assert linked(spans[str(first)]) == [context_of(one).span_id]
    assert [linked(spans[str(each)]) for each in batch] == [[context_of(many).span_id]] * 2
    assert spans[str(first)].attributes["messaging.client.id"] == str(job.worker)


# Batches


def test_a_batch_is_one_span_that_all_jobs_carry(recording: Recording) -> None:
    app = recording.app()
    with app.open():
        ids = app.configure_task("task", queue="mail").batch_defer({}, {}, {})
        metas = [app.job_manager.get_job(each).meta for each in ids]
    (defer,) = recording.spans()
    assert defer.attributes["messaging.batch.message_count"] == 3
    assert [carried_by(meta) for meta in metas] == [context_of(defer).span_id] * 3
    (point,) = recording.points()["messaging.client.sent.messages"]
    assert point.value == 3


def test_with_a_span_per_job_each_carries_its_own(recording: Recording) -> None:
    app = recording.app(span_per_job=True)
    with app.open():
        ids = app.configure_task("task", queue="mail").batch_defer({}, {}, {})
        metas = [app.job_manager.get_job(each).meta for each in ids]
        single = app.configure_task("task", queue="mail").defer()
    *creates, defer, alone = recording.spans()
    assert [each.name for each in creates] == ["create mail"] * 3
    assert linked(defer) == [context_of(each).span_id for each in creates]
    assert [each.attributes["messaging.message.id"] for each in creates] == [*map(str, ids)]
    assert [carried_by(meta) for meta in metas] == [context_of(each).span_id for each in creates]
    assert (alone.name, alone.attributes["messaging.message.id"]) == ("defer mail", str(single))


def test_an_empty_batch_is_nothing(recording: Recording) -> None:
    app = recording.app()
    with app.open():
        assert app.configure_task("task").batch_defer() == []
    assert (recording.spans(), recording.points()) == ([], {})


def test_a_context_that_a_job_has_already_stays(recording: Recording) -> None:
    class Theirs(procrastinate.Observer):
        def around_defer(self, jobs: Any) -> Any:
            for job in jobs:
                job.meta = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "x": 1}
            return super().around_defer(jobs)

    ours = recording.app().observers[0]
    app = procrastinate.App(connector="memory", observers=[Theirs(), ours])
    with app.open():
        meta = app.job_manager.get_job(app.configure_task("task").defer()).meta
    assert meta == {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "x": 1}


# Failures


def event_of(span: ReadableSpan) -> dict[str, Any]:
    (event,) = span.events
    assert event.name == "exception"
    return dict(event.attributes or {})


@pytest.mark.parametrize(("retry", "becomes"), [(1, "todo"), (False, "failed")])
async def test_a_failure_is_told_retried_or_not(
    recording: Recording, as_task: AsTask, retry: Any, becomes: str
) -> None:
    class Broken(Exception):
        pass

    def body() -> None:
        raise Broken("no mail")

    app = recording.app()
    task = as_task(app, body, retry=retry)
    async with app.open_async():
        await task.defer_async()
        await run(app)
    span = recording.spans("process")[0]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no mail")
    name = f"{__name__}.{Broken.__qualname__}"
    assert span.attributes["error.type"] == name
    assert span.attributes["procrastinate.job.status"] == becomes
    event = event_of(span)
    assert (event["exception.type"], event["exception.message"]) == (name, "no mail")
    assert "in body\n" in event["exception.stacktrace"]
    (failed,) = recording.points()["messaging.process.duration"]
    assert (failed.count, failed.attributes["error.type"]) == (1 + bool(retry), name)


async def test_an_abortion_is_no_error(recording: Recording, as_task: AsTask) -> None:
    def body() -> None:
        raise JobAborted

    app = recording.app()
    task = as_task(app, body)
    async with app.open_async():
        await task.defer_async()
        await run(app)
    (span,) = recording.spans("process")
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert span.attributes["procrastinate.job.status"] == "aborted"
    assert "error.type" not in span.attributes


async def test_a_task_that_is_cancelled_for_its_timeout_has_failed(recording: Recording) -> None:
    app = recording.app()

    @app.task(name="task", queue="mail", timeout=0.01)
    async def task() -> None:
        await asyncio.Event().wait()

    async with app.open_async():
        job_id = await task.defer_async()
        await run(app)
        (error,) = (await app.job_manager.get_job_async(job_id)).errors
    (span,) = recording.spans("process")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == error["type"]


async def test_an_interrupted_attempt_is_no_error(recording: Recording) -> None:
    app = recording.app()
    begun = asyncio.Event()

    @app.task(name="task", queue="mail")
    async def task() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with app.open_async():
        await task.defer_async()
        worker = app.worker(shutdown_graceful_timeout=0)
        running = asyncio.create_task(worker.run())
        await begun.wait()
        worker.stop()
        await running
    (span,) = recording.spans("process")
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["procrastinate.job.status"] == "todo"


async def test_a_span_ends_when_the_code_ends(recording: Recording) -> None:
    observer = recording.observer()
    job = Job(1, Status.DOING, "mail", "task", {}, worker=4)
    with pytest.raises(ValueError, match="x"), observer.around_attempt(job):
        raise ValueError("x")
    assert recording.spans() == []
    before = time.time_ns()
    observer.on_lease_lost(observing.LeaseLost("w", 4, (job,)))
    (span,) = recording.spans()
    assert span.end_time <= before
    assert "procrastinate.job.status" not in span.attributes


def test_what_a_worker_leaves_behind_ends_with_it(recording: Recording) -> None:
    observer = recording.observer()
    for job_id, worker in [(1, 4), (2, 5), (1, 4)]:
        job = Job(job_id, Status.DOING, "mail", "task", {}, worker=worker)
        with pytest.raises(ValueError, match="x"), observer.around_attempt(job):
            raise ValueError("x")
    assert [each.attributes["messaging.message.id"] for each in recording.spans()] == ["1"]
    observer.on_worker_stopped(observing.WorkerStopped("w", 4))
    assert [each.attributes["messaging.client.id"] for each in recording.spans()] == ["4", "4"]


def test_a_defer_that_a_queueing_lock_refuses_is_no_error(recording: Recording) -> None:
    app = recording.app()
    defer = app.configure_task("task", queue="mail", queueing_lock="x")
    with app.open():
        defer.defer()
        with pytest.raises(procrastinate.AlreadyEnqueued):
            defer.defer()
    first, second = recording.spans()
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes["procrastinate.already_enqueued"] is True
    assert "procrastinate.already_enqueued" not in first.attributes
    (sent,) = recording.points()["messaging.client.sent.messages"]
    assert sent.value == 1


def test_a_defer_that_fails_is_an_error(recording: Recording) -> None:
    app = recording.app()
    jobs = (NewJob("task", queue="mail"), NewJob("task", queue="mail"))
    with pytest.raises(OSError, match="no server"), app.observers[0].around_defer(jobs):
        raise OSError("no server")
    (span,) = recording.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no server")
    assert span.attributes["error.type"] == "OSError"
    (sent,) = recording.points()["messaging.client.sent.messages"]
    assert (sent.value, sent.attributes["error.type"]) == (2, "OSError")
