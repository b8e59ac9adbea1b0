"""The names that mean something else than a queue of the user's."""

from __future__ import annotations

EVERY_QUEUE = "*"  # the name of a pause of all queues ...
SPARED = "builtin"  # ... but this one: procrastinate's own tasks
