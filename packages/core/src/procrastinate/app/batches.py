"""Work on many jobs in bounded batches, each a transaction of its own.

`Batches` are to flows what a flow is to queries: a generator that yields what makes the flow of the
next batch, is sent its result, and returns a value. So the order of the batches, too, is written
once for synchronous and asynchronous code.

Where two who work on the same jobs wait for each other in a circle, or a twin with the same
queueing lock was committed while the batch ran, the batch has changed nothing, and is done again.
Inside the caller's transaction that is impossible: there the error goes to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway
from procrastinate.model.partitions import Partitions

T = TypeVar("T")

Batches: TypeAlias = Generator[Callable[[], Flow[Any]], Any, T]

TRIES = 5
#: SQLSTATEs of a batch that may well succeed when it is done again: unique violation, deadlock,
#: serialization failure.
AGAIN = ("23505", "40P01", "40001")


def run_batches(
    gateway: Gateway,
    make_batches: Callable[[Partitions], Batches[T]],
    *,
    connection: CallerConnection | None = None,
) -> T:
    """Do all batches: in the caller's transaction if a connection is given."""
    batches = make_batches(gateway.partitions(connection))
    try:
        make = next(batches)
        while True:
            make = batches.send(_one(gateway, make, connection))
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        batches.close()


async def run_batches_async(
    gateway: Gateway,
    make_batches: Callable[[Partitions], Batches[T]],
    *,
    connection: CallerConnection | None = None,
) -> T:
    """Do all batches; see `run_batches`."""
    batches = make_batches(await gateway.partitions_async(connection))
    try:
        make = next(batches)
        while True:
            make = batches.send(await _one_async(gateway, make, connection))
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        batches.close()


def _one(gateway: Gateway, make: Callable[[], Flow[Any]], connection: Any) -> Any:
    for tries_left in reversed(range(TRIES)):
        try:
            return gateway.run(make(), connection=connection, transaction=True)
        except ConnectorException as exc:
            if not _may_try_again(exc, tries_left, connection):
                raise
    return None


async def _one_async(gateway: Gateway, make: Callable[[], Flow[Any]], connection: Any) -> Any:
    for tries_left in reversed(range(TRIES)):
        try:
            return await gateway.run_async(make(), connection=connection, transaction=True)
        except ConnectorException as exc:
            if not _may_try_again(exc, tries_left, connection):
                raise
    return None


def _may_try_again(exc: ConnectorException, tries_left: int, connection: Any) -> bool:
    return connection is None and tries_left > 0 and exc.sqlstate in AGAIN
