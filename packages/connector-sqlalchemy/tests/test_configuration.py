from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from procrastinate.errors import AppNotOpen, ConfigurationError, ConnectionFailed, InvalidOption
from procrastinate_sqlalchemy import SQLAlchemyConnector, SQLAlchemyPsycopg2Connector


@pytest.mark.parametrize(
    "dsn, said",
    [
        ("sqlite://", r"sqlite\+pysqlite"),
        ("postgresql+asyncpg://h/d", r"postgresql\+asyncpg"),
        ("postgresql+psycopg://h/d", r"postgresql\+psycopg,|postgresql\+psycopg "),
    ],
)
def test_another_dialect_is_named(dsn: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        SQLAlchemyPsycopg2Connector(dsn=dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=somehost password=secret",
        "postgresql+psycopg2://u:secret@h:port/d",
        "postgresql+psycopg2://u:secret@one:1,two:2/d",
        "nonsense://u:secret@h",
    ],
)
def test_a_malformed_dsn_is_refused_without_showing_its_password(dsn: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"is not an SQLAlchemy URL|the port is not"
    ) as caught:
        SQLAlchemyPsycopg2Connector(dsn=dsn)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_either_driver_may_be_named(driver: str) -> None:
    url = f"postgresql+{driver}://me:secret@h:1234/d"
    shown = "<SQLAlchemyConnector host=h port=1234 dbname=d user=me>"
    assert repr(SQLAlchemyConnector(dsn=url)) == shown
    assert repr(SQLAlchemyConnector.from_url(f"sqlalchemy://me@h:1234/d?driver={driver}")) == shown


def test_the_connector_with_the_driver_s_name_takes_no_other() -> None:
    with pytest.raises(InvalidOption, match=r"needs psycopg2: write postgresql\+psycopg2://"):
        SQLAlchemyPsycopg2Connector.from_url("sqlalchemy-psycopg2://me@h/d?driver=psycopg")
    engine = sqlalchemy.create_engine("postgresql+psycopg://h/d")
    with pytest.raises(InvalidOption, match="needs psycopg2"):
        SQLAlchemyPsycopg2Connector().open(engine)
    with pytest.raises(InvalidOption, match=r"needs psycopg2 or psycopg: write"):
        SQLAlchemyConnector(dsn="postgresql+asyncpg://h/d")


def test_an_asynchronous_engine_is_sent_to_the_other_package() -> None:
    with pytest.raises(InvalidOption, match="procrastinate-sqlalchemy-async"):
        SQLAlchemyConnector().open(create_async_engine("postgresql+psycopg://h/d"))


def test_unknown_arguments_are_named_before_anything_is_connected() -> None:
    with pytest.raises(InvalidOption, match="pool_sise"):
        SQLAlchemyPsycopg2Connector(pool_sise=5)
    with pytest.raises(InvalidOption, match="takes the URL of the database as dsn="):
        SQLAlchemyPsycopg2Connector(url="postgresql+psycopg2://")
    with pytest.raises(InvalidOption, match="unknown argument 'hots'"):
        SQLAlchemyPsycopg2Connector(connect_args={"hots": "h"})


def test_repr_names_the_database_and_never_the_password() -> None:
    url = URL.create("postgresql+psycopg2", "me", "secret", "h", 1234, "d", {"sslpassword": "x"})
    shown = "<SQLAlchemyPsycopg2Connector host=h port=1234 dbname=d user=me>"
    assert repr(SQLAlchemyPsycopg2Connector(dsn=url)) == shown
    default = "<SQLAlchemyPsycopg2Connector (libpq defaults)>"
    assert repr(SQLAlchemyPsycopg2Connector()) == default


def test_from_url_takes_libpqs_options_and_lists_of_hosts() -> None:
    connector = SQLAlchemyPsycopg2Connector.from_url(
        "sqlalchemy://me:secret@one:1,two:2/d?target_session_attrs=read-write&schema=s&pool_size=3"
    )
    shown = "<SQLAlchemyPsycopg2Connector host=one,two port=1,2 dbname=d user=me>"
    assert repr(connector) == shown
    assert connector.schema == "s"


def test_only_an_engine_on_psycopg2_is_taken() -> None:
    connector = SQLAlchemyPsycopg2Connector()
    with pytest.raises(InvalidOption, match="not str"):
        connector.open("postgresql+psycopg2://")
    with pytest.raises(InvalidOption, match=r"sqlite\+pysqlite"):
        connector.open(sqlalchemy.create_engine("sqlite://"))


def test_a_server_that_is_not_there_says_so_without_the_password() -> None:
    connector = SQLAlchemyPsycopg2Connector(
        dsn="postgresql+psycopg2://me:secret@127.0.0.1:1/d", pool_timeout=1
    )
    with pytest.raises(ConnectionFailed, match="port 1 failed") as caught:
        connector.open()
    assert "secret" not in str(caught.value)
    with pytest.raises(AppNotOpen):
        connector.session()
