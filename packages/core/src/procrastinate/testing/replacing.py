"""Apps on a connector in memory for the length of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from procrastinate.app.app import App
from procrastinate.testing.connector import InMemoryConnector


@contextlib.contextmanager
def in_memory(app: App, *others: App) -> Iterator[InMemoryConnector]:
    """Put apps on one new in-memory connector for the length of a ``with`` block, and give that.

    It encodes and decodes arguments as the first app's connector does.
    """
    original = app.connector
    connector = InMemoryConnector(
        json_dumps=original.json_dumps, json_loads=original.json_loads, schema=original.schema
    )
    with contextlib.ExitStack() as replaced:
        for each in (app, *others):
            replaced.enter_context(each.replace_connector(connector))
        yield connector
