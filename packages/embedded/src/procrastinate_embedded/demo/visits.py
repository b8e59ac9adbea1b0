"""Jobs that take their time and fail now and then, so that there is something to look at."""

from __future__ import annotations

import random
import time

import procrastinate

QUEUE = "visits"
EVERY = 0.5  # seconds between jobs

VISIT = "demo:visit"
PLACES = ("library", "museum", "town hall", "zoo")

blueprint = procrastinate.Blueprint()


class Closed(Exception):
    """What a visit fails with."""


@blueprint.task(name="visit", queue=QUEUE, retry=1, pass_context=True)
def visit(context: procrastinate.JobContext, place: str, seconds: float, is_closed: bool) -> None:
    """Look around for some seconds, and say how far it is."""
    for step in range(10):
        if context.should_abort():
            raise procrastinate.JobAborted("called off")
        context.progress(step / 10, f"room {step + 1} of 10")
        time.sleep(seconds / 10)
    if is_closed:
        raise Closed(f"the {place} is closed on day {random.randrange(1, 8)}")


def defer_some(app: procrastinate.App, number: int) -> None:
    """Defer the next job: some to one place wait for each other, some are for later."""
    place = random.choice(PLACES)
    task = app.configure_task(
        VISIT,
        lock=place if number % 3 == 0 else None,
        schedule_in={"minutes": 5} if number % 20 == 19 else None,
    )
    seconds = round(random.expovariate(1 / 1.5), 1)
    task.defer(place=place, seconds=min(seconds, 20.0), is_closed=random.random() < 0.08)
