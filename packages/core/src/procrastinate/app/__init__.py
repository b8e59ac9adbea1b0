"""What users hold in their hands: App, Blueprint, tasks, and the managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate.app.app import App as App
else:

    def __getattr__(name: str) -> Any:
        """Return what releases up to 3.x had here."""
        if name == "App":
            from procrastinate.app.app import App

            return App
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
