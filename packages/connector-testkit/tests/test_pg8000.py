"""The example of the documentation, over another driver than ours, passes the kit."""

from __future__ import annotations

from typing import Any

import pytest
from pg8000_connector import Pg8000Connector

from procrastinate_connector_testkit import Adapter, LimitsPool, suite_for
from procrastinate_connector_testkit.databases import url_for


class Pg8000Adapter(Adapter, LimitsPool):
    connector_class = Pg8000Connector
    name = "pg8000"

    def connector(self, dsn: str, **options: Any) -> Pg8000Connector:
        return Pg8000Connector(url_for(dsn, "pg8000"), **options)

    def limited(self, dsn: str) -> Pg8000Connector:
        return Pg8000Connector(url_for(dsn, "pg8000"), max_size=1, pool_timeout=1.0)


pytestmark = pytest.mark.slow

TestPg8000 = suite_for(Pg8000Adapter())
