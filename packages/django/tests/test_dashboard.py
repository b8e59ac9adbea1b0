"""The dashboard behind Django's session, its staff check and its token."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
from django.contrib.auth.models import Permission, User
from django.db import close_old_connections, connections
from django.test import Client, override_settings
from psycopg2.extensions import make_dsn
from silence import SilentProxy

import procrastinate_dashboard.dashboard
from procrastinate_dashboard import Access, shared, silence
from procrastinate_django import app, dashboard

from .databases import settings_of

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture(autouse=True)
def new_dashboard() -> Iterator[None]:
    """Forget the answers of the test before: pages share them for seconds."""
    dashboard.dashboard.cache_clear()
    yield
    dashboard.dashboard.cache_clear()


def browser(*permissions: str, is_staff: bool = True) -> Client:
    """Return the browser of a user, who has logged in."""
    user = User.objects.create_user("ann", is_staff=is_staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def test_who_has_not_logged_in_is_sent_to_the_login() -> None:
    answer = Client().get("/queue/jobs?state=failed")
    assert answer.status_code == 302
    assert answer["Location"] == "/admin/login/?next=/queue/jobs%3Fstate%3Dfailed"


@pytest.mark.parametrize(
    ("permissions", "is_staff"), [((), True), (("view_job", "change_job"), False)]
)
def test_who_may_not_see_jobs_is_refused(permissions: tuple[str, ...], is_staff: bool) -> None:
    assert browser(*permissions, is_staff=is_staff).get("/queue/").status_code == 403


def test_who_may_view_jobs_sees_them() -> None:
    job_id = app.configure_task("shop.confirm").defer(order=7)
    client = browser("view_job")
    overview = client.get("/queue/")
    assert overview.status_code == 200
    assert b"ann" in overview.content
    page = client.get(f"/queue/jobs/{job_id}")
    assert (page.status_code, b"shop.confirm" in page.content) == (200, True)
    assert client.get(f"/queue/jobs/{job_id}/cancel").status_code == 403
    assert client.get("/queue/nowhere").status_code == 404


def test_what_the_setting_says_is_hidden() -> None:
    job_id = app.configure_task("shop.confirm").defer(iban="DE1-of-an-account")
    client = browser("view_job")
    assert b"DE1-of-an-account" in client.get(f"/queue/jobs/{job_id}").content
    dashboard.dashboard.cache_clear()
    with override_settings(PROCRASTINATE={"REDACT": ["iban"]}):
        page = client.get(f"/queue/jobs/{job_id}")
    assert (page.status_code, b"DE1-of-an-account" in page.content) == (200, False)


def test_files_of_pages_are_found() -> None:
    client = browser("view_job")
    page = client.get("/queue/jobs").content.decode()
    files = re.findall(r'(?:href|src)="([^"]*static/[^"]+)"', page)
    assert files
    for each in files:
        answer = Client().get(urljoin("/queue/jobs", each))
        assert answer.status_code == 200, each
        assert not answer.cookies, "caches give a file to all, and would give one token to all"


def test_who_may_change_jobs_acts_with_djangos_token() -> None:
    job_id = app.configure_task("shop.confirm").defer(order=7)
    client = browser("view_job", "change_job")
    asked = client.get(f"/queue/jobs/{job_id}/cancel")
    assert asked.status_code == 200
    form = dict(re.findall(r'name="([^"]+)"\s+value="([^"]*)"', asked.content.decode()))
    assert client.post(f"/queue/jobs/{job_id}/cancel", {}).status_code == 403
    assert app.job_manager.get_job_status(job_id) == "todo"
    assert client.post(f"/queue/jobs/{job_id}/cancel", form).status_code == 303
    assert app.job_manager.get_job_status(job_id) == "cancelled"


def test_the_policy_of_the_pages_is_sent() -> None:
    answer = browser("view_job").get("/queue/")
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert browser_cookies(answer) == {"csrftoken"}


def browser_cookies(answer: object) -> set[str]:
    return set(answer.cookies)  # type: ignore[attr-defined]


@pytest.fixture
def proxy() -> Iterator[SilentProxy]:
    """The way to the database that Django's connection takes."""
    direct = connections.settings["default"]
    names = {
        "NAME": "dbname",
        "USER": "user",
        "PASSWORD": "password",
        "HOST": "host",
        "PORT": "port",
    }
    parts = {libpq: direct[name] for name, libpq in names.items() if direct[name]}
    with SilentProxy(make_dsn(**parts, **direct["OPTIONS"])) as proxy:
        try:
            lead_to(settings_of(proxy.dsn))
            yield proxy
        finally:
            lead_to(direct)


def lead_to(entry: dict[str, Any]) -> None:
    connections["default"].close()
    connections.settings["default"] = entry
    del connections["default"]


def status_of(client: Client, page: str) -> int:
    """Ask for a page, and do what Django does at a request's end if it is no test."""
    answer = client.get(page)
    close_old_connections()
    return answer.status_code


@pytest.mark.parametrize("asked_for", ["the user", "the jobs"])
def test_a_silent_database_is_told_and_comes_back(
    asked_for: str, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_within(seconds: float) -> None:
        for module in (dashboard, procrastinate_dashboard.dashboard):
            monkeypatch.setattr(module, "ANSWER_WITHIN", seconds)

    for module, name in ((silence, "LONG"), (silence, "TRY_EVERY"), (shared, "ERROR_LASTS")):
        monkeypatch.setattr(module, name, 0.2)
    monkeypatch.setattr(dashboard, "CONNECT_WITHIN", 2)
    client = browser("view_job")
    if asked_for == "the jobs":
        monkeypatch.setattr(dashboard, "_answer", lambda request: Access("ann"))
    assert status_of(client, "/queue/jobs") == 200
    answer_within(0.5)  # no answer is good any more
    proxy.hush(new=True)
    assert status_of(client, "/queue/queues") == 503
    assert [status_of(client, "/queue/workers") for _ in range(3)] == [503] * 3
    assert status_of(client, "/queue/static/dashboard.css") == 200
    answer_within(3.0)
    proxy.speak()
    deadline = time.monotonic() + 60
    while (status := status_of(client, "/queue/queues")) != 200:
        assert (status, time.monotonic() < deadline) == (503, True)
        time.sleep(0.05)


def test_it_takes_no_transaction_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one that the database has given up, nothing more could be asked."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    seen: list[bool] = []

    def answer(request: Any) -> Access:
        seen.append(connections["default"].in_atomic_block)
        return Access("ann")

    monkeypatch.setattr(dashboard, "_answer", answer)
    assert Client().get("/queue/jobs").status_code == 200
    assert seen == [False]
