"""A PostgreSQL server from a wheel, for the demo, development and tests.

The names below are loaded on first use: the supervisor process imports this package too, and
must stay small and start fast, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate_embedded.databases import Server
    from procrastinate_embedded.errors import EmbeddedServerError
    from procrastinate_embedded.installed import binaries, installed_versions
    from procrastinate_embedded.servers import server, server_or_given

__all__ = [
    "EmbeddedServerError",
    "Server",
    "__version__",
    "binaries",
    "installed_versions",
    "server",
    "server_or_given",
]

__version__ = "4.0.0"

_LATER = {
    "EmbeddedServerError": "errors",
    "Server": "databases",
    "binaries": "installed",
    "installed_versions": "installed",
    "server": "servers",
    "server_or_given": "servers",
}


if not TYPE_CHECKING:  # type checkers would take every name for a known one

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
