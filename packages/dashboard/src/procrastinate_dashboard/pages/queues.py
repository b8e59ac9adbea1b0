"""The queues: how many jobs are in each, how long the oldest waits, and pauses."""

from __future__ import annotations

from procrastinate.model.queues import EVERY_QUEUE
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.site import Site


def queues(site: Site, request: Request) -> Response:
    """Show the queues that have jobs, or are paused."""
    found = site.ask("queues", site.app.queue_manager.list_queues)
    pauses = site.ask("pauses", site.app.queue_manager.list_pauses)
    return site.page(
        request,
        "queues.html",
        queues=found,
        all_paused=next((each for each in pauses if each.queue == EVERY_QUEUE), None),
    )
