"""What failed, grouped by task and error."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from procrastinate.model.monitoring.failures import ANY, FailureGroup
from procrastinate_dashboard.asking import address
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.redaction import Redaction
from procrastinate_dashboard.site import Site, now

#: How far back to look, by the name in the page's address.
SPANS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


SORTS = {"count": "most jobs", "last": "latest"}
MOST = 50  # groups on the page


@dataclass(frozen=True)
class Links:
    """Where the jobs of a group are listed, and where they are retried."""

    jobs: str
    retry: str


def failures(site: Site, request: Request) -> Response:
    """Show groups of failed jobs: those with the most jobs first, or those that failed last."""
    query = request.query
    span = _one_of(SPANS, query.get("span"), "24h")
    sort = _one_of(SORTS, query.get("sort"), "count")
    queue, task = (query.get(name, "").strip() or None for name in ("queue", "task"))
    found = site.ask(
        ("failures", span, queue, task),
        lambda: site.app.job_manager.list_failures(
            since=now() - SPANS[span], queue=queue, task=task
        ),
    )
    groups = sorted(found, key=_size, reverse=True) if sort == "count" else found
    kept = {"queue": queue, "task": task}
    return site.page(
        request,
        "failures.html",
        groups=groups[:MOST],
        more=max(len(groups) - MOST, 0),
        links=[links_to(each, site.redaction) for each in groups[:MOST]],
        span=span,
        sort=sort,
        queue=queue,
        task=task,
        spans={name: address("failures", span=name, sort=sort, **kept) for name in SPANS},
        sorts={
            words: (name, address("failures", span=span, sort=name, **kept))
            for name, words in SORTS.items()
        },
    )


def _one_of(known: Collection[str], given: str | None, default: str) -> str:
    return given if given is not None and given in known else default


def _size(group: FailureGroup) -> int:
    return group.count.value


def links_to(group: FailureGroup, redaction: Redaction) -> Links:
    """Return the links to a group's jobs as they were seen: none that failed later is meant.

    Addresses are logged and kept, so any text stands in them for a password.
    """
    fields = {name: redaction.text(_written(it), ANY) for name, it in group.filters.items()}
    return Links(address("jobs", **fields), address("jobs/retry", **fields))


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
