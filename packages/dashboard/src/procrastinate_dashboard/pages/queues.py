"""The queues: how many jobs are in each, how long the oldest waits, and pauses."""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate.model.queue_names import EVERY_QUEUE, SPARED
from procrastinate.model.queues import Pause
from procrastinate.model.text.printable import line
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
        done=_done(request.query.get("done"), request.query.get("named", ""), pauses),
        all_paused=next((each for each in pauses if each.queue == EVERY_QUEUE), None),
    )


def _done(what: str | None, queue: str, pauses: Sequence[Pause]) -> str | None:
    """Return what was done to a queue, or to all, in a sentence; and what is still paused."""
    is_all = queue == EVERY_QUEUE
    name = "All queues" if is_all else f"Queue {line(queue, 80)}"
    verb = "are" if is_all else "is"
    others = [line(each.queue, 60) for each in pauses if each.queue not in (queue, EVERY_QUEUE)]
    named = f"; paused by name: {', '.join(others)}" if others else ""
    if what == "pause":
        return f"{name} {verb} paused{f', but for {SPARED}' if is_all else ''}."
    if what == "nothing":
        return f"{name} {'were' if is_all else 'was'} not paused{named if is_all else ''}."
    if what == "resume" and is_all:
        return f"All queues are resumed{named}."
    if what == "resume":
        all_are = any(each.queue == EVERY_QUEUE for each in pauses)
        return f"{name} is resumed{', but all queues are paused' if all_are else ''}."
    return None
