"""The flow that counts the jobs in one state exactly, by queue."""

from __future__ import annotations

from procrastinate.drive import Flow, Request
from procrastinate.model.states import State


def statement_of(state: State) -> str:
    """Return the name of the statement that counts a state."""
    return f"count_{state.value.replace('-', '_')}"


def count_by_queue(state: State, *, timeout: float) -> Flow[dict[str, int]]:
    """Count all jobs in a state. The server gives up after ``timeout`` seconds."""
    milliseconds = str(max(1, int(timeout * 1000)))
    rows = yield Request(statement_of(state)).under(statement_timeout=milliseconds)
    return {queue: int(count) for queue, count in rows}
