"""The connector for SQLAlchemy's asynchronous engines: one engine for application and queue."""

from __future__ import annotations

from procrastinate_sqlalchemy_async.connector import SQLAlchemyAsyncConnector

__all__ = ["SQLAlchemyAsyncConnector"]
