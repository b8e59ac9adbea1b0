"""The dashboard of procrastinate: jobs, queues and workers in a browser, and actions on them."""

from __future__ import annotations

from procrastinate_dashboard.dashboard import Dashboard
from procrastinate_dashboard.messages import Access, Request, Response

__all__ = ["Access", "Dashboard", "Request", "Response"]
