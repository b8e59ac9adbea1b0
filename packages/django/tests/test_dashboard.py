"""The dashboard behind Django's session, its staff check and its token."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from procrastinate_django import app

pytestmark = pytest.mark.usefixtures("tables")


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
