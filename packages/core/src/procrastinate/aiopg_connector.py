"""`AiopgConnector`, where Procrastinate 0 had it; it is in `procrastinate.contrib.aiopg`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from procrastinate import connectors
from procrastinate.former import missing_from

if not TYPE_CHECKING:  # or every name would be in it

    def __getattr__(name: str) -> Any:
        """Find the connector; if its package is not installed, say which one is needed."""
        if name == "AiopgConnector":
            return connectors.by_class_name(name)
        return missing_from(__name__)(name)
