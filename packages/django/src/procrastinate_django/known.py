"""Django's tasks that ``@task`` has made in this process, by their ``module_path``."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps


@dataclass(slots=True)
class Declared:
    """A task of Django's, and what `job` says of it."""

    task: Any
    options: dict[str, Any] = field(default_factory=dict)
    is_registered: bool = False
    #: Made after Django was set up: so a worker, which imports no pages, may not know it.
    is_late: bool = False


_by_path: dict[str, Declared] = {}
LOCK = threading.RLock()


def declare(task: Any) -> Declared:
    """Note a task that ``@task`` makes, or a copy of one that is known."""
    with LOCK:
        known = _by_path.get(task.module_path)
        if known is None or known.task.func is not task.func:  # its module was loaded again
            known = _by_path[task.module_path] = Declared(task, is_late=apps.ready)
        return known


def declared(path: str) -> Declared | None:
    """Return what is known of a task."""
    return _by_path.get(path)


def every() -> list[Declared]:
    """Return all that is known."""
    return list(_by_path.values())
