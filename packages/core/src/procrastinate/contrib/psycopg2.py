"""`Psycopg2Connector`, from the package installed for the connector ``psycopg2``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import connectors

if TYPE_CHECKING:
    from procrastinate_psycopg2 import Psycopg2Connector
else:
    Psycopg2Connector = connectors.get("psycopg2")

__all__ = ["Psycopg2Connector"]
