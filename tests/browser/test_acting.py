"""Every action, on every mount: with the mouse, without JavaScript, by keyboard."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from browser_windows import PATIENCE, Open, Served, Visit, Watched
from playwright.sync_api import Locator, Page, expect

#: An action on a job: the job's kind before, the link on its page, the button that confirms it, and
#: what is true of the job then.
ON_A_JOB = {
    "retry": ("failed", "Retry…", "Retry job", "status = 'todo' and attempts = 0"),
    "run now": ("scheduled", "Run now…", "Retry job", "status = 'todo' and hold is null"),
    "cancel": ("ready", "Cancel…", "Cancel job", "status = 'cancelled'"),
    "abort": ("running", "Abort…", "Abort job", "status = 'doing' and abort_requested"),
}


def reload_until_seen(page: Page, what: Locator) -> None:
    """Reload until an answer is new enough: tabs share those of the last second."""
    deadline = time.monotonic() + PATIENCE
    while not what.count():
        assert time.monotonic() < deadline, f"{what} does not appear"
        page.reload()


def is_true(dashboard: Served, id: int, condition: str) -> bool:
    found = dashboard.run(f"select 1 from procrastinate_jobs where id = %s and {condition}", id)
    return len(found) == 1


@pytest.mark.parametrize("action", ON_A_JOB)
def test_a_job_is_changed_once_that_is_confirmed(
    action: str, visit: Visit, open_page: Open
) -> None:
    dashboard, scripts = visit.dashboard, visit.scripts
    kind, link, button, condition = ON_A_JOB[action]
    id = dashboard.add(kind)
    page = open_page(dashboard, f"jobs/{id}", java_script_enabled=scripts)
    page.get_by_role("link", name=link).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{id}?")
    assert not is_true(dashboard, id, condition)
    page.get_by_role("button", name=f"{button} {id}").click()
    expect(page.get_by_role("status").first).to_contain_text(f"Job {id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Job {id}")
    assert is_true(dashboard, id, condition)


def test_what_is_not_confirmed_is_not_done(one_dashboard: Served, open_page: Open) -> None:
    id = one_dashboard.add()
    page = open_page(one_dashboard, f"jobs/{id}/cancel")
    page.get_by_role("link", name="Back").click()
    expect(page).to_have_url(one_dashboard.page(f"jobs/{id}"))
    assert one_dashboard.status(id) == "todo"


@pytest.mark.parametrize(
    ("kind", "what", "end"), [("failed", "Retry", "todo"), ("ready", "Cancel", "cancelled")]
)
def test_all_jobs_of_a_search_are_changed_as_counted(
    kind: str, what: str, end: str, visit: Visit, open_page: Open
) -> None:
    dashboard, scripts = visit.dashboard, visit.scripts
    task = f"of_a_search.{what}_{scripts}"
    ids = [dashboard.add(kind, task_name=f"'{task}'") for _ in range(3)]
    other = dashboard.add(kind)
    page = open_page(dashboard, "jobs", java_script_enabled=scripts)
    page.get_by_label("Task").fill(task)
    page.get_by_role("button", name="Search").click()
    reload_until_seen(page, page.locator("tbody tr").nth(2))
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_role("link", name=kind, exact=True).click()
    page.get_by_role("link", name=f"{what} all that match…").click()
    page.get_by_role("button", name=f"{what} 3 jobs").click()
    expect(page.get_by_role("status").first).to_contain_text("3 jobs")
    assert [dashboard.status(id) for id in ids] == [end] * 3
    assert dashboard.status(other) != end


def test_a_group_of_failures_is_retried(visit: Visit, open_page: Open) -> None:
    dashboard, scripts = visit.dashboard, visit.scripts
    task = f"of_a_group.scripts_{scripts}"
    ids = [dashboard.add("failed", task_name=f"'{task}'") for _ in range(4)]
    page = open_page(dashboard, "failures", java_script_enabled=scripts)
    row = page.get_by_role("row").filter(has_text=task)
    reload_until_seen(page, row)
    expect(row).to_contain_text("ConnectionError")
    row.get_by_role("link", name="Retry…").click()
    page.get_by_role("button", name="Retry 4 jobs").click()
    expect(page.get_by_role("status").first).to_contain_text("4 jobs")
    assert [dashboard.status(id) for id in ids] == ["todo"] * 4


def press(row: Locator, link: str) -> None:
    """Press a row's link on a page that has its styles: without, each row shows it twice.

    (Wide screens show it in a column, narrow ones below the name.)
    """
    row.page.wait_for_load_state()
    row.get_by_role("link", name=link).click()


def test_a_queue_is_paused_with_a_reason_and_resumed(visit: Visit, open_page: Open) -> None:
    dashboard, scripts = visit.dashboard, visit.scripts
    queue = f"to pause, {scripts}"
    dashboard.add(queue_name=f"'{queue}'")
    page = open_page(dashboard, "queues", java_script_enabled=scripts)
    row = page.get_by_role("row").filter(has_text=queue)
    reload_until_seen(page, row)
    press(row, "Pause…")
    page.get_by_label("Reason").fill("the mail server is <b>down</b>")
    page.get_by_label("For how long").fill("2h")
    page.get_by_role("button", name="Pause queue").click()
    expect(row).to_contain_text("the mail server is <b>down</b>")
    ((until,),) = dashboard.run(
        "select paused_until - now() between '119 minutes' and '121 minutes'"
        " from procrastinate_queues where queue_name = %s",
        queue,
    )
    assert until is True
    press(row, "Resume…")
    page.get_by_role("button", name="Resume queue").click()
    expect(row).not_to_contain_text("paused")


def test_a_queue_with_a_hostile_name_can_be_paused(dashboard: Served, open_page: Open) -> None:
    page = open_page(dashboard, "queues")
    row = page.get_by_role("row").filter(has_text="<b>queue</b>")
    press(row, "Pause…")
    page.get_by_role("button", name="Pause queue").click()
    expect(row).to_contain_text("paused")
    press(row, "Resume…")
    page.get_by_role("button", name="Resume queue").click()
    expect(row).not_to_contain_text("paused")


# --- by keyboard ----------------------------------------------------------------------------------


def focused(page: Page) -> str:
    name: str = page.evaluate("(document.activeElement.innerText || '').trim()")
    return name


def go_by_tab(page: Page, name: str) -> None:
    """Press Tab until what has this name has the focus, which must be seen all the way."""
    for _ in range(60):
        page.keyboard.press("Tab")
        assert page.evaluate(HAS_A_SIGN), f"the focus on {focused(page)!r} cannot be seen"
        if focused(page).startswith(name):
            return
    raise AssertionError(f"Tab never comes to {name!r}")


HAS_A_SIGN = """() => {
    const style = getComputedStyle(document.activeElement);
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0
        || style.boxShadow !== 'none';
}"""


def test_a_job_is_retried_by_keyboard_alone(one_dashboard: Served, open_page: Open) -> None:
    id = one_dashboard.add("failed")
    page = open_page(one_dashboard, f"jobs/{id}")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    go_by_tab(page, "Retry…")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{id}?")
    go_by_tab(page, f"Retry job {id}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text(f"Job {id}")
    assert one_dashboard.status(id) == "todo"


def test_all_pages_are_reached_by_keyboard(one_dashboard: Served, open_page: Open) -> None:
    page = open_page(one_dashboard)
    for name in ("Jobs", "Queues", "Workers", "Schedules", "Failures", "Overview"):
        go_by_tab(page, name)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(name)


# --- live -----------------------------------------------------------------------------------------


def test_a_page_follows_what_happens(dashboard: Served, open_page: Open) -> None:
    queue = "live"
    dashboard.add(queue_name=f"'{queue}'")
    page = open_page(dashboard, "queues")
    ready = page.get_by_role("row").filter(has_text=queue).get_by_role("cell").first
    expect(ready).to_have_text("1")
    page.evaluate("window.not_loaded_again = true")
    dashboard.add(queue_name=f"'{queue}'")
    expect(ready).to_have_text("2")
    assert page.evaluate("window.not_loaded_again") is True
    dashboard.run("delete from procrastinate_jobs where queue_name = %s", queue)


def test_what_a_reader_does_survives_an_update(one_dashboard: Served, open_page: Open) -> None:
    id = one_dashboard.add("failed")
    page = open_page(one_dashboard, f"jobs/{id}")
    closed = page.locator("details").nth(1)
    closed.locator("summary").click()
    expect(closed).to_have_attribute("open", "")
    link = page.get_by_role("link", name="Retry…")
    link.focus()
    one_dashboard.run("update procrastinate_jobs set priority = 77 where id = %s", id)
    expect(page.get_by_text("77", exact=True)).to_be_visible()
    expect(page.locator("details").nth(1)).to_have_attribute("open", "")
    expect(page.get_by_role("link", name="Retry…")).to_be_focused()


def test_a_page_says_that_the_database_is_away_and_comes_back(
    dashboard: Served, open_page: Open, watched: Watched, away: Callable[[Served, bool], None]
) -> None:
    watched.expected = ["503"]
    page = open_page(dashboard, "queues")
    expect(page.locator("#live")).to_have_text("Live")
    away(dashboard, True)
    expect(page.locator("#live")).to_contain_text("not up to date")
    away(dashboard, False)
    expect(page.locator("#live")).to_have_text("Live")
    away(dashboard, True)
    page.goto(dashboard.page("jobs"))
    expect(page.get_by_role("alert")).to_be_visible()
    away(dashboard, False)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.get_by_role("button", name="Search")).to_be_visible()


#: What links that lead to an action say.
ACTIONS = re.compile("^(Retry|Run now|Cancel|Abort|Pause|Resume)")


# --- who may act ----------------------------------------------------------------------------------


def test_who_may_only_read_is_offered_no_action(one_dashboard: Served, open_page: Open) -> None:
    reading = {"x-may": "read"}
    for path in (f"jobs/{one_dashboard.add('failed')}", "queues", "failures", "jobs?state=failed"):
        page = open_page(one_dashboard, path, extra_http_headers=reading)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.locator("main").get_by_role("link", name=ACTIONS).count() == 0


def test_a_form_of_another_site_changes_nothing(
    one_dashboard: Served, open_page: Open, watched: Watched
) -> None:
    watched.expected = ["403", "a request to elsewhere"]
    id = one_dashboard.add()
    page = open_page(one_dashboard, f"jobs/{id}")  # has the cookie
    token = {each["name"]: each["value"] for each in page.context.cookies()}
    page.route(
        "http://other.example/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="{one_dashboard.page(f"jobs/{id}/cancel")}">'
            f'<input name="token" value="{next(iter(token.values()))}"><button>Go</button></form>',
        ),
    )
    page.goto("http://other.example/")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert one_dashboard.status(id) == "todo"
