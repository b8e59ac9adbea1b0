"""`SQLAlchemyPsycopg2Connector`, from the package installed for the connector ``sqlalchemy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import connectors

if TYPE_CHECKING:
    from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector
else:
    SQLAlchemyPsycopg2Connector = connectors.get("sqlalchemy")

__all__ = ["SQLAlchemyPsycopg2Connector"]
