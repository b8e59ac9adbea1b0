"""Django's own tests of its tasks, run with our backend: see `run`."""

from __future__ import annotations
