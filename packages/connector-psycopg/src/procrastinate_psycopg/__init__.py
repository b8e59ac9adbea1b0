"""Procrastinate's connectors for psycopg 3: asynchronous, for workers too, and synchronous."""

from __future__ import annotations

from procrastinate.errors import ConnectorBroken

try:
    import psycopg as _psycopg  # noqa: F401 - it fails here, with a word about what to do
except ImportError as exc:
    raise ConnectorBroken(
        "psycopg finds no libpq, PostgreSQL's client library: run"
        " `pip install 'procrastinate-psycopg[binary]'`, which brings one, or install your"
        f" system's libpq ({' '.join(str(exc).split())})"
    ) from exc

from procrastinate_psycopg.connector import PsycopgConnector
from procrastinate_psycopg.sync_connector import SyncPsycopgConnector

__all__ = ["PsycopgConnector", "SyncPsycopgConnector"]
