"""The one place that waits: two small drivers for the same flows.

A flow is a generator that yields `Query` objects, is sent their rows, and returns a value. An
error of the database is thrown into the flow at the ``yield``, so that a flow can give a
constraint its meaning or try another statement.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from procrastinate import errors
from procrastinate.connector import AsyncExecutor, Executor, Query, Rows

T = TypeVar("T")

Flow: TypeAlias = Generator[Query, Rows, T]


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a call to the database may take, in seconds.

    The server ends a statement after ``server``. That is less than ``client``: no answer within
    ``client`` therefore means that the connection is dead, and it is severed.
    """

    server: float
    client: float
    #: The settings that each statement of a call runs with.
    settings: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        milliseconds = str(max(1, int(self.server * 1000)))
        object.__setattr__(self, "settings", {"statement_timeout": milliseconds})


def limited(flow: Flow[T], limit: Limit) -> Flow[T]:
    """Return the flow with the server's limit on each of its statements."""
    settings = limit.settings
    try:
        query = next(flow)
        while True:
            both = {**query.settings, **settings} if query.settings else settings
            query = Query(query.name, query.sql, query.params, both)
            try:
                rows = yield query
            except errors.ConnectorException as exc:
                query = flow.throw(exc)
            else:
                query = flow.send(rows)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


def no_answer(limit: Limit, exc: errors.ConnectorException) -> errors.ConnectionLost:
    """Return the error for a call that was severed because its time was over."""
    error = errors.ConnectionLost(f"the database has not answered within {limit.client:g} s")
    error.__cause__ = exc
    return error


def run(flow: Flow[T], executor: Executor) -> T:
    """Run a flow to its end with a synchronous executor and return its value."""
    try:
        query = next(flow)
        while True:
            try:
                rows = executor.execute(query)
            except errors.ConnectorException as exc:
                query = flow.throw(exc)
            else:
                query = flow.send(rows)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


async def run_async(flow: Flow[T], executor: AsyncExecutor) -> T:
    """Run a flow to its end with an asynchronous executor and return its value."""
    try:
        query = next(flow)
        while True:
            try:
                rows = await executor.execute(query)
            except errors.ConnectorException as exc:
                query = flow.throw(exc)
            else:
                query = flow.send(rows)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()
