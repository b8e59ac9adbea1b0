"""For tests of code that defers jobs: a connector that needs no database, and a clock to move."""

from __future__ import annotations

from procrastinate.testing.clock import Clock
from procrastinate.testing.connector import InMemoryConnector

__all__ = ["Clock", "InMemoryConnector"]
