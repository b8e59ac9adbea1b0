"""What went wrong, as a page: what happened, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from procrastinate.errors import (
    AlreadyEnqueued,
    AppNotOpen,
    ConnectionLost,
    ConnectorException,
    InvalidOption,
    JobNotFound,
    SchemaError,
)
from procrastinate.model.text.printable import line
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.shared import NoAnswer
from procrastinate_dashboard.site import Site

logger = logging.getLogger(__name__)

_SILENT = "The database does not answer"
_COMES_BACK = "This page asks again by itself, and comes back once it answers."
_NOT_DONE = "Nothing was changed. Try again once it answers."
_MAY_BE_DONE = "It may still be done. Look whether it was before you try again."
_READ_ONLY = "25006"  # SQLSTATE read_only_sql_transaction


class Refused(Exception):
    """A request that cannot be answered: the status, a headline, and what to do."""

    def __init__(
        self,
        status: int,
        headline: str,
        advice: str = "",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headline)
        self.status = status
        self.headline = headline
        self.advice = advice
        self.headers = dict(headers or {})


class Allowed(Exception):
    """The answer to ``OPTIONS``: nothing but its headers."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.headers = headers


def not_found() -> Refused:
    """Return the refusal of a path that leads nowhere."""
    return Refused(404, "There is no such page", "Look for it in the navigation above.")


def check_method(request: Request, *allowed: str) -> None:
    """Refuse a method that is not allowed here; ``OPTIONS`` asks which ones are (`Allowed`)."""
    allow = {"allow": ", ".join((*allowed, "OPTIONS"))}
    if request.method == "OPTIONS":
        raise Allowed(allow)
    if request.method not in allowed:
        raise Refused(405, "That cannot be done here", headers=allow)


def may_be_done(exc: Exception) -> bool:
    """Whether a change may have been made although it raised this."""
    is_lost = isinstance(exc, ConnectionLost) and exc.sqlstate is None
    return is_lost or isinstance(exc, NoAnswer)


def explain(site: Site, request: Request, exc: Exception) -> Response:
    """Return the page for what a page function raised."""
    if isinstance(exc, Allowed):
        return Response(status=204, headers=exc.headers)
    if request.method == "POST" and may_be_done(exc):
        exc = Refused(503, _SILENT, _MAY_BE_DONE)
    if not isinstance(exc, Refused):
        exc = _refusal(site, exc)
    headers = {"retry-after": "2"} if exc.status == 503 else exc.headers
    response = _page(site, request, exc)
    return Response(response.body, exc.status, headers)


def _refusal(site: Site, exc: Exception) -> Refused:
    said = line(str(exc), 400)
    match exc:
        case JobNotFound():
            return Refused(404, said[:1].upper() + said[1:], "It may have been deleted.")
        case AlreadyEnqueued():
            return Refused(409, "A job with its queueing lock is waiting already", said)
        case InvalidOption():
            return Refused(400, "That cannot be asked for", said)
        case AppNotOpen():
            logger.error("The dashboard's app is not open: open it before the server starts")
            return Refused(503, "The app is not open", "Open it where the server starts.")
        case SchemaError():
            return Refused(503, "The tables do not fit", said)
        case ConnectorException() if exc.sqlstate == _READ_ONLY:
            return Refused(409, "This database can only be read", said)
        case ConnectorException() | NoAnswer():
            if site.silence.is_news():
                said = said or "no answer in time"
                logger.warning("The dashboard cannot ask the database: %s", said)
            return Refused(503, _SILENT, _COMES_BACK)
    return _failed("A page of the dashboard failed", exc)


def still_silent(site: Site, request: Request) -> Response:
    """Return the page for a request that was not even tried, because the database is silent."""
    advice = _NOT_DONE if request.method == "POST" else _COMES_BACK
    return explain(site, request, Refused(503, _SILENT, advice))


def _failed(what: str, exc: Exception) -> Refused:
    logger.error(what, exc_info=exc)
    return Refused(500, "This page failed", "The log of the server says why.")


def wrong_host(site: Site, request: Request) -> Response:
    """Return the refusal of a request for a host that this is not."""
    return _page(site, request, Refused(421, "This host is not served here"))


def no_access(site: Site, request: Request) -> Response:
    """Return the refusal of somebody who is not known."""
    return _page(site, request, Refused(403, "You may not see this dashboard", "Log in first."))


def access_failed(site: Site, request: Request, exc: Exception) -> Response:
    """Return the refusal of a request of which ``access`` could not say who asks."""
    return _page(site, request, _failed("The dashboard's access function failed", exc))


def _page(site: Site, request: Request, refused: Refused) -> Response:
    return site.page(
        request,
        "problem.html",
        status=refused.status,
        headline=refused.headline,
        advice=refused.advice,
        comes_back=refused.status == 503,
    )
