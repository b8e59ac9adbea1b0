"""Spans and metrics have exactly the attributes, kinds and units of the messaging conventions 1.44.

`SPANS` was typed from the conventions: for each span, every attribute that they define for it, with
its level, and whether we give it. `METRICS` likewise.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.trace import SpanKind

from procrastinate import NewJob
from procrastinate_opentelemetry import conventions

from .conftest import Recording

REQUIRED, CONDITIONAL, RECOMMENDED, OPT_IN = "required", "conditional", "recommended", "opt-in"
ALWAYS, ON_FAILURE, ONE_JOB, BATCH = "always", "on failure", "of one job", "of a batch"
# What an observer cannot see, or does not exist here.
NEVER = "never"

COMMON = {
    "messaging.operation.name": (REQUIRED, ALWAYS),
    "messaging.system": (REQUIRED, ALWAYS),
    "error.type": (CONDITIONAL, ON_FAILURE),
    "messaging.destination.name": (CONDITIONAL, ALWAYS),
    "messaging.destination.template": (CONDITIONAL, NEVER),  # queues have no templates
    "messaging.operation.type": (CONDITIONAL, ALWAYS),
    "messaging.destination.partition.id": (RECOMMENDED, NEVER),
    "messaging.message.conversation_id": (RECOMMENDED, NEVER),
    "server.address": (RECOMMENDED, NEVER),
    "server.port": (RECOMMENDED, NEVER),
    "messaging.message.body.size": (OPT_IN, NEVER),
    "messaging.message.envelope.size": (OPT_IN, NEVER),
}
SEND = {
    **COMMON,
    "messaging.batch.message_count": (CONDITIONAL, BATCH),
    "messaging.message.id": (RECOMMENDED, ONE_JOB),
    "messaging.client.id": (RECOMMENDED, NEVER),  # programs that defer have no id
    "network.peer.address": (RECOMMENDED, NEVER),
    "network.peer.port": (RECOMMENDED, NEVER),
}
CREATE = {**COMMON, "messaging.message.id": (RECOMMENDED, ONE_JOB)}
PROCESS = {
    **COMMON,
    "messaging.batch.message_count": (CONDITIONAL, BATCH),
    "messaging.message.id": (RECOMMENDED, ONE_JOB),
    "messaging.client.id": (RECOMMENDED, ALWAYS),
}
OURS = {
    "defer": {"procrastinate.task.name"},
    "create": {"procrastinate.task.name"},
    "process": {"procrastinate.task.name", "procrastinate.job.attempt"},
}
#: Name of a span, its kind, its attributes, and for which cases they are given.
SPANS: dict[str, tuple[str, SpanKind, dict[str, tuple[str, str]], set[str]]] = {
    "defer": ("defer", SpanKind.PRODUCER, SEND, {ALWAYS, ONE_JOB}),
    "defer that fails": ("defer", SpanKind.PRODUCER, SEND, {ALWAYS, ON_FAILURE}),
    "defer of a batch": ("defer", SpanKind.PRODUCER, SEND, {ALWAYS, BATCH}),
    "defer after creates": ("defer", SpanKind.CLIENT, SEND, {ALWAYS, BATCH}),
    "create": ("create", SpanKind.PRODUCER, CREATE, {ALWAYS, ONE_JOB}),
    "process": ("process", SpanKind.CONSUMER, PROCESS, {ALWAYS, ONE_JOB}),
    "process that fails": ("process", SpanKind.CONSUMER, PROCESS, {ALWAYS, ONE_JOB, ON_FAILURE}),
}
TYPES = {"defer": "send", "create": "create", "process": "process"}

#: Of each metric, the attributes with their levels, and whether we give them.
ON_METRICS = {
    "messaging.operation.name": (REQUIRED, ALWAYS),
    "messaging.system": (REQUIRED, ALWAYS),
    "error.type": (CONDITIONAL, ON_FAILURE),
    "messaging.destination.name": (CONDITIONAL, ALWAYS),
    "messaging.destination.template": (CONDITIONAL, NEVER),
    "server.address": (CONDITIONAL, NEVER),  # "if available"
    "messaging.destination.partition.id": (RECOMMENDED, NEVER),
    "server.port": (RECOMMENDED, NEVER),
}
OF_CONSUMERS = {
    **ON_METRICS,
    "messaging.consumer.group.name": (CONDITIONAL, NEVER),  # "if applicable"
    "messaging.destination.subscription.name": (CONDITIONAL, NEVER),
}
METRICS: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "messaging.client.sent.messages": ("defer", "{message}", ON_METRICS),
    "messaging.client.consumed.messages": (
        "process",
        "{message}",
        # That a job reaches its task does not fail.
        {**OF_CONSUMERS, "error.type": (CONDITIONAL, NEVER)},
    ),
    "messaging.client.operation.duration": (
        *("defer", "s"),
        {**OF_CONSUMERS, "messaging.operation.type": (CONDITIONAL, ALWAYS)},
    ),
    "messaging.process.duration": ("process", "s", OF_CONSUMERS),
}


def given(table: dict[str, tuple[str, str]], cases: set[str]) -> set[str]:
    return {name for name, (_, case) in table.items() if case in cases}


def run(recording: Recording, case: str) -> ReadableSpan:
    """Do what gives such a span, and return it."""
    app = recording.app(span_per_job=case in ("create", "defer after creates"))

    @app.task(name="task", queue="mail")
    def task(fails: bool = False) -> None:
        if fails:
            raise ValueError("no")

    with app.open():
        if case in ("defer of a batch", "defer after creates", "create"):
            task.batch_defer({}, {})
        else:
            task.defer(fails=case == "process that fails")
        app.run_worker(wait=False, install_signal_handlers=False)
    return recording.spans(SPANS[case][0])[0]


@pytest.mark.parametrize("case", SPANS)
def test_a_span_has_exactly_these_attributes(case: str, recording: Recording) -> None:
    operation, kind, table, cases = SPANS[case]
    span = failed_defer(recording) if case == "defer that fails" else run(recording, case)
    extra = {"procrastinate.job.status"} if case == "process that fails" else set()
    assert (span.name, span.kind) == (f"{operation} mail", kind)
    assert {*(span.attributes or {})} == given(table, cases) | OURS[operation] | extra
    about = dict(span.attributes or {})
    assert about["messaging.system"] == "procrastinate"
    assert about["messaging.operation.name"] == operation
    assert about["messaging.operation.type"] == TYPES[operation]
    assert about["messaging.destination.name"] == "mail"
    assert about["procrastinate.task.name"] == "task"


def failed_defer(recording: Recording) -> ReadableSpan:
    job = NewJob("task", queue="mail")
    with pytest.raises(OSError, match="no server"), recording.observer().around_defer((job,)):
        raise OSError("no server")
    return recording.spans("defer")[0]


@pytest.mark.parametrize("table", [SEND, CREATE, PROCESS, ON_METRICS, OF_CONSUMERS])
def test_whatever_the_conventions_require_is_given(table: dict[str, tuple[str, str]]) -> None:
    assert {case for level, case in table.values() if level == REQUIRED} == {ALWAYS}


def names_in(module: str) -> set[str]:
    found = vars(import_module(f"opentelemetry.semconv.{module}"))
    return {value for name, value in found.items() if name.isupper() and type(value) is str}


def test_the_names_are_those_of_the_package_of_conventions() -> None:
    known = names_in("_incubating.attributes.messaging_attributes")
    for each in ("error", "server", "network"):
        known |= names_in(f"attributes.{each}_attributes")
    tables = (SEND, CREATE, PROCESS, ON_METRICS, OF_CONSUMERS)
    assert set().union(*tables) - known == set()
    assert {*METRICS} <= names_in("_incubating.metrics.messaging_metrics")


def test_metrics_have_exactly_these_attributes_and_units(recording: Recording) -> None:
    failed_defer(recording)
    run(recording, "process that fails")
    recording_ok = Recording()
    run(recording_ok, "process")
    for name, (operation, _, table) in METRICS.items():
        common = given(table, {ALWAYS}) | {"procrastinate.task.name"}
        (good,) = recording_ok.points()[name]
        assert {*good.attributes} == common
        assert good.attributes["messaging.operation.name"] == operation
        with_failures = {frozenset(each.attributes) for each in recording.points()[name]}
        on_failure = common | given(table, {ON_FAILURE})
        assert frozenset(on_failure) in with_failures


def test_instruments_are_those_of_the_package_of_conventions(recording: Recording) -> None:
    run(recording, "process")
    made = recording.metrics_made()
    for name, (_, unit, _) in METRICS.items():
        make = getattr(messaging_metrics, f"create_{name.replace('.', '_')}")
        theirs: dict[str, Any] = {}
        make(_Noting(theirs))
        assert made[name] == (theirs["unit"], theirs["description"])
        assert made[name][0] == unit


class _Noting:
    """A meter that notes what it is asked for."""

    def __init__(self, noted: dict[str, Any]) -> None:
        self._noted = noted

    def create_counter(self, **about: Any) -> None:
        self._noted.update(about)

    create_histogram = create_counter


def test_durations_have_the_buckets_of_the_conventions(recording: Recording) -> None:
    run(recording, "process")
    for name in ("messaging.client.operation.duration", "messaging.process.duration"):
        (point,) = recording.points()[name]
        assert point.explicit_bounds == conventions.SECONDS


def test_the_scope_names_the_package_and_the_version_of_the_conventions(
    recording: Recording,
) -> None:
    scope = run(recording, "process").instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == (
        *("procrastinate_opentelemetry", "https://opentelemetry.io/schemas/1.44.0"),
    )
    assert scope.version
