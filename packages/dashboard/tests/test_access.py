"""Nobody is let in unasked, and no POST is believed that a page of ours has not sent."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import InvalidOption
from procrastinate_dashboard import Access, Dashboard, Request, Response

from .helpers import Browser, hidden_fields, text_of

PAGES = ["/", "/jobs", "/jobs/2", "/queues", "/workers", "/schedules", "/failures"]
SAME = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"access": "ada"},
        {"access": len, "hosts": "localhost"},
        {"access": len, "hosts": [""]},
        {"access": len, "redact": "password"},
        {"access": len, "redact": [1]},
        {"access": len, "title": None},
        {"access": len, "late_after": 0},
        {"access": len, "long_after": "1h"},
    ],
)
def test_options_that_cannot_be_are_refused(app: procrastinate.App, options: dict[str, Any]):
    with pytest.raises(InvalidOption):
        Dashboard(app, **options)


def test_a_dashboard_without_access_says_what_to_give(app: procrastinate.App):
    with pytest.raises(InvalidOption, match="access="):
        Dashboard(app)


def test_a_dashboard_is_of_an_app():
    with pytest.raises(InvalidOption, match="not of 'app'"):
        Dashboard("app", access=len)  # type: ignore[arg-type]


@pytest.mark.parametrize("access", [(None,), ("ada", "write"), ("ada", True)])
def test_access_that_cannot_be_is_refused(access: Any):
    with pytest.raises(InvalidOption):
        Access(*access)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("said", [None, "ada", True])
def test_whoever_is_not_known_sees_nothing(full: procrastinate.App, page: str, said: Any):
    response = Browser(Dashboard(full, access=lambda request: said)).get(page)
    assert response.status == 403
    assert "mail" not in text_of(response)


def test_access_may_send_to_a_login_page(full: procrastinate.App):
    login = Response(status=303, headers={"location": "/login"})
    response = Browser(Dashboard(full, access=lambda request: login)).get("/")
    assert (response.status, response.headers["location"]) == (303, "/login")
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("fail", [lambda: {}["session"], lambda: Access(None)])
def test_access_that_fails_lets_nobody_in(
    full: procrastinate.App, caplog: pytest.LogCaptureFixture, fail: Any
):
    def access(request: Request) -> Access:
        return fail()  # type: ignore[no-any-return]

    response = Browser(Dashboard(full, access=access)).get("/jobs/2")
    assert response.status == 500
    assert "mail" not in text_of(response)
    assert caplog.records[-1].exc_info is not None


def test_access_may_be_an_object_with_a_coroutine(app: procrastinate.App):
    class Login:
        async def __call__(self, request: Request) -> Access | None:
            return None

    assert Dashboard(app, access=Login()).access_is_async
    assert not Dashboard(app, access=lambda request: None).access_is_async


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_is_shown_no_action(reader: Browser, page: str):
    response = reader.get(page)
    assert response.status == 200
    assert "read only" in text_of(response)
    assert not any(each in text_of(response) for each in ("Retry…", "Cancel…", "Pause…"))


@pytest.mark.parametrize("page", ["/jobs/2/retry", "/jobs/retry?state=failed", "/queues/pause"])
def test_a_reader_cannot_act(full: procrastinate.App, reader: Browser, page: str):
    reader.get("/")
    token = {"token": reader.cookies["procrastinate_token"], "queue": "mail", "state": "failed"}
    assert reader.get(page).status == 403
    assert reader.post(page, token, **SAME).status == 403
    assert full.job_manager.get_job(2).status == "failed"


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "https://queue.example.org"}, 303),
        ({"origin": "https://evil.example.org"}, 403),
        ({"origin": "https://queue.example.org.evil.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://["}, 403),
        ({"origin": "https://public.org", "x-forwarded-host": "public.org"}, 303),
        ({}, 303),
    ],
)
def test_a_post_must_be_of_the_same_origin(
    full: procrastinate.App, actor: Browser, headers: dict[str, str], status: int
):
    form = hidden_fields(actor.get("/jobs/2/retry"))
    assert actor.post("/jobs/2/retry", form, **headers).status == status
    assert full.job_manager.get_job(2).status == ("todo" if status == 303 else "failed")


@pytest.mark.parametrize("token", [None, "", "x", "A" * 32, "ä" * 32, "A" * 5000])
def test_a_post_must_repeat_the_token(full: procrastinate.App, actor: Browser, token: str | None):
    actor.get("/jobs/2/retry")
    form = {} if token is None else {"token": token}
    assert actor.post("/jobs/2/retry", form, **SAME).status == 403
    assert full.job_manager.get_job(2).status == "failed"


def test_a_token_without_its_cookie_is_worth_nothing(full: procrastinate.App, actor: Browser):
    form = hidden_fields(actor.get("/jobs/2/retry"))
    actor.cookies.clear()
    assert actor.post("/jobs/2/retry", form, **SAME).status == 403
    assert full.job_manager.get_job(2).status == "failed"


def test_the_token_stays_the_same_from_page_to_page(actor: Browser):
    first = hidden_fields(actor.get("/jobs/2/retry"))
    assert hidden_fields(actor.get("/queues/pause?queue=mail"))["token"] == first["token"]
    assert "set-cookie" not in actor.get("/").headers


@pytest.mark.parametrize("scheme, is_secure", [("http", False), ("https", True)])
def test_the_cookie_is_for_this_site_alone(full: procrastinate.App, scheme: str, is_secure: bool):
    dashboard = Dashboard(full, access=lambda request: Access("ada", "act"))
    cookie = dashboard.respond(Request("GET", "/", scheme=scheme)).headers["set-cookie"]
    assert "; HttpOnly; SameSite=Strict" in cookie
    assert ("; Secure" in cookie) is is_secure


@pytest.mark.parametrize(
    "other", ['settings={"theme": "dark"}', "a[b]=c", "flag", "name=\xe4", "=", 'q="a b"']
)
def test_forms_are_believed_beside_any_other_cookie(actor: Browser, other: str):
    token = hidden_fields(actor.get("/jobs/2/retry"))["token"]
    cookie = f"{other}; procrastinate_token={token}"
    response = actor.post("/jobs/2/retry", {"token": token}, cookie=cookie, **SAME)
    assert response.status == 303


def test_cookies_are_read_as_browsers_send_them():
    request = Request("GET", "/", headers={"cookie": 'a=1; b="x\\"y"; c={"d": [1]}; e="f; g'})
    assert request.cookies == {"a": "1", "b": 'x"y', "c": '{"d": [1]}', "e": '"f'}


@pytest.mark.parametrize("cookie", ["procrastinate_token=<script>", "\x00=;;=", "a" * 9000])
def test_a_strange_cookie_is_replaced(actor: Browser, cookie: str):
    response = actor.get("/jobs/2/retry", cookie=cookie)
    assert response.status == 200
    assert hidden_fields(response)["token"] in response.headers["set-cookie"]


@pytest.mark.parametrize(
    "host, is_served",
    [
        ("localhost", True),
        ("LOCALHOST:8010", True),
        ("127.0.0.1:8010", True),
        ("[::1]:8010", True),
        ("evil.example.org", False),
        ("localhost.evil.org", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_only_the_hosts_that_were_named_are_served(
    full: procrastinate.App, host: str, is_served: bool
):
    hosts = ("localhost", "127.0.0.1", "::1")
    dashboard = Dashboard(full, access=lambda request: Access("ada"), hosts=hosts)
    response = Browser(dashboard).get("/jobs", host=host)
    assert response.status == (200 if is_served else 421)
    assert ("mail.send" in text_of(response)) is is_served


def test_an_action_is_logged_with_the_users_name(
    full: procrastinate.App, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "procrastinate.dashboard")
    dashboard = Dashboard(full, access=lambda request: Access("ada\nforged line", "act"))
    Browser(dashboard).submit("/jobs/2/retry")
    (record,) = [each for each in caplog.records if each.name == "procrastinate.dashboard"]
    assert record.getMessage() == "ada\\nforged line from ?: retry job 2"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get"])
@pytest.mark.parametrize("page", [*PAGES, "/static/dashboard.css"])
def test_pages_are_for_reading(actor: Browser, page: str, method: str):
    response = actor._send(method, page, {}, {})
    assert response.status == 405
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


def test_what_changes_something_is_asked_and_sent(actor: Browser):
    response = actor._send("DELETE", "/jobs/2/retry", {}, {})
    assert response.status == 405
    assert response.headers["allow"] == "GET, HEAD, POST, OPTIONS"


@pytest.mark.parametrize(
    "page, allowed",
    [
        ("/jobs/2", "GET, HEAD, OPTIONS"),
        ("/static/icon.svg", "GET, HEAD, OPTIONS"),
        ("/queues/pause", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_options_are_told(actor: Browser, page: str, allowed: str):
    response = actor._send("OPTIONS", page, {}, {})
    assert (response.status, response.body) == (204, b"")
    assert response.headers["allow"] == allowed


def test_options_are_told_to_no_stranger(full: procrastinate.App):
    stranger = Browser(Dashboard(full, access=lambda request: None))
    response = stranger._send("OPTIONS", "/queues/pause", {}, {})
    assert response.status == 403
    assert "allow" not in response.headers


def test_every_answer_has_the_policy(actor: Browser):
    for page in [*PAGES, "/nowhere", "/static/dashboard.css", "/jobs?since=never"]:
        headers = actor.get(page).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"
