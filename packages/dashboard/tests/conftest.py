"""Fixtures: an app in memory with jobs in every state, and somebody who looks at its dashboard."""

from __future__ import annotations

import pytest

import procrastinate
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate_dashboard import Access, Dashboard

from .helpers import Browser


@pytest.fixture
def app() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


@pytest.fixture
def full(app: procrastinate.App) -> procrastinate.App:
    """The app with jobs: 1 succeeded, 2 failed, 3 scheduled, 4 cancelled, 5 ready."""

    @app.task(name="mail.send", queue="mail", result=True)
    def send(to: str, password: str) -> dict[str, str]:
        if to == "nobody":
            raise ConnectionError("smtp://ada:hunter2@example.org does not answer <b>now</b>")
        return {"sent": to, "api_token": "s3cret"}

    send.defer(to="somebody", password="hunter2")
    send.defer(to="nobody", password="hunter2")
    run_jobs(app, raise_errors=False)
    send.configure(schedule_in={"hours": 3}).defer(to="later", password="hunter2")
    send.configure(schedule_in={"hours": 4}).defer(to="never", password="hunter2")
    app.job_manager.cancel_job_by_id(4)
    app.configure_task("unknown", queue="other", lock="one").defer(x="<script>alert(1)</script>")
    return app


@pytest.fixture
def actor(full: procrastinate.App) -> Browser:
    """Somebody who may act."""
    return Browser(Dashboard(full, access=lambda request: Access("ada", "act")))


@pytest.fixture
def reader(full: procrastinate.App) -> Browser:
    """Somebody who may only look."""
    return Browser(Dashboard(full, access=lambda request: Access("bob")))
