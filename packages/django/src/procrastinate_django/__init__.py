"""Procrastinate in Django: jobs in your transactions, and a backend for Django's own tasks.

The app is made when it is first asked for, because it needs Django's settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate_django.connections import ConnectionCare
    from procrastinate_django.connector import DjangoConnector

    app: App

__all__ = ["ConnectionCare", "DjangoConnector", "app"]

_PLACES = {
    "ConnectionCare": "procrastinate_django.connections",
    "DjangoConnector": "procrastinate_django.connector",
}


def __getattr__(name: str) -> Any:
    if name == "app":
        from procrastinate_django.project import project_app

        return project_app()
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
