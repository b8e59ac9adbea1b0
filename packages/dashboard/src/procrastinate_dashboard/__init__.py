"""The dashboard of procrastinate: jobs, queues and workers in a browser, and actions on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate_dashboard.dashboard import Dashboard
    from procrastinate_dashboard.messages import Access, Request, Response

__all__ = ["Access", "Dashboard", "Request", "Response"]

#: Where they are. They are imported when they are asked for: the list of commands imports this
#: package too.
_LATER = {
    "Access": "messages",
    "Dashboard": "dashboard",
    "Request": "messages",
    "Response": "messages",
}

if not TYPE_CHECKING:  # type checkers would take every name for a known one

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
