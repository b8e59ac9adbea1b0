"""What the actions change, and how they say so."""

from __future__ import annotations

import re

import pytest

import procrastinate
from procrastinate_dashboard import Access, Dashboard

from .helpers import Browser, text_of


@pytest.mark.parametrize(
    "page, id, status",
    [
        ("/jobs/2/retry", 2, "todo"),
        ("/jobs/4/retry", 4, "todo"),
        ("/jobs/3/cancel", 3, "cancelled"),
    ],
)
def test_one_job_is_changed(
    full: procrastinate.App, actor: Browser, page: str, id: int, status: str
):
    response = actor.submit(page)
    assert response.status == 303
    assert response.headers["location"].startswith(f"../../jobs/{id}?done=")
    assert full.job_manager.get_job(id).status == status
    shown = actor.get(f"/jobs/{id}?done={page.rpartition('/')[2]}")
    assert 'class="notice"' in text_of(shown)


@pytest.mark.parametrize(
    "page", ["/jobs/1/retry", "/jobs/1/cancel", "/jobs/2/cancel", "/jobs/1/abort", "/jobs/5/abort"]
)
def test_what_cannot_be_done_is_not_even_asked(full: procrastinate.App, actor: Browser, page: str):
    actor.get("/jobs/2/retry")  # for the token
    form = {"token": actor.cookies["procrastinate_token"]}
    for response in (actor.get(page), actor.post(page, form)):
        assert response.status == 409
        assert "Nothing was changed" in text_of(response)
    assert full.job_manager.get_job(5).status == "todo"


@pytest.mark.parametrize(
    "page",
    ["/jobs/retry?state=running", "/jobs/retry?state=succeeded", "/jobs/cancel?state=failed"],
)
def test_a_change_of_jobs_that_it_leaves_alone_is_not_even_asked(actor: Browser, page: str):
    response = actor.get(page)
    assert response.status == 409
    assert "cannot be" in text_of(response)


def test_the_time_of_a_change_is_written_for_people(actor: Browser):
    page = text_of(actor.get("/jobs/retry?state=failed&until=2099-11-28T23:00:00.123456%2B00:00"))
    assert "until 2099-11-28 23:00:00 UTC" in page
    assert "until 1h" not in page


def test_a_retry_beside_a_waiting_twin_is_told(app: procrastinate.App):
    twin = app.configure_task("t", queueing_lock="twin")
    app.job_manager.cancel_job_by_id(twin.defer())
    twin.defer()
    browser = Browser(Dashboard(app, access=lambda request: Access("ada", "act")))
    response = browser.submit("/jobs/1/retry")
    assert response.status == 409
    assert "queueing lock" in text_of(response)


def test_all_that_match_are_asked_about_with_their_number_and_changed(
    full: procrastinate.App, actor: Browser
):
    listed = text_of(actor.get("/jobs?state=failed&task=mail.send"))
    assert "Retry all that match" in listed
    page = "/jobs/retry?state=failed&task=mail.send"
    assert "Retry 1 job?" in text_of(actor.get(page))
    response = actor.submit(page)
    assert response.headers["location"] == "../jobs?state=failed&task=mail.send&done=retry&count=1"
    assert full.job_manager.get_job(2).status == "todo"
    assert full.job_manager.get_job(4).status == "cancelled"
    told = text_of(actor.get("/jobs?state=failed&done=retry&count=1"))
    assert "1 job retried" in told


def test_jobs_that_came_later_than_the_list_are_not_changed(
    full: procrastinate.App, actor: Browser
):
    response = actor.submit("/jobs/retry?state=failed&until=2020-01-01T00:00:00")
    assert response.status == 303 or "0 jobs" in text_of(response)
    assert full.job_manager.get_job(2).status == "failed"


def test_nothing_that_matches_leaves_nothing_to_press(actor: Browser):
    page = text_of(actor.get("/jobs/retry?state=failed&queue=nowhere"))
    assert "Retry 0 jobs?" in page
    assert "<button" not in page


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?since=1h",
        "?until=1h",
        "?state=nope",
        "?state=failed&since=never",
        "?state=failed&until=9999-12-31",
    ],
)
def test_a_change_of_many_jobs_needs_a_filter_that_can_be(actor: Browser, query: str):
    assert actor.get(f"/jobs/retry{query}").status == 400
    form = {"token": actor.cookies.get("procrastinate_token", "")}
    assert actor.post("/jobs/retry", form, **{"sec-fetch-site": "same-origin"}).status in (400, 403)


def test_waiting_jobs_are_cancelled_by_filter(full: procrastinate.App, actor: Browser):
    actor.submit("/jobs/cancel?state=scheduled&queue=mail")
    assert full.job_manager.get_job(3).status == "cancelled"
    assert full.job_manager.get_job(5).status == "todo"


def test_a_group_of_failures_is_retried_as_it_was_seen(full: procrastinate.App, actor: Browser):
    page = text_of(actor.get("/failures"))
    assert "mail.send" in page
    link = page.partition('href="jobs/retry?')[2].partition('"')[0].replace("&amp;", "&")
    assert actor.submit(f"/jobs/retry?{link}").status == 303
    assert full.job_manager.get_job(2).status == "todo"


def test_a_queue_is_paused_with_a_reason_and_resumed(full: procrastinate.App, actor: Browser):
    actor.submit("/queues/pause?queue=mail", reason="smtp is down", **{"for": "2h"})
    (pause,) = full.queue_manager.list_pauses()
    assert (pause.queue, pause.by, pause.reason) == ("mail", "ada", "smtp is down")
    assert pause.until is not None
    page = text_of(actor.get("/queues"))
    assert "smtp is down" in page
    assert "queues/resume?queue=mail" in page
    assert "Queue mail is paused" in text_of(actor.get("/"))
    actor.submit("/queues/resume?queue=mail")
    assert full.queue_manager.list_pauses() == []


def test_all_queues_are_paused(full: procrastinate.App, actor: Browser):
    actor.submit("/queues/pause?queue=*")
    assert [each.queue for each in full.queue_manager.list_pauses()] == ["*"]
    assert "All queues are" in text_of(actor.get("/queues"))


def said(actor: Browser, page: str) -> str:
    """Do what a page asks, and return what the next one says of it."""
    done = actor.submit(page)
    shown = text_of(actor.get(f"/queues{done.headers['location'].partition('queues')[2]}"))
    return re.findall('role="status">(.*?)</p>', shown)[0]


def test_what_was_done_to_a_queue_is_said(full: procrastinate.App, actor: Browser):
    full.queue_manager.pause("other")
    assert said(actor, "/queues/resume?queue=mail") == "Queue mail was not paused."
    assert said(actor, "/queues/pause?queue=*") == "All queues are paused, but for builtin."
    assert said(actor, "/queues/resume?queue=other") == (
        "Queue other is resumed, but all queues are paused."
    )
    assert said(actor, "/queues/pause?queue=mail") == "Queue mail is paused."
    assert said(actor, "/queues/resume?queue=*") == "All queues are resumed; paused by name: mail."
    assert said(actor, "/queues/resume?queue=*") == (
        "All queues were not paused; paused by name: mail."
    )
    assert said(actor, "/queues/resume?queue=mail") == "Queue mail is resumed."


def test_a_queue_that_has_no_job_is_shown_while_it_is_paused(
    full: procrastinate.App, actor: Browser
):
    full.queue_manager.pause("empty")
    assert "queues/resume?queue=empty" in text_of(actor.get("/queues"))


@pytest.mark.parametrize("length", ["0s", "tomorrow", "2020-01-01", "-3h", "9999999w"])
def test_a_pause_that_cannot_be_is_told(full: procrastinate.App, actor: Browser, length: str):
    response = actor.submit("/queues/pause?queue=mail", **{"for": length})
    assert response.status == 400
    assert full.queue_manager.list_pauses() == []


@pytest.mark.parametrize("page", ["/queues/pause", "/queues/resume", "/queues/pause?queue="])
def test_which_queue_must_be_said(actor: Browser, page: str):
    assert actor.get(page).status == 400
