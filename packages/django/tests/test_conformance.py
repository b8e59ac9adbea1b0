"""The connector passes the public test kit."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate import connectors
from procrastinate.connector import Connector
from procrastinate_connector_testkit import Adapter, suite_for
from procrastinate_django import DjangoConnector
from procrastinate_django.drivers import uses_psycopg3

from .databases import new_alias


class DjangoAdapter(Adapter):
    connector_class = DjangoConnector

    def connector(self, dsn: str, **options: Any) -> DjangoConnector:
        return DjangoConnector(alias=new_alias(dsn), **options)

    def referee(self, dsn: str) -> Connector:
        if uses_psycopg3():
            return connectors.get("psycopg_sync")(conninfo=dsn)
        return connectors.get("psycopg2")(dsn=dsn)


# The kit runs each behaviour in a thread of its own, whose connection ends with it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
class TestDjango(suite_for(DjangoAdapter())):  # type: ignore[misc]
    pass
