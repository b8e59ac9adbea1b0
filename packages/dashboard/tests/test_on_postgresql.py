"""The same pages and actions on a real database: over plain and asynchronous connectors, while it
is away, and while it can only be read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

import procrastinate
from procrastinate_dashboard import Access, Dashboard

from .helpers import Browser, text_of

END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
PAGES = ["/", "/jobs", "/jobs/1", "/queues", "/workers", "/schedules", "/failures"]


def connector_of(name: str, dsn: str) -> Any:
    if name == "AsyncpgConnector":
        return procrastinate.AsyncpgConnector(dsn=dsn)
    return procrastinate.Psycopg2Connector(dsn=dsn)


@contextmanager
def looking_at(connector: Any) -> Iterator[Browser]:
    app = procrastinate.App(connector=connector)
    with app.open():
        yield Browser(Dashboard(app, access=lambda request: Access("ada", "act")))


@pytest.fixture
def dsn(procrastinate_dsn: str) -> str:
    """A database with one job that waits and one that was cancelled."""
    with looking_at(connector_of("", procrastinate_dsn)) as browser:
        app = browser.dashboard.site.app
        app.schema_manager.apply_schema()
        app.configure_task("t", queue="mail", lock="one").defer(to="somebody")
        app.job_manager.cancel_job_by_id(app.configure_task("t", queue="mail").defer())
    return procrastinate_dsn


@pytest.mark.parametrize("name", ["Psycopg2Connector", "AsyncpgConnector"])
def test_pages_and_actions(dsn: str, name: str):
    with looking_at(connector_of(name, dsn)) as browser:
        app = browser.dashboard.site.app
        assert [browser.get(page).status for page in PAGES] == [200] * len(PAGES)
        for query in ("state=ready&lock=one", "error=x&since=1h", "task=t&until=1m", "queue=none"):
            assert browser.get(f"/jobs?{query}").status == 200
        assert browser.get("/jobs?state=sleeping").status == 400
        assert browser.submit("/jobs/2/retry").status == 303
        assert app.job_manager.get_job(2).status == "todo"
        browser.submit("/jobs/cancel?state=ready&queue=mail")
        assert [app.job_manager.get_job(id).status for id in (1, 2)] == ["cancelled"] * 2
        browser.submit("/queues/pause?queue=mail", reason="a pause")
        assert "a pause" in text_of(browser.get("/queues"))


def test_a_database_that_can_only_be_read(dsn: str):
    read_only = make_dsn(dsn, options="-c default_transaction_read_only=on")
    with looking_at(connector_of("", read_only)) as browser:
        assert [browser.get(page).status for page in PAGES] == [200] * len(PAGES)
        for page in ("/jobs/2/retry", "/jobs/1/cancel", "/queues/pause?queue=mail"):
            response = browser.submit(page)
            assert response.status == 409
            assert "can only be read" in text_of(response)


def test_a_database_that_goes_away_and_comes_back(dsn: str):
    with looking_at(connector_of("", dsn)) as browser:
        assert browser.get("/queues").status == 200
        with away(dsn):
            browser.dashboard.site.shared.forget()
            response = browser.get("/queues")
            assert response.status == 503
            assert re.search('id="content" data-live', text_of(response))
            assert response.headers["retry-after"] == "2"
        browser.dashboard.site.shared.forget()
        assert browser.get("/queues").status == 200


@contextmanager
def away(dsn: str) -> Iterator[None]:
    """Let nobody into a database, and end the connections to it."""
    name = parse_dsn(dsn)["dbname"]
    connection = psycopg2.connect(make_dsn(dsn, dbname="postgres"))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f'alter database "{name}" with allow_connections false')
            try:
                while cursor.execute(END_SESSIONS, (name,)) or cursor.fetchall():
                    time.sleep(0.01)  # a session is there until it has obeyed
                yield
            finally:
                cursor.execute(f'alter database "{name}" with allow_connections true')
    finally:
        connection.close()
