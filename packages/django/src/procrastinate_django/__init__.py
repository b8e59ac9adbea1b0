"""Procrastinate in Django: jobs in your transactions, and a backend for Django's own tasks.

The app is made when it is first asked for, because it needs Django's settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate_django.backend import ProcrastinateBackend
    from procrastinate_django.connections import ConnectionCare
    from procrastinate_django.connector import DjangoConnector
    from procrastinate_django.declared import job

    app: App

__all__ = ["ConnectionCare", "DjangoConnector", "ProcrastinateBackend", "app", "job"]

_PLACES = {
    "ConnectionCare": "procrastinate_django.connections",
    "DjangoConnector": "procrastinate_django.connector",
    "ProcrastinateBackend": "procrastinate_django.backend",
    "job": "procrastinate_django.declared",
}


def __getattr__(name: str) -> Any:
    if name == "app":
        from procrastinate_django.project import project_app

        return project_app()
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
