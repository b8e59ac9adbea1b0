"""The example project of Django in a browser: its admin, the jobs there, and the dashboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_windows import WIDE, Watched, window
from examples import Example, Process, free_port, request, wait_until
from playwright.sync_api import Browser, Page, expect
from readers import environment

MUG = {"item": "mug", "quantity": 1, "email": "ann@example.org"}


class Project:
    """The project, served by ``runserver``, which serves the files of the admin, too."""

    def __init__(self, example: Example) -> None:
        self.example = example
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._command = [sys.executable, "manage.py", "runserver", "--noreload", str(self.port)]

    def serve(self) -> Process:
        return Process(self._command, self.example.folder, self.example.environment)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return request(self.port, method, path, body)

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/orders/1")[0] < 500
        except ConnectionError:
            return False


@pytest.fixture
def project(procrastinate_server: Any, tmp_path: Path) -> Iterator[Project]:
    with procrastinate_server.database() as dsn:
        project = Project(Example("django", tmp_path, environment(dsn)))
        project.example.run("python manage.py migrate")
        project.example.run("env DJANGO_SUPERUSER_PASSWORD=correct-horse")
        server = project.serve()
        try:
            wait_until(project.is_up)
            yield project
        finally:
            server.kill()


@pytest.fixture
def page(browser: Browser, watched: Watched, project: Project) -> Iterator[Page]:
    """A page on which somebody who may see everything has logged in."""
    with window(browser, viewport={"width": WIDE[0], "height": WIDE[1]}) as context:
        # The example has no picture for the browser's tab.
        context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page = context.new_page()
        watched.watch(page, project.url)
        page.goto(f"{project.url}admin/")
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill("correct-horse")
        page.get_by_role("button", name="Log in").click()
        yield page


def test_jobs_are_seen_and_aborted_in_the_admin_and_shown_by_the_dashboard(
    page: Page, project: Project
) -> None:
    assert project.ask("POST", "/orders", MUG) == (202, {"order": 1, "job": 1})
    page.get_by_role("link", name="Jobs", exact=True).last.click()
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    page.get_by_role("link", name="2", exact=True).click()
    expect(page.locator(".field-arguments")).to_contain_text('"order_id": 1')

    # A page asks first, and the history of the job knows who it was.
    page.go_back()
    page.get_by_role("row", name="orders.tasks.weigh").get_by_role("checkbox").check()
    page.get_by_label("Action:").select_option("abort")
    page.get_by_role("button", name="Run").or_(page.get_by_role("button", name="Go")).click()
    expect(page.locator("#content")).to_contain_text("0 of 1 run now")
    page.get_by_role("button", name="Abort 1 job").click()
    expect(page.locator(".messagelist")).to_contain_text("1 of 1 jobs were aborted or cancelled")
    page.get_by_role("link", name="2", exact=True).click()
    page.get_by_role("link", name="History").click()
    expect(page.locator("#change-history")).to_contain_text("Aborted or cancelled")

    # A worker runs the other one, and the dashboard shows both, for the same session.
    with project.example.running("python manage.py procrastinate worker", shows="starts: queues"):
        wait_until(lambda: project.ask("GET", "/orders/1")[1]["confirmed_at"])
        page.goto(f"{project.url}queue/jobs")
        expect(page.get_by_role("row", name="orders.tasks.confirm")).to_contain_text("succeeded")
        expect(page.get_by_role("row", name="orders.tasks.weigh")).to_contain_text("cancelled")
