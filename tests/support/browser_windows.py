"""A dashboard as a test sees it, and a window of the browser that is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from browser_jobs import JOBS, Prepared, add_job, connected
from browser_mounts import PASSWORD, USER
from playwright.sync_api import Browser, BrowserContext, Page, expect

#: How long a condition is waited for, in seconds. Nothing waits for a time to pass.
PATIENCE = 20
WIDE, NARROW = (1280, 800), (400, 800)

expect.set_options(timeout=PATIENCE * 1000)


@dataclass
class Served:
    """A dashboard, where it is, and the jobs that it shows."""

    url: str
    prepared: Prepared

    def page(self, path: str = "") -> str:
        return self.url + path

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL in its database, beside it."""
        with connected(self.prepared.dsn) as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def add(self, kind: str = "ready", **columns: str) -> int:
        """Add a job of one of the kinds of `browser_jobs`; columns are SQL. Return its id."""
        with connected(self.prepared.dsn) as cursor:
            return add_job(cursor, JOBS[kind] | columns, worker_id=self.prepared.worker_id)

    def status(self, id: int) -> str:
        ((status,),) = self.run("select status::text from procrastinate_jobs where id = %s", id)
        return str(status)


@dataclass
class Visit:
    """A dashboard, and whether the browser runs scripts."""

    dashboard: Served
    scripts: bool


@dataclass
class Watched:
    """What a browser complained of."""

    complaints: list[str] = field(default_factory=list)
    #: Parts of complaints that a test expects, because it takes the database away for instance.
    expected: list[str] = field(default_factory=list)

    def watch(self, page: Page, home: str) -> None:
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self._note(f"an error of a script: {error}"))
        page.on("dialog", lambda dialog: self._note(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self._check_host(request.url, home))
        page.on("response", lambda answer: self._check_status(answer.status, answer.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self._note(f"{kind} in the console: {text}")

    def _check_host(self, url: str, home: str) -> None:
        if urlsplit(url).netloc != urlsplit(home).netloc:
            self._note(f"a request to elsewhere: {url}")

    def _check_status(self, status: int, url: str) -> None:
        if status >= 400:
            self._note(f"{status} from {url}")

    def _note(self, complaint: str) -> None:
        if not any(each in complaint for each in self.expected):
            self.complaints.append(complaint)


Open: TypeAlias = Callable[..., Page]


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A window without a past, whose user is known to the command."""
    context = browser.new_context(
        http_credentials={"username": USER, "password": PASSWORD}, locale="en-GB", **options
    )
    context.set_default_timeout(PATIENCE * 1000)
    try:
        yield context
    finally:
        context.close()
