"""The connectors of workers and deferrers, by name."""

from __future__ import annotations

from typing import Any

from psycopg2.extensions import parse_dsn

import procrastinate
from procrastinate import connectors

#: Those that can run a campaign's workers; the first does unless another is asked for.
OF_WORKERS = ("psycopg", "aiopg", "asyncpg", "sqlalchemy_async")
#: Those that defer, besides the workers' own.
OF_DEFERRERS = ("psycopg2", "sqlalchemy")
_LIMITS: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
}  # seconds, milliseconds


def for_worker(name: str, dsn: str, listen_dsn: str | None) -> Any:
    """Return a worker's connector; ``listen_dsn`` is a way for LISTEN alone."""
    kind: Any = connectors.get(name)
    if name == "psycopg":
        return kind(conninfo=dsn, listen_conninfo=listen_dsn)
    if name == "sqlalchemy_async":
        arguments = parse_dsn(dsn)
        return kind(url="postgresql+psycopg://", connect_args=arguments, listen_dsn=listen_dsn)
    return kind(dsn=dsn, listen_dsn=listen_dsn)


def for_deferrer(name: str, dsn: str) -> Any:
    """Return a connector that gives up on a silent server after a while."""
    if name == "psycopg2":
        return procrastinate.Psycopg2Connector(dsn=dsn, **_LIMITS)
    if name == "aiopg":
        limits: dict[str, Any] = {"timeout": 10, **_LIMITS}
        return procrastinate.AiopgConnector(dsn=dsn, **limits)
    if name == "sqlalchemy":
        arguments: Any = {**parse_dsn(dsn), **_LIMITS}
        return procrastinate.SQLAlchemyPsycopg2Connector(connect_args=arguments)
    if name == "psycopg":
        return procrastinate.PsycopgConnector(conninfo=dsn, **_LIMITS)
    return for_worker(name, dsn, None)
