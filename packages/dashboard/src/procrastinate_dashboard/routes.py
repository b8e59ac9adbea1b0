"""Which page answers which path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from procrastinate_dashboard import guard
from procrastinate_dashboard.messages import Request, Response, to_slash
from procrastinate_dashboard.pages import (
    actions,
    failures,
    fleet,
    job,
    jobs,
    overview,
    queues,
)
from procrastinate_dashboard.problems import Refused, check_method, not_found
from procrastinate_dashboard.site import Site

Page: TypeAlias = Callable[..., Response]

#: Paths that show something. What a pattern finds is given to the page.
PAGES: tuple[tuple[str, Page], ...] = (
    ("/", overview.overview),
    ("/jobs", jobs.jobs),
    (r"/jobs/(\d{1,20})", job.job),
    (r"/jobs/(\d{1,20})/(arguments|result|errors)", job.whole),
    ("/queues", queues.queues),
    ("/workers", fleet.workers),
    ("/schedules", fleet.schedules),
    ("/failures", failures.failures),
)

#: Paths that change something: a GET asks whether to do it, a POST does it.
ACTIONS: tuple[tuple[str, Page, Page], ...] = (
    (r"/jobs/(\d{1,20})/(retry|cancel|abort)", actions.ask_for_job, actions.act_on_job),
    (r"/jobs/(retry|cancel)", actions.ask_for_jobs, actions.act_on_jobs),
    (r"/queues/(pause|resume)", actions.ask_for_queue, actions.act_on_queue),
)


def answer(site: Site, request: Request) -> Response:
    """Return what the page for a request answers; raise `Refused` if there is none."""
    if not request.path:
        return to_slash(request)
    for pattern, page in PAGES:
        if found := re.fullmatch(pattern, request.path):
            check_method(request, "GET", "HEAD")
            return page(site, request, *found.groups())
    for pattern, ask, act in ACTIONS:
        if found := re.fullmatch(pattern, request.path):
            check_method(request, "GET", "HEAD", "POST")
            _check_may_act(request)
            if request.method != "POST":
                return ask(site, request, *found.groups())
            _check_is_meant(request)
            return act(site, request, *found.groups())
    raise not_found()


def _check_may_act(request: Request) -> None:
    if request.access is None or not request.access.may_act:
        raise Refused(403, "You may look, but not change anything", "Ask for the right to act.")


def _check_is_meant(request: Request) -> None:
    """Refuse a POST that no page of ours has sent (`guard`, rule 2)."""
    if not guard.is_from_us(request):
        raise Refused(403, "Another site has sent this", "Nothing was changed.")
    if not request.token_is_checked and not guard.has_token(request):
        raise Refused(
            403,
            "This form is not from here, or is too old",
            "Nothing was changed. Go back, reload the page, and try again.",
        )
