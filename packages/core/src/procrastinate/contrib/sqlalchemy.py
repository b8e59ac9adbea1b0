"""SQLAlchemy's connectors, from the package installed for the connector ``sqlalchemy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import connectors

if TYPE_CHECKING:
    from procrastinate_sqlalchemy import SQLAlchemyConnector, SQLAlchemyPsycopg2Connector
else:
    SQLAlchemyConnector = connectors.get("sqlalchemy")
    SQLAlchemyPsycopg2Connector = connectors.get("sqlalchemy_psycopg2")

__all__ = ["SQLAlchemyConnector", "SQLAlchemyPsycopg2Connector"]
