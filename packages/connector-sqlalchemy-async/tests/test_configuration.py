from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AssertionPool, Pool, StaticPool

from procrastinate.errors import AppNotOpen, ConfigurationError, InvalidOption
from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector

from .helpers import url_of


@pytest.mark.parametrize(
    "url, said",
    [
        ("sqlite+aiosqlite://", r"sqlite\+aiosqlite"),
        ("postgresql+psycopg2://h/d", r"postgresql\+psycopg2: write postgresql\+asyncpg://"),
    ],
)
def test_another_dialect_is_named(url: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        SQLAlchemyAsyncConnector(url=url)


@pytest.mark.parametrize(
    "url",
    [
        "host=somehost password=secret",
        "postgresql+asyncpg://u:secret@h:port/d",
        "nonsense://u:secret@h",
    ],
)
def test_a_malformed_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"is not an SQLAlchemy URL|the port is not"
    ) as caught:
        SQLAlchemyAsyncConnector(url=url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_unknown_arguments_are_named_before_anything_is_connected(driver: str) -> None:
    with pytest.raises(InvalidOption, match="pool_sise"):
        SQLAlchemyAsyncConnector(url=url_of(driver), pool_sise=5)
    with pytest.raises(InvalidOption, match="takes the URL of the database as url="):
        SQLAlchemyAsyncConnector(dsn=url_of(driver))


def test_repr_names_the_database_and_never_the_password(driver: str) -> None:
    url = URL.create(f"postgresql+{driver}", "me", "secret", "h", 1234, "d")
    shown = f"<SQLAlchemyAsyncConnector {driver} host=h port=1234 dbname=d user=me>"
    assert repr(SQLAlchemyAsyncConnector(url=url)) == shown


def test_from_url_takes_the_driver_and_the_pool_s_size(driver: str) -> None:
    connector = SQLAlchemyAsyncConnector.from_url(
        f"sqlalchemy-async://me:secret@h:1234/d?driver={driver}&schema=s&pool_size=3&sslmode=disable"
    )
    shown = f"<SQLAlchemyAsyncConnector {driver} host=h port=1234 dbname=d user=me>"
    assert (repr(connector), connector.schema) == (shown, "s")


@pytest.mark.parametrize("poolclass", [StaticPool, AssertionPool])
def test_an_engine_of_one_connection_for_all_is_refused(driver: str, poolclass: type[Pool]) -> None:
    with pytest.raises(InvalidOption, match=rf"{poolclass.__name__}, that is one connection"):
        SQLAlchemyAsyncConnector(url=url_of(driver), poolclass=poolclass)


async def test_a_worker_is_refused_on_a_pool_of_the_application_s_that_is_too_small(
    new_engine: Callable[..., AsyncEngine],
    new_connector: Callable[..., SQLAlchemyAsyncConnector],
) -> None:
    connector = new_connector(pool=new_engine(pool_size=2, max_overflow=0).pool)
    await connector.open_async()
    with pytest.raises(ConfigurationError, match=r"pool= may have 2 connections .* takes 3"):
        connector.check_for_worker()
    await connector.close_async()


async def test_open_refuses_what_is_no_asynchronous_engine(driver: str) -> None:
    connector = SQLAlchemyAsyncConnector(url=url_of(driver))
    with pytest.raises(InvalidOption, match="this is a synchronous one"):
        await connector.open_async(sqlalchemy.create_engine("postgresql+psycopg2://"))
    with pytest.raises(InvalidOption, match=r"not builtins\.str"):
        await connector.open_async(url_of(driver))
    one = create_async_engine(url_of(driver), poolclass=StaticPool)
    with pytest.raises(InvalidOption, match="one connection for all"):
        await connector.open_async(one)
    with pytest.raises(AppNotOpen):
        connector.session_async()


@pytest.mark.parametrize("size", [1, 2])
async def test_a_worker_is_refused_on_an_engine_that_is_too_small(
    new_engine: Callable[..., AsyncEngine],
    new_connector: Callable[..., SQLAlchemyAsyncConnector],
    size: int,
) -> None:
    connector = new_connector()
    await connector.open_async(new_engine(pool_size=size, max_overflow=0))
    with pytest.raises(ConfigurationError, match=rf"{size} connections \(pool_size and .* takes 3"):
        connector.check_for_worker()
    await connector.close_async()


async def test_a_worker_needs_to_know_where_the_engine_leads_to(
    new_engine: Callable[..., AsyncEngine],
    new_connector: Callable[..., SQLAlchemyAsyncConnector],
    driver: str,
) -> None:
    """The engine's URL is empty here; what ``connect_args`` say, SQLAlchemy shows to nobody."""
    silent = SQLAlchemyAsyncConnector()
    await silent.open_async(new_engine())
    with pytest.raises(ConfigurationError, match=r"connect_args=\.\.\."):
        silent.check_for_worker()
    await silent.close_async()

    told = new_connector()
    await told.open_async(new_engine())
    told.check_for_worker()
    await told.close_async()
