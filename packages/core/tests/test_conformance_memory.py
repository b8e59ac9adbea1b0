"""The in-memory connector passes the same suite as those with a database."""

from __future__ import annotations

from typing import Any

from procrastinate.testing import InMemoryConnector
from procrastinate_connector_testkit import Adapter, suite_for


class InMemoryAdapter(Adapter):
    connector_class = InMemoryConnector
    name = "memory"

    def connector(self, dsn: str, **options: Any) -> InMemoryConnector:
        return InMemoryConnector(**options)


TestInMemory = suite_for(InMemoryAdapter())
