"""The list of jobs: filters, one page after the other."""

from __future__ import annotations

from procrastinate.errors import InvalidOption
from procrastinate.model.states import State
from procrastinate_dashboard.asking import address, given_filters, job_filters
from procrastinate_dashboard.messages import Request, Response, redirect
from procrastinate_dashboard.site import Site, now

LIMIT = 50  # jobs on a page

#: States from which jobs can be retried, and cancelled.
RETRIED = (State.FAILED, State.CANCELLED, State.ABORTED)
CANCELLED = (State.READY, State.SCHEDULED, State.BEHIND_A_LOCK)


def jobs(site: Site, request: Request) -> Response:
    """Show the jobs that match, newest first if they have ended, else in the order of running."""
    wanted = request.query.get("id", "").strip()
    if wanted.isdecimal() and wanted.isascii():
        return redirect(f"{request.root}jobs/{int(wanted[:40])}")
    given = given_filters(request.query)
    cursor = request.query.get("cursor") or None
    page, problem = None, None
    try:
        if wanted:
            raise InvalidOption("the id of a job is a number")
        filters = job_filters(given, now())
        page = site.ask(
            ("jobs", *given.items(), cursor),
            lambda: site.app.job_manager.search_jobs(cursor=cursor, limit=LIMIT, **filters),
        )
    except InvalidOption as exc:
        problem = str(exc)
    return site.page(
        request,
        "jobs.html",
        status=200 if problem is None else 400,
        page=page,
        problem=problem,
        given=given,
        states=list(State),
        links={state: _with(given, state) for state in (None, *State)},
        next_page=None if page is None or not page.cursor else _next(given, page.cursor),
        is_first=cursor is None,
        first_page=address("jobs", **given),
        retry=_bulk("retry", given, RETRIED),
        cancel=_bulk("cancel", given, CANCELLED),
    )


def _with(given: dict[str, str], state: State | None) -> str:
    return address("jobs", **{**given, "state": state})


def _next(given: dict[str, str], cursor: str) -> str:
    return address("jobs", **given, cursor=cursor)


def _bulk(what: str, given: dict[str, str], states: tuple[State, ...]) -> str | None:
    """Return the link to change all jobs that match, up to now; None if they cannot be."""
    if given.get("state") not in states:
        return None
    return address(f"jobs/{what}", **{**given, "until": given.get("until", _as_seen())})


def _as_seen() -> str:
    return now().isoformat(timespec="seconds")
