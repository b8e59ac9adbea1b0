"""The one place that waits: two small drivers for the same flows.

A flow is a generator that yields `Query` objects, is sent their rows, and returns a value. An
error of the database is thrown into the flow at the ``yield``, so that a flow can give a
constraint its meaning or try another statement.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from procrastinate import errors
from procrastinate.connector import AsyncExecutor, Executor, Query, Rows

T = TypeVar("T")

Flow: TypeAlias = Generator[Query, Rows, T]


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
