"""The connector for SQLAlchemy engines: one engine for the application and the queue."""

from __future__ import annotations

from procrastinate_sqlalchemy.connector import SQLAlchemyConnector, SQLAlchemyPsycopg2Connector

__all__ = ["SQLAlchemyConnector", "SQLAlchemyPsycopg2Connector"]
