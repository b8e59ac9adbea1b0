"""What the pages show, and what they say to what cannot be."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

import procrastinate
from procrastinate import Durations, Job, Status, Throughput
from procrastinate.errors import ConnectionFailed, ConnectorException
from procrastinate.model.job import UnreadableArguments
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.search import Count
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate_dashboard import Access, Dashboard, Request
from procrastinate_dashboard.pages.job import life
from procrastinate_dashboard.pages.overview import recently

from .helpers import Browser, address, text_of

PAGES = ["/", "/jobs", "/jobs/2", "/queues", "/workers", "/schedules", "/failures"]
VOID = {"meta", "link", "input", "img", "rect", "line", "circle", "polyline"}


class Tags(HTMLParser):
    """Reads a page, and notes what is open, and what it should not have."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.amiss: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, _ in attrs:
            if name.startswith("on") or name == "style":
                self.amiss.append(f"<{tag} {name}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.amiss.append(f"</{tag}>")


def read(html: str) -> list[str]:
    tags = Tags()
    tags.feed(html)
    return [*tags.amiss, *tags.open]


@pytest.mark.parametrize("page", [*PAGES, "/jobs/2/retry", "/queues/pause?queue=mail", "/nowhere"])
def test_pages_are_well_formed_and_have_no_style_or_script_of_their_own(actor: Browser, page: str):
    html = text_of(actor.get(page))
    assert read(html) == []
    assert len(re.findall("<script", html)) == 1


@pytest.mark.parametrize("page", PAGES[:2] + PAGES[3:])
def test_empty_pages_say_so(app: procrastinate.App, page: str):
    response = Browser(Dashboard(app, access=lambda request: Access("ada", "act"))).get(page)
    assert response.status == 200
    assert 'class="empty"' in text_of(response)
    assert read(text_of(response)) == []


@pytest.mark.parametrize("span", ["1h", "6h", "24h", "7d", "nonsense"])
def test_the_overview_plots_what_ended(
    full: procrastinate.App, actor: Browser, monkeypatch: pytest.MonkeyPatch, span: str
):
    def throughput(self: object, *, since: datetime, step: timedelta) -> list[Throughput]:
        took = Durations(6, 3.0, tuple(1 if 5 <= bucket < 11 else 0 for bucket in range(28)))
        return [Throughput(since + step, 60, None, None, 5, 1, 0, 0, 0, run=took, waited=took)]

    monkeypatch.setattr(type(full.job_manager), "throughput", throughput)
    html = text_of(actor.get(f"/?span={span}"))
    assert read(html) == []
    assert html.count("<svg") == 3
    assert "succeeded: 5</title>" in html
    assert "failed: 1</title>" in html
    assert "1 within" in html


def test_what_failed_a_moment_ago_is_told_before_workers_have_counted_it(
    full: procrastinate.App, actor: Browser, monkeypatch: pytest.MonkeyPatch
):
    nothing: list[Throughput] = []
    monkeypatch.setattr(type(full.job_manager), "throughput", lambda self, **given: nothing)
    html = text_of(actor.get("/"))
    assert "1 within 1h" in html
    assert "Workers have counted no job that ended in this time" in html


@pytest.mark.parametrize(
    "found, failed, recent",
    [
        ([], Count(0), Count(0)),
        ([], Count(1_999), Count(0)),
        ([], Count(2_000, False), None),
        ([Count(2), Count(3, False)], Count(10_000, False), Count(5, False)),
    ],
)
def test_that_none_failed_is_said_only_if_all_were_read(
    found: list[Count], failed: Count, recent: Count | None
):
    groups = [FailureGroup("t", "E", "", each, None, None, 1) for each in found]
    assert recently(groups, failed) == recent


def test_links_are_relative_to_any_mount(actor: Browser):
    for page in [*PAGES, "/jobs/2/retry", "/jobs/2/nowhere"]:
        found = re.findall(r'(?:href|src|action)="([^"]*)"', text_of(actor.get(page)))
        assert not [each for each in found if each.startswith(("/", "http", "//"))]


def test_the_mount_without_its_slash_leads_to_the_first_page(full: procrastinate.App):
    dashboard = Dashboard(full, access=lambda request: Access("ada"))
    response = dashboard.respond(Request("GET", "", mount="/admin/my queue"))
    assert (response.status, response.headers["location"]) == (303, "./my%20queue/")


def test_the_list_shows_jobs_with_their_state(actor: Browser):
    html = text_of(actor.get("/jobs"))
    for state in ("succeeded", "failed", "scheduled", "cancelled", "ready"):
        assert f"state-{state}" in html
    assert 'href="./jobs/2"' in html


@pytest.mark.parametrize(
    "query, found",
    [
        ({"state": "failed"}, {2}),
        ({"state": "scheduled"}, {3}),
        ({"queue": "other"}, {5}),
        ({"task": "mail.send", "state": "succeeded"}, {1}),
        ({"lock": "one"}, {5}),
        ({"error": "does not answer"}, {2}),
        ({"error": "no such text"}, set()),
        ({"state": "failed", "since": "1h"}, {2}),
        ({"state": "failed", "until": "1h"}, set()),
        ({"queue": "nowhere"}, set()),
        ({"worker": "77"}, set()),
        ({"state": "", "queue": " ", "since": ""}, {1, 2, 3, 4, 5}),
    ],
)
def test_the_list_is_filtered(actor: Browser, query: dict[str, str], found: set[int]):
    html = text_of(actor.get(address("/jobs", **query)))
    assert {int(each) for each in re.findall(r'href="./jobs/(\d+)"', html)} == found
    assert ("No job matches" in html) is (not found)


@pytest.mark.parametrize(
    "query",
    [
        {"state": "sleeping"},
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"since": "99999999999d"},
        {"since": "9999-12-31T23:59:59-14:00"},
        {"since": "9999-12-31"},
        {"until": "0001-01-01"},
        {"until": "9999-12-31T23:00:00-23:00"},
        {"queue": "x" * 10_000},
        {"task": "a\x00b"},
        {"worker": "w1"},
        {"worker": "9223372036854775808"},
        {"cursor": "forged"},
        {"cursor": "ä" * 200, "state": "failed"},
        {"id": "2a"},
        {"id": "-1"},
    ],
)
def test_a_filter_that_cannot_be_is_told(actor: Browser, query: dict[str, str]):
    response = actor.get(address("/jobs", **query))
    assert response.status == 400
    assert 'role="alert"' in text_of(response)
    assert "<form" in text_of(response)


def test_a_job_is_found_by_its_id(actor: Browser):
    response = actor.get("/jobs?id=2")
    assert (response.status, response.headers["location"]) == (303, "./jobs/2")


@pytest.mark.parametrize("id", ["0", "77", str(2**63 - 1), str(2**63), "9" * 20, "9" * 400, "x"])
@pytest.mark.parametrize("page", ["", "/arguments", "/retry"])
def test_a_job_that_is_not_there_is_told(actor: Browser, id: str, page: str):
    assert actor.get(f"/jobs/{id}{page}").status == 404


def test_pages_go_on_where_the_last_one_ended(app: procrastinate.App):
    app.configure_task("t", queue="q").batch_defer(*({"n": n} for n in range(120)))
    browser, seen = Browser(Dashboard(app, access=lambda request: Access("ada"))), set[str]()
    link: str | None = "./jobs?queue=q"
    for _ in range(4):
        assert link is not None
        html = text_of(browser.get(link.removeprefix(".").replace("&amp;", "&")))
        seen |= set(re.findall(r'href="./jobs/(\d+)"', html))
        next_page = re.search(r'href="([^"]*)" rel="next"', html)
        link = next_page[1] if next_page else None
        if link is None:
            break
    assert len(seen) == 120


def test_a_job_shows_its_life_arguments_and_errors(actor: Browser):
    html = text_of(actor.get("/jobs/2"))
    assert "attempt 1 started" in html
    assert "&#34;to&#34;: &#34;nobody&#34;" in html
    assert "ConnectionError" in html
    assert "Traceback" in html


def test_secrets_are_not_shown(actor: Browser):
    for page in [*PAGES, "/jobs/1", "/jobs/2/arguments", "/jobs/1/result", "/jobs/2/errors"]:
        html = text_of(actor.get(page))
        assert "hunter2" not in html
        assert "s3cret" not in html
    assert "•••" in text_of(actor.get("/jobs/1/result"))


def test_the_life_of_a_job_is_in_order_of_time():
    noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    job = Job(1, Status.TODO, "q", "t", {}, deferred_at=noon, scheduled_at=noon - hour)
    past = [(each.what, each.after) for each in life(job, noon)]
    assert past == [("due since then", None), ("deferred", hour)]
    later = [(each.what, each.after) for each in life(replace(job, scheduled_at=noon + hour), noon)]
    assert later == [("deferred", None), ("due", hour)]


def test_why_a_job_waits_is_told(actor: Browser):
    assert "Why it waits" in text_of(actor.get("/jobs/3"))
    assert "Why it waits" not in text_of(actor.get("/jobs/1"))


def test_a_running_job_that_was_asked_to_end_says_so(app: procrastinate.App):
    browser = Browser(Dashboard(app, access=lambda request: Access("ada", "act")))
    seen = []

    @app.task
    def look() -> None:
        seen.append(text_of(browser.get("/jobs/1")))
        browser.submit("/jobs/1/abort")
        seen.append(text_of(browser.get("/jobs/1")))

    look.defer()
    run_jobs(app, raise_errors=False)
    assert ["its abortion was asked for" in each for each in seen] == [False, True]
    assert not any("Why it waits" in each for each in seen)


HOSTILE = "<script>alert('1')</script>\"'&\x1b[31m\u202eevil\u2066\r\nforged".replace("\x00", "")


def test_hostile_texts_are_shown_as_texts(app: procrastinate.App):
    name = HOSTILE[:200]

    @app.task(name=name, queue=name)
    def fail(**arguments: object) -> None:
        raise ValueError(HOSTILE)

    fail.configure(lock=name).defer(x=HOSTILE, big="y" * 100_000)
    run_jobs(app, raise_errors=False)
    app.queue_manager.pause(name, reason=HOSTILE[:80], by=HOSTILE[:80])
    dashboard = Dashboard(app, access=lambda request: Access(HOSTILE, "act"), title=HOSTILE)
    for page in ["/", "/jobs", "/jobs/1", "/queues", "/failures", "/jobs/1/retry"]:
        html = text_of(Browser(dashboard).get(page))
        assert read(html) == []
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)
        assert len(html) < 60_000
    whole = Browser(dashboard).get("/jobs/1/arguments")
    assert whole.content_type.startswith("text/plain")
    assert "y" * 100_000 in text_of(whole)


def test_arguments_that_json_loads_refuses_are_shown_as_they_are():
    def loads(text: str) -> object:
        raise ValueError("not today")

    app = procrastinate.App(connector=InMemoryConnector(json_loads=loads))
    app.configure_task("t").defer(a=1, password="hunter2")
    browser = Browser(Dashboard(app, access=lambda request: Access("ada", "act")))
    html = text_of(browser.get("/jobs/1"))
    assert "&#34;a&#34;: 1" in html
    assert "hunter2" not in html
    assert browser.get("/jobs").status == 200
    assert browser.submit("/jobs/1/cancel").status == 303


def test_arguments_that_cannot_be_decoded_are_shown_as_text(
    full: procrastinate.App, actor: Browser, monkeypatch: pytest.MonkeyPatch
):
    text = '{"n": 1e, "password": "hunter2"}'
    job = replace(
        full.job_manager.get_job(2), task_kwargs=UnreadableArguments(text, "a number without end")
    )
    monkeypatch.setattr(type(full.job_manager), "get_job", lambda self, id: job)
    html = text_of(actor.get("/jobs/2"))
    assert "They cannot be read: a number without end" in html
    assert "&#34;n&#34;: 1e" in html
    assert "hunter2" not in html


@pytest.mark.parametrize(
    "error, status, said",
    [
        (ConnectionFailed("no route"), 503, "The database does not answer"),
        (ConnectorException("read only", sqlstate="25006"), 409, "can only be read"),
        (RuntimeError("a fault of ours"), 500, "The log of the server says why"),
    ],
)
def test_what_the_database_says_becomes_a_page(
    full: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    said: str,
):
    def refuse(*args: object, **options: object) -> object:
        raise error

    browser = Browser(Dashboard(full, access=lambda request: Access("ada", "act")))
    assert browser.get("/queues").status == 200
    browser.dashboard.site.shared.forget()
    with monkeypatch.context() as patch:
        patch.setattr(type(full.queue_manager), "list_queues", refuse)
        response = browser.get("/queues")
        assert response.status == status
        assert said in text_of(response)
        assert ("data-live" in text_of(response)) is (status == 503)
    browser.dashboard.site.shared.forget()
    assert browser.get("/queues").status == 200


def test_an_app_that_is_not_open_is_told():
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector())
    response = Browser(Dashboard(app, access=lambda request: Access("ada"))).get("/")
    assert response.status == 503
    assert "The app is not open" in text_of(response)


def test_a_page_that_has_not_changed_is_not_sent_again(actor: Browser):
    actor.get("/")
    etag = actor.get("/schedules").headers["etag"]
    again = actor.get("/schedules", if_none_match=etag)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert actor.get("/schedules", if_none_match='"other"').status == 200


def test_files_are_served_to_all_and_kept(full: procrastinate.App):
    browser = Browser(Dashboard(full, access=lambda request: None))
    for name in ("dashboard.css", "dashboard.js", "icon.svg"):
        response = browser.get(f"/static/{name}")
        assert response.status == 200
        assert "immutable" in response.headers["cache-control"]
    assert browser.get("/static/../dashboard.py").status == 403
