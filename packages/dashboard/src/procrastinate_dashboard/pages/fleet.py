"""The workers and the schedules."""

from __future__ import annotations

from procrastinate_dashboard.health import state_of
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.site import Site, now


def workers(site: Site, request: Request) -> Response:
    """Show the workers: what they serve, how busy they are, when they were heard of."""
    found = site.ask("workers", site.app.job_manager.list_workers)
    states = {each.id: state_of(each) for each in found}
    return site.page(request, "workers.html", workers=found, states=states)


def schedules(site: Site, request: Request) -> Response:
    """Show the schedules of periodic tasks: when each is next, and what came of the last tick."""
    found = site.ask("schedules", site.app.job_manager.list_schedules)
    late = {(each.task_name, each.periodic_id) for each in found if each.is_late(now())}
    return site.page(request, "schedules.html", schedules=found, late=late)
