"""For tests of code that defers jobs: a connector that needs no database, a clock to move, and a
worker that runs what is waiting now."""

from __future__ import annotations

from procrastinate.testing.clock import Clock
from procrastinate.testing.connector import InMemoryConnector
from procrastinate.testing.replacing import in_memory
from procrastinate.testing.running import run_jobs, run_jobs_async

__all__ = ["Clock", "InMemoryConnector", "in_memory", "run_jobs", "run_jobs_async"]
