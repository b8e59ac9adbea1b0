"""What spans and metrics are called: OpenTelemetry's messaging conventions, version 1.44.

The names are written down here because the package of their constants calls them incubating, and
may drop one in any release. Names that begin with ``procrastinate.`` are ours.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Final, TypeAlias

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
CLIENT_ID: Final = "messaging.client.id"
ERROR_TYPE: Final = "error.type"

TASK: Final = "procrastinate.task.name"
ATTEMPT: Final = "procrastinate.job.attempt"
STATUS: Final = "procrastinate.job.status"
ALREADY_ENQUEUED: Final = "procrastinate.already_enqueued"

SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
OPERATION_DURATION: Final = "messaging.client.operation.duration"
PROCESS_DURATION: Final = "messaging.process.duration"

#: Bounds of the durations' buckets, in seconds, as the conventions advise.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

#: For each operation, the type that the conventions give it.
TYPES: Final = MappingProxyType({"defer": "send", "create": "create", "process": "process"})

#: An exception that the job's own record does not name.
OTHER: Final = "_OTHER"

Attributes: TypeAlias = dict[str, str | int | bool]


@functools.lru_cache(maxsize=2_000)
def metric_attributes(operation: str, queue: str, task_name: str) -> Attributes:
    """Return what every metric of an operation says. Do not change it: it is kept."""
    return {
        SYSTEM: "procrastinate",
        OPERATION_NAME: operation,
        DESTINATION: queue,
        TASK: task_name,
    }


@functools.lru_cache(maxsize=2_000)
def span_attributes(operation: str, queue: str, task_name: str) -> Attributes:
    """Return what every span of an operation says. Do not change it: it is kept."""
    common = metric_attributes(operation, queue, task_name)
    return {**common, OPERATION_TYPE: TYPES[operation]}


def error_type(exception: BaseException) -> str:
    """Return the dotted name of an exception's class; of a builtin one, the plain name."""
    kind = type(exception)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
