"""The dashboard of procrastinate: jobs, queues and workers in a browser, and actions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import later

if TYPE_CHECKING:
    from procrastinate_dashboard.dashboard import Dashboard
    from procrastinate_dashboard.messages import Access, Request, Response

__all__ = ["Access", "Dashboard", "Request", "Response"]

if not TYPE_CHECKING:
    # Imported when they are asked for: the list of commands imports this package too.
    __getattr__ = later.imported(
        __name__,
        {
            "Access": "messages",
            "Dashboard": "dashboard",
            "Request": "messages",
            "Response": "messages",
        },
    )
