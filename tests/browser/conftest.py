"""A real browser, and the dashboard on each of its mounts.

Chromium is the system's: ``apt-get install chromium`` on Debian, or PROCRASTINATE_CHROMIUM names
it. Whatever a page does that it must not (an error or a warning in its console, a broken policy, a
request that fails or leaves this machine) fails the test that had it open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser_jobs import connected, prepare
from browser_mounts import MOUNTS
from browser_windows import WIDE, Open, Served, Visit, Watched, window
from chromium import program
from playwright.sync_api import Browser, Page, sync_playwright
from psycopg2.extensions import parse_dsn


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", action="store_true", help="write docs/images/dashboard*.png")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of all tests. (As root it has no sandbox, and sees nothing but our pages.)"""
    found = program()
    assert found is not None, "there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--force-prefers-reduced-motion"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve(
    procrastinate_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Served]]:
    """Serve a mount, once for all tests, with a database of its own."""
    served: dict[str, Served] = {}
    with ExitStack() as stack:

        def serve(mount: str) -> Served:
            if mount not in served:
                prepared = prepare(stack.enter_context(procrastinate_server.database()))
                folder = tmp_path_factory.mktemp("mount")
                url = stack.enter_context(MOUNTS[mount](prepared.dsn, folder))
                served[mount] = Served(url, prepared)
            return served[mount]

        yield serve


@pytest.fixture(params=MOUNTS)
def dashboard(serve: Callable[[str], Served], request: pytest.FixtureRequest) -> Served:
    """The dashboard, on each mount."""
    return serve(request.param)


#: Actions are done on each mount with the dashboard's script, and on one without scripts.
VISITS = {
    **{mount: (mount, True) for mount in MOUNTS},
    "no scripts": (next(iter(MOUNTS)), False),
}


@pytest.fixture(params=VISITS.values(), ids=VISITS)
def visit(serve: Callable[[str], Served], request: pytest.FixtureRequest) -> Visit:
    """A visit to the dashboard, on each mount and without scripts."""
    mount, scripts = request.param
    return Visit(serve(mount), scripts)


@pytest.fixture
def one_dashboard(serve: Callable[[str], Served]) -> Served:
    """The dashboard on one mount, if the pages are the same on all."""
    return serve(next(iter(MOUNTS)))


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    assert watched.complaints == []


@pytest.fixture
def open_page(browser: Browser, watched: Watched) -> Iterator[Open]:
    """Open a page of a dashboard in a window of its own; options are those of a context."""
    with ExitStack() as stack:

        def open_page(dashboard: Served, path: str = "", **options: Any) -> Page:
            size = options.pop("size", WIDE)
            context = stack.enter_context(
                window(browser, viewport={"width": size[0], "height": size[1]}, **options)
            )
            page = context.new_page()
            watched.watch(page, dashboard.url)
            page.goto(dashboard.page(path))
            return page

        yield open_page


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Path | None:
    """The folder for the pictures of the documentation, if they are asked for."""
    wanted = request.config.getoption("--pictures")
    return Path(__file__).parents[2] / "docs" / "images" if wanted else None


@pytest.fixture
def away(procrastinate_server: Any) -> Iterator[Callable[[Served, bool], None]]:
    """Take the database of a dashboard away (True), or bring it back (False)."""
    changed: list[Served] = []

    def change(dashboard: Served, is_away: bool) -> None:
        changed.append(dashboard)
        name = parse_dsn(dashboard.prepared.dsn)["dbname"]
        with connected(procrastinate_server.dsn) as cursor:
            cursor.execute(f'alter database "{name}" allow_connections {not is_away}')
            if is_away:
                cursor.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    (name,),
                )

    yield change
    for each in changed[:1]:
        change(each, False)
