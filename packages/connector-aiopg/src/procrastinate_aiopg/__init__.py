"""The asynchronous connector of procrastinate over aiopg: coroutines, workers, LISTEN."""

from __future__ import annotations

from procrastinate_aiopg.connector import AiopgConnector

__all__ = ["AiopgConnector"]
