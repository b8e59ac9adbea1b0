"""Four incidents, found and mended with nothing but the dashboard, as on call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import incidents
import pytest
from browser_jobs import Prepared
from browser_mounts import MOUNTS
from browser_windows import NARROW, Open, Served
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def on_call(
    procrastinate_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A dashboard that shows all four."""
    serve = next(iter(MOUNTS.values()))
    with procrastinate_server.database() as dsn:
        incidents.prepare(dsn)
        with serve(dsn, tmp_path_factory.mktemp("on-call")) as url:
            yield Served(url, Prepared(dsn, worker_id=0))


def count(on_call: Served, condition: str) -> int:
    ((found,),) = on_call.run(f"select count(*)::integer from procrastinate_jobs where {condition}")
    return int(found)


#: Pictures for the documentation: what they show, the size, and the theme.
PICTURES = {
    "dashboard": ("", (1280, 850), "light"),
    "dashboard-overview-dark": ("", (1280, 850), "dark"),
    "dashboard-job": ("jobs?state=behind-a-lock", (1280, 640), "light"),
    "dashboard-failures": ("failures", (1280, 400), "light"),
    "dashboard-narrow": ("", NARROW, "dark"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_taken(
    name: str, on_call: Served, open_page: Open, pictures: Path | None, tmp_path: Path
) -> None:
    """With --pictures they are kept, for the documentation."""
    path, size, scheme = PICTURES[name]
    page = open_page(on_call, path, size=size, color_scheme=scheme, device_scale_factor=2)
    expect(page.locator("#live")).to_have_text("Live")
    if name == "dashboard-job":
        page.locator("tbody").get_by_role("link").first.click()
        expect(page.locator(".why")).to_be_visible()
    taken = page.screenshot(path=(pictures or tmp_path) / f"{name}.png")
    assert taken.startswith(b"\x89PNG")


def test_a_late_queue_is_told_with_the_reason(on_call: Served, open_page: Open) -> None:
    page = open_page(on_call)
    page.get_by_role("link", name="No worker serves mail").click()
    page.locator("tbody").get_by_role("link").first.click()
    expect(page.locator(".why")).to_contain_text("no live worker serves its queue 'mail'")


def test_a_stuck_worker_is_told_with_its_jobs(on_call: Served, open_page: Open) -> None:
    page = open_page(on_call)
    page.get_by_role("link", name="is blocked").click()
    row = page.get_by_role("row").filter(has_text="worker-2")
    expect(row).to_contain_text("blocked")
    row.get_by_role("link").first.click()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_lock_that_nobody_releases_is_released(on_call: Served, open_page: Open) -> None:
    page = open_page(on_call)
    page.locator(".needs").get_by_role("link", name="runs for 5 h").click()
    expect(page.locator("main")).to_contain_text("customer-7")
    page.get_by_role("link", name="Abort…").click()
    page.get_by_role("button", name="Abort job").click()
    expect(page.get_by_role("status").first).to_contain_text("asked to end")
    assert count(on_call, "lock = 'customer-7' and abort_requested") == 1


def test_a_wave_of_failures_is_retried_and_its_queue_is_not_late_then(
    on_call: Served, open_page: Open
) -> None:
    page = open_page(on_call)
    page.locator(".needs").get_by_role("link", name="shop.charge failed").click()
    row = page.get_by_role("row").filter(has_text="shop.charge")
    row.get_by_role("link", name="Retry…").click()
    page.get_by_role("button", name="Retry 300 jobs").click()
    expect(page.get_by_role("status").first).to_contain_text("300 jobs retried")
    assert count(on_call, "task_name = 'shop.charge' and status = 'todo'") == 300
    page.get_by_role("link", name="Overview").click()
    expect(page.locator(".needs")).to_contain_text("No worker serves mail")
    expect(page.locator(".needs")).not_to_contain_text("Queue default is late")
