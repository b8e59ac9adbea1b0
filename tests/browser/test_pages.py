"""Every page on every mount: complete, accessible, readable at each size, and safe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_jobs import HOSTILE_QUEUE, MARKUP, SECRET
from browser_windows import NARROW, WIDE, Open, Served, Watched
from playwright.sync_api import expect

PAGES = {
    "overview": "",
    "jobs": "jobs",
    "failed jobs": "jobs?state=failed",
    "queues": "queues",
    "workers": "workers",
    "schedules": "schedules",
    "failures": "failures",
    "a failed job": "jobs/{failed}",
    "a running job": "jobs/{running}",
    "a job that waits": "jobs/{behind}",
    "a hostile job": "jobs/{hostile}",
    "to retry a job": "jobs/{failed}/retry",
    "to pause a queue": "queues/pause?queue=mail",
}
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def path_of(name: str, dashboard: Served) -> str:
    return PAGES[name].format(**dashboard.prepared.ids)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_heading_and_a_title_and_complains_of_nothing(
    name: str, dashboard: Served, open_page: Open
) -> None:
    page = open_page(dashboard, path_of(name, dashboard))
    assert page.locator("h1").count() == 1
    assert page.title().strip() not in ("", "owned")


@pytest.mark.parametrize(
    ("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide light", "narrow dark"]
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits(
    name: str, size: tuple[int, int], scheme: str, one_dashboard: Served, open_page: Open
) -> None:
    page = open_page(one_dashboard, path_of(name, one_dashboard), size=size, color_scheme=scheme)
    found = Axe().run(page, options={"runOnly": STANDARDS})
    assert violations(found.response) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def violations(response: dict[str, object]) -> list[str]:
    found = response["violations"]
    assert isinstance(found, list)
    return [
        f"{each['id']}: {node['html'][:200]}: {node.get('failureSummary', '')}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_each_queue_can_be_paused_without_scrolling(
    size: tuple[int, int], one_dashboard: Served, open_page: Open
) -> None:
    page = open_page(one_dashboard, "queues", size=size)
    row = page.get_by_role("row").filter(has_text="mail").first
    button = row.get_by_role("link", name="Pause…")
    expect(button).to_have_count(1)
    box = button.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= size[0]


def test_dark_is_dark_and_light_is_light(one_dashboard: Served, open_page: Open) -> None:
    def brightness(scheme: str) -> float:
        page = open_page(one_dashboard, color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3

    assert brightness("dark") < 80 < 200 < brightness("light")


def test_every_link_leads_to_a_page_below_the_mount(dashboard: Served, open_page: Open) -> None:
    page = open_page(dashboard)
    seen, waiting = {dashboard.url}, [dashboard.url]
    while waiting and len(seen) < 80:
        here = waiting.pop()
        answer = page.request.get(here)
        assert answer.status == 200, f"{answer.status} from {here}"
        for link in links(answer.text(), here):
            assert link.startswith(dashboard.url), f"{here} leads to {link}"
            if link not in seen:
                seen.add(link)
                waiting.insert(0, link)
    assert len(seen) > len(PAGES)


def links(html: str, here: str) -> Iterator[str]:
    for found in re.findall(r'href="([^"#]*)"', html):
        link = urljoin(here, found.replace("&amp;", "&"))
        if urlsplit(link).path.rpartition("/")[0].endswith("/static"):
            continue
        yield link


def test_hostile_texts_are_shown_as_text(dashboard: Served, open_page: Open) -> None:
    page = open_page(dashboard, f"jobs/{dashboard.prepared.ids['hostile']}")
    expect(page.get_by_text(MARKUP).first).to_be_visible()
    text = page.locator("main").inner_text()
    assert HOSTILE_QUEUE in text
    assert not set("\u202e\u2066\x1b\x07") & set(text)
    assert page.locator("main script, main img").count() == 0
    assert page.title() != "owned"


@pytest.mark.parametrize("path", ["", "jobs", "queues", "failures", "jobs?state=failed"])
def test_lists_show_hostile_texts_as_text(
    path: str, one_dashboard: Served, open_page: Open
) -> None:
    page = open_page(one_dashboard, path)
    assert page.locator("main script, main img").count() == 0
    assert not set("\u202e\u2066\x1b\x07") & set(page.locator("main").inner_text())
    assert page.title() != "owned"


def test_a_long_argument_is_cut_and_can_be_seen_whole(
    one_dashboard: Served, open_page: Open, watched: Watched
) -> None:
    watched.expected = ["404"]  # of plain text, the browser asks for an icon by itself
    page = open_page(one_dashboard, f"jobs/{one_dashboard.prepared.ids['hostile']}")
    assert len(page.content()) < 100_000
    page.get_by_role("link", name="All of the arguments").click()
    expect(page.locator("pre")).to_contain_text("x" * 90_000)


@pytest.mark.parametrize("name", [name for name in PAGES if "queue" not in name])
def test_secrets_are_not_in_a_page(name: str, one_dashboard: Served, open_page: Open) -> None:
    assert SECRET not in open_page(one_dashboard, path_of(name, one_dashboard)).content()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing-here", 404),
        ("jobs/999999999", 404),
        ("jobs/99999999999999999999", 404),
    ],
)
def test_what_is_not_there_is_said_on_a_page(
    path: str, status: int, one_dashboard: Served, open_page: Open, watched: Watched
) -> None:
    watched.expected = [str(status)]
    page = open_page(one_dashboard, path)
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@pytest.mark.parametrize(
    "query", ["state=nonsense", "since=yesteryear", "until=9999999999", "id=99999999999999999999"]
)
def test_a_wrong_filter_is_explained(
    query: str, one_dashboard: Served, open_page: Open, watched: Watched
) -> None:
    watched.expected = ["400", "404"]
    page = open_page(one_dashboard, f"jobs?{query}")
    expect(page.get_by_role("alert")).to_be_visible()
