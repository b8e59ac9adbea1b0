"""The queues: how many jobs are in each, how long the oldest waits, and pauses."""

from __future__ import annotations

from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.site import Site


def queues(site: Site, request: Request) -> Response:
    """Show the queues that have jobs, or are paused."""
    found = site.ask("queues", site.app.queue_manager.list_queues)
    pauses = site.ask("pauses", site.app.queue_manager.list_pauses)
    names = {each.name for each in found}
    return site.page(
        request,
        "queues.html",
        queues=found,
        empty_pauses=[each for each in pauses if each.queue not in names and each.queue != "*"],
        all_paused=next((each for each in pauses if each.queue == "*"), None),
    )
