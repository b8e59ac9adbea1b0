"""The one place that waits: two small drivers for the same generators.

A flow is a generator that yields a `Request` at a time, is sent its rows, and returns a value. An
error of the database is thrown into the flow at the ``yield``, so that a flow can give a
constraint its meaning or try another statement.

A request says which statement, with which values. What depends on the connection (the text for its
schema, the settings) is filled in by ``prepare``. The gateway gives it when it opens the session.
Work that takes several sessions is a generator too, which yields a `Step` for each of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from procrastinate import errors
from procrastinate.connector import AsyncExecutor, Executor, Query, Rows, Value

S = TypeVar("S")
T = TypeVar("T")

NO_SETTINGS: Mapping[str, str] = {}


class Request:
    """A statement by its name, and the values of its parameters: ``Request("get_job", id=7)``."""

    __slots__ = ("name", "params", "settings")

    def __init__(self, name: str, /, **params: Value) -> None:
        self.name = name
        self.params = params
        self.settings: Mapping[str, str] = NO_SETTINGS

    def under(self, **settings: str) -> Request:
        """Return the same, which is to run with these settings in place of its statement's."""
        self.settings = settings
        return self

    def __repr__(self) -> str:
        return f"Request({self.name!r}, {', '.join(self.params)})"


class Script(Request):
    """A text that is no statement of ours, such as a migration, with markers for the schema."""

    __slots__ = ("text",)

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name)
        self.text = text


Flow: TypeAlias = Generator[Request, Rows, T]


@dataclass(frozen=True, slots=True)
class Step:
    """A flow that has a session of its own."""

    flow: Flow[Any]
    transaction: bool = False
    limit: Limit | None = None  # None: that of the run


#: What takes several sessions: it yields a `Step` at a time, and is sent what its flow returns.
Steps: TypeAlias = Generator[Step, Any, T]
#: Makes of a request what the connector executes.
Prepare: TypeAlias = Callable[[Request], Query]


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a call to the database may take, in seconds.

    The server ends a statement after ``server``. That is less than ``client``: no answer within
    ``client`` therefore means that the connection is dead, and it is severed. The time of
    ``client`` begins when there is a connection, or (``connects``) before one is waited for.
    """

    server: float
    client: float
    connects: bool = False
    #: The settings that each statement of a call runs with, besides its own.
    settings: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        milliseconds = str(max(1, int(self.server * 1000)))
        object.__setattr__(self, "settings", {"statement_timeout": milliseconds})


class NoAnswer(errors.ConnectionLost):
    """A call was severed because its time was over: the server is silent, or a node behind it."""


def no_answer(limit: Limit, exc: errors.ConnectorException) -> NoAnswer:
    """Return the error for a call that was severed because its time was over."""
    error = NoAnswer(f"the database has not answered within {limit.client:g} s")
    error.__cause__ = exc
    return error


def at(partition: int, flow: Flow[T]) -> Flow[T]:
    """Return a flow as one about the jobs and locks of a partition. It keeps its name."""
    placed: Any = _at(partition, flow)
    placed.__name__ = getattr(flow, "__name__", "at")
    given: Flow[T] = placed
    return given


def _at(partition: int, flow: Flow[T]) -> Flow[T]:
    try:
        request = next(flow)
        while True:
            request.params.setdefault("partition", partition)
            try:
                rows = yield request
            except errors.ConnectorException as exc:
                request = flow.throw(exc)
            else:
                request = flow.send(rows)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


def run(flow: Flow[T], executor: Executor, prepare: Prepare) -> T:
    """Run a flow to its end with a synchronous executor and return its value."""
    return run_steps(flow, lambda request: executor.execute(prepare(request)))


def run_async(flow: Flow[T], executor: AsyncExecutor, prepare: Prepare) -> Coroutine[Any, Any, T]:
    """Return what runs a flow to its end with an asynchronous executor and returns its value."""
    return run_steps_async(flow, lambda request: executor.execute(prepare(request)))


def run_steps(steps: Generator[S, Any, T], run_step: Callable[[S], Any]) -> T:
    """Run steps to their end and return their value; ``run_step`` answers each of them."""
    try:
        step = next(steps)
        while True:
            try:
                answer = run_step(step)
            except errors.ConnectorException as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


async def run_steps_async(
    steps: Generator[S, Any, T], run_step: Callable[[S], Awaitable[Any]]
) -> T:
    """Run steps to their end and return their value; ``run_step`` answers each of them."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await run_step(step)
            except errors.ConnectorException as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()
