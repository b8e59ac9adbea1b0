from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector

from .helpers import DRIVERS, arguments_for, url_of


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def new_engine(
    driver: str, procrastinate_dsn: str
) -> AsyncIterator[Callable[..., AsyncEngine]]:
    """Make engines to the test's database, disposed of after the test."""
    engines: list[AsyncEngine] = []

    def new(**arguments: Any) -> AsyncEngine:
        connect_args = arguments_for(driver, procrastinate_dsn) | arguments.pop("connect_args", {})
        engines.append(create_async_engine(url_of(driver), connect_args=connect_args, **arguments))
        return engines[-1]

    yield new
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def new_connector(driver: str, procrastinate_dsn: str) -> Callable[..., SQLAlchemyAsyncConnector]:
    """Make connectors with engines of their own to the test's database, not opened."""

    def new(**arguments: Any) -> SQLAlchemyAsyncConnector:
        connect_args = arguments_for(driver, procrastinate_dsn) | arguments.pop("connect_args", {})
        return SQLAlchemyAsyncConnector(url=url_of(driver), connect_args=connect_args, **arguments)

    return new
