"""Fixtures for tests of apps that defer jobs: an in-memory connector, and apps put on one.

pytest loads this module in every run of everybody who has procrastinate installed. So it is no
part of the package `procrastinate`, which is imported when a fixture is used and not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate.testing import InMemoryConnector


class PutInMemory(Protocol):
    """What the fixture `procrastinate_in_memory` gives."""

    def __call__(self, app: App, *others: App) -> InMemoryConnector:
        """Put apps on one new in-memory connector until the test ends, and return that."""
        ...


@pytest.fixture
def procrastinate_connector() -> InMemoryConnector:
    """An in-memory connector of the test's own, without jobs, its clock showing the real time."""
    from procrastinate.testing import InMemoryConnector

    return InMemoryConnector()


@pytest.fixture
def procrastinate_in_memory() -> Iterator[PutInMemory]:
    """A function that puts apps on an in-memory connector until the test ends, and returns that."""
    from procrastinate.testing import in_memory

    with ExitStack() as until_the_end:

        def put(app: App, *others: App) -> InMemoryConnector:
            return until_the_end.enter_context(in_memory(app, *others))

        yield put
