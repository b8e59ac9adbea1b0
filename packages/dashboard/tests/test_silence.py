"""A database that is silent: said at once but for who tries, and over as soon as it answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from silence import SilentProxy

import procrastinate
from procrastinate.errors import ConnectionLost, QueryCanceled
from procrastinate.testing import InMemoryConnector
from procrastinate_dashboard import Access, Dashboard, Response, asgi, dashboard, shared, silence
from procrastinate_dashboard.shared import NoAnswer
from procrastinate_dashboard.silence import TRY_EVERY, Silence

from .helpers import Browser, text_of
from .test_doors import OverASGI, over_wsgi

PATIENCE = 60  # seconds


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_at_a_time_tries_whether_there_is_an_answer():
    clock = Clock()
    noted = Silence(clock)
    assert not any(noted.refuses() for _ in range(3))
    noted.failed(ConnectionLost("no answer"), took=9.0)
    noted.tried()
    assert all(noted.refuses() for _ in range(3))
    clock.now += TRY_EVERY
    assert [noted.refuses() for _ in range(3)] == [False, True, True]
    noted.tried()
    clock.now += TRY_EVERY
    assert not noted.refuses()
    noted.heard()
    assert not any(noted.refuses() for _ in range(3))


@pytest.mark.parametrize(
    "exc, took, is_silence",
    [
        (NoAnswer(), 0.0, True),
        (ConnectionLost("after a while"), 9.0, True),
        (ConnectionLost("at once"), 0.1, False),
        (QueryCanceled("too slow", sqlstate="57014"), 9.0, False),
        (ValueError("of a page"), 9.0, False),
    ],
)
def test_what_comes_at_once_or_from_the_server_is_no_silence(
    exc: Exception, took: float, is_silence: bool
):
    noted = Silence(Clock())
    noted.tried()
    noted.failed(exc, took)
    assert noted.refuses() is is_silence


@pytest.fixture
def silent() -> Browser:
    """Somebody who looks at a dashboard whose database was silent a moment ago."""
    app = procrastinate.App(connector=InMemoryConnector())
    shown = Dashboard(app, access=lambda request: Access("ada", "act"))
    shown.site.silence = Silence(Clock())
    shown.no_answer(Browser(shown).request("GET", "/"))
    return Browser(shown)


def test_pages_say_so_and_files_are_served(silent: Browser):
    page = silent.get("/jobs")
    assert (page.status, page.headers["retry-after"]) == (503, "2")
    assert "comes back once it answers" in text_of(page)
    assert "Nothing was changed" in text_of(silent.post("/jobs/1/retry", {}))
    assert silent.get("/static/dashboard.css").status == 200


@pytest.mark.parametrize("refusal", [None, Response(b"Log in first.", 401)])
def test_who_is_refused_takes_no_try(refusal: Response | None):
    app = procrastinate.App(connector=InMemoryConnector())
    shown = Dashboard(app, access=lambda request: refusal if request.path == "/" else Access("ada"))
    shown.site.silence = Silence(clock := Clock())
    browser = Browser(shown)
    shown.no_answer(browser.request("GET", "/jobs"))
    assert browser.get("/").status == 503
    clock.now += TRY_EVERY
    assert browser.get("/").status == (401 if refusal else 403)
    assert browser.get("/jobs").status == 200
    assert browser.get("/jobs").status == 200


def test_no_answer_is_logged_once_in_a_while(silent: Browser, caplog: pytest.LogCaptureFixture):
    noted = silent.dashboard.site.silence = Silence(clock := Clock())
    for _ in range(2):
        for _ in range(20):
            silent.dashboard.no_answer(silent.request("GET", "/"))
        clock.now += 60
    assert [record.getMessage() for record in caplog.records] == [
        "The dashboard cannot ask the database: no answer in time"
    ] * 2
    assert not noted.refuses()


@pytest.fixture
def proxy(procrastinate_dsn: str) -> Iterator[SilentProxy]:
    with procrastinate.App(
        connector=procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    ).open() as app:
        app.schema_manager.apply_schema()
    with SilentProxy(procrastinate_dsn) as proxy:
        yield proxy


CONNECTORS = ["Psycopg2Connector", "AsyncpgConnector"]
DOORS = {
    "wsgi": lambda shown: over_wsgi(shown.wsgi()),
    "asgi": OverASGI,
}


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("door", DOORS)
def test_a_silent_database_is_told_and_comes_back(
    proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch, door: str, connector: str
):
    for module, name in ((silence, "LONG"), (silence, "TRY_EVERY"), (shared, "ERROR_LASTS")):
        monkeypatch.setattr(module, name, 0.2)
    monkeypatch.setattr(asgi, "PATIENCE", 60.0)
    made: Any = getattr(procrastinate, connector)(dsn=make_dsn(proxy.dsn, connect_timeout=2))
    with procrastinate.App(connector=made).open() as app:
        shown = Dashboard(app, access=lambda request: Access("ada", "act"))
        ask = DOORS[door](shown)
        assert ask("GET", "/jobs")[0] == 200
        monkeypatch.setattr(dashboard, "ANSWER_WITHIN", 0.5)  # no answer is good any more
        proxy.hush(new=True)
        assert ask("GET", "/queues")[0] == 503
        assert [ask("GET", page)[0] for page in ("/workers", "/jobs?queue=x")] == [503, 503]
        assert ask("GET", "/static/dashboard.css")[0] == 200
        monkeypatch.setattr(dashboard, "ANSWER_WITHIN", 3.0)
        proxy.speak()
        deadline = time.monotonic() + PATIENCE
        while (status := ask("GET", "/queues")[0]) != 200:
            assert (status, time.monotonic() < deadline) == (503, True)
            time.sleep(0.05)
