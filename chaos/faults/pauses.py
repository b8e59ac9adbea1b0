"""A person pauses a queue for a while, in the middle of everything else."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import procrastinate
from chaos.faults.base import OPERATOR, Fault
from chaos.jobs import QUEUES
from chaos.records import PAUSE, Pause
from procrastinate.errors import ConnectorException

if TYPE_CHECKING:
    from chaos.world import World

RESUMING_MAY_TAKE = 120.0  # seconds: as long as a server may be away


class PauseQueue(Fault):
    """A queue is paused and resumed. Seen if jobs have waited for that."""

    name, lane = PAUSE, OPERATOR

    def strike(self, world: World, chance: random.Random) -> None:
        queue = chance.choice(QUEUES)
        connector = procrastinate.Psycopg2Connector(dsn=world.cluster.dsn())
        app = procrastinate.App(connector=connector)
        with world.trouble(self.name, processes=()) as note:
            begun = _tries(app, lambda: app.queue_manager.pause(queue, by="chaos"))
            since = datetime.now(UTC)
            world.hold(world.terms.paused.total_seconds() + chance.uniform(1, 3))
            note.seen = begun and _waiting(world, queue) > 0
            until = datetime.now(UTC)
            if begun:
                note.pause = Pause(queue, since, until)
            # Also if the answer to the pause was lost: it may be in force.
            if not world.until(lambda: _resumes(app, queue), RESUMING_MAY_TAKE):
                world.complain("hung", f"the queue {queue} could not be resumed")


def _resumes(app: procrastinate.App, queue: str) -> bool:
    """Try to resume a queue, and return whether that came to an end."""
    return _tries(app, lambda: app.queue_manager.resume(queue))


def _tries(app: procrastinate.App, act: object) -> bool:
    try:
        with app.open(), procrastinate.time_limit(10):
            act()  # type: ignore[operator]
    except ConnectorException:
        return False
    return True


def _waiting(world: World, queue: str) -> int:
    rows = world.cluster.query(
        "select count(*) from procrastinate_jobs where status = 'todo' and queue_name = %s"
        " and hold is null",
        queue,
    )
    return int(rows[0][0])


FAULTS: list[type[Fault]] = [PauseQueue]
