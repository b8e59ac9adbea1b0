"""The way of a trace's context from the program that defers a job to the attempts at it.

It travels in the job's ``meta``, under the names that the configured propagator gives it:
``traceparent`` and ``baggage``, for instance. Such an entry that is there already stays, because it
is the context that another program has given the job.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context

from procrastinate import NewJob


def carrier_of(context: Context) -> dict[str, Any]:
    """Return what the propagator makes of a context; it may raise."""
    carrier: dict[str, Any] = {}
    propagate.inject(carrier, context)
    return carrier


def give(job: NewJob, carrier: dict[str, Any]) -> None:
    """Let a new job carry a context. Each job has a ``meta`` of its own."""
    if carrier:
        job.meta = {**carrier, **job.meta} if job.meta else dict(carrier)


def carried(meta: dict[str, Any] | None) -> Context:
    """Return the context that a job carries, which may be empty; the propagator may raise."""
    if not meta:
        return Context()
    texts = {name: value for name, value in meta.items() if type(value) is str}
    return propagate.extract(texts, Context())
