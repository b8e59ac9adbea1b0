"""What all pages of one dashboard share: the app, the templates, answers of the last second."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from procrastinate import App, time_limits
from procrastinate_dashboard import showing
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.redaction import Redaction
from procrastinate_dashboard.shared import PATIENCE, Shared
from procrastinate_dashboard.silence import Silence
from procrastinate_dashboard.thresholds import Thresholds

T = TypeVar("T")

#: The pages in the navigation: where they are, and their names.
NAVIGATION = (
    ("", "Overview"),
    ("jobs", "Jobs"),
    ("queues", "Queues"),
    ("workers", "Workers"),
    ("schedules", "Schedules"),
    ("failures", "Failures"),
)
ASSETS = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def now() -> datetime:
    """Return the time of this process, aware."""
    return datetime.now(UTC)


@cache
def asset(name: str) -> bytes:
    """Return a file that pages load."""
    return (resources.files(__package__) / "static" / name).read_bytes()


@cache
def version_of_assets() -> str:
    """Return what changes whenever a file does, because browsers keep them for a year."""
    return hashlib.sha256(b"".join(map(asset, ASSETS))).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(showing.FILTERS)
    environment.globals.update(navigation=NAVIGATION, version=version_of_assets())
    return environment


@dataclass
class Site:
    """One dashboard: what page functions are given beside the request."""

    app: App
    redaction: Redaction
    title: str = "procrastinate"
    thresholds: Thresholds = field(default_factory=Thresholds)
    shared: Shared = field(default_factory=Shared)
    silence: Silence = field(default_factory=Silence)

    def ask(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what the database says, or has said within the last second (see `Shared`)."""
        return self.shared.get(key, lambda: self._heard(read()), self._patience())

    def _patience(self) -> float:
        """Return how long to wait for an answer that another one has asked for.

        It is short while the database is silent: that one may wait for what will never come.
        """
        limit = time_limits.current()
        left = PATIENCE if limit is None else limit.left()
        return min(left, 1.0) if self.silence.is_on else left

    def _heard(self, answer: T) -> T:
        self.silence.heard()
        return answer

    def page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """Return a page made of a template."""
        html = (
            _environment()
            .get_template(template)
            .render(
                site=self,
                request=request,
                access=request.access,
                root=request.root,
                here=request.path.strip("/").split("/")[0],
                token=request.token,
                now=now(),
                redaction=self.redaction,
                **values,
            )
        )
        return Response(html.encode("utf-8", "backslashreplace"), status)
