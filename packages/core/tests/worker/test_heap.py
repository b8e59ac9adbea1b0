"""The garbage collector passes over the program while a worker has the process to itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import procrastinate
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.process import heap


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.fixture
def app() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


@pytest.fixture
def counts(app: procrastinate.App) -> list[int]:
    """How many objects are passed over, as each job sees it. One job waits."""
    counts: list[int] = []

    @app.task(name="count")
    def count() -> None:
        counts.append(gc.get_freeze_count())

    with app.open():
        count.defer()
    return counts


def test_a_workers_own_process_passes_over_the_program_while_it_works(
    app: procrastinate.App, counts: list[int]
) -> None:
    app.run_worker(wait=False)

    (while_working,) = counts
    assert while_working > 1_000
    assert gc.get_freeze_count() == 0


def test_what_the_program_has_frozen_stays_frozen(
    app: procrastinate.App, counts: list[int]
) -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()

    app.run_worker(wait=False)

    # Some of these objects may have been freed by their last references meanwhile.
    assert 0 < counts[0] <= frozen
    assert 0 < gc.get_freeze_count() <= frozen


async def test_a_guest_leaves_the_collector_alone(
    app: procrastinate.App, counts: list[int]
) -> None:
    async with app.open_async():
        await app.run_worker_async(wait=False)

    assert counts == [0]


def test_it_ends_however_the_worker_does() -> None:
    with pytest.raises(MemoryError), heap.spared():
        raise MemoryError

    assert gc.get_freeze_count() == 0
