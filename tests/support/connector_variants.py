"""Which variants of the test kit's tests say what another variant, or another suite, says too.

They are left out of connectors that run whole; ``nox -s matrix`` runs them.

Rules

1. Plain calls of an asynchronous connector are served by a synchronous connector, which has a suite
   of its own, or on core's loop thread by the asynchronous half, which the other variants run. So
   of the plain variants the core remains, and opening, which is where the halves meet.
2. A connector that runs over several drivers has a suite for each. What the queue's statements do
   is tested over the first of them. Over the others the core of those tests remains, and all that
   is about the driver: values, results, errors, plans, pools, sessions, callers' connections. Each
   of these drivers has a connector of its own too, whose suite runs every statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from connector_core import is_of_the_core

from procrastinate.connector import AsyncConnector

_KIT = "procrastinate_connector_testkit.behaviours."
_OPENING = f"{_KIT}opening"
_QUEUE = f"{_KIT}queue_"


def said_twice(items: Iterable[Any]) -> set[str]:
    """Return those of some tests (pytest's items) that say nothing new, by their node ids."""
    firsts: dict[tuple[str, type], type] = {}
    found: set[str] = set()
    for item in items:
        adapter = getattr(getattr(item, "cls", None), "adapter", None)
        if adapter is None or not item.function.__module__.startswith(_KIT):
            continue
        module = item.nodeid.partition("::")[0]
        first = firsts.setdefault((module, adapter.connector_class), item.cls)
        if is_of_the_core(item.nodeid):
            continue
        if _is_a_plain_call(item) or (item.cls is not first and _is_about_the_queue(item)):
            found.add(item.nodeid)
    return found


def _is_a_plain_call(item: Any) -> bool:
    """Whether a test runs through the half that is not the connector's own; not if of opening."""
    way = item.callspec.params.get("way") if hasattr(item, "callspec") else None
    is_async = issubclass(item.cls.adapter.connector_class, AsyncConnector)
    return is_async and way == "sync" and item.function.__module__ != _OPENING


def _is_about_the_queue(item: Any) -> bool:
    return bool(item.function.__module__.startswith(_QUEUE))
