"""What a worker's HTTP port answers: whether it lives, whether it is ready, and its metrics.

Rules

1. ``/healthz`` fails if only a new process can help: a companion is dead, or the event loop has not
   turned for `STUCK_AFTER` seconds. A database that is away is no reason: a restart does not bring
   it back.
2. ``/readyz`` fails if the worker could not start a job now: it is not registered, it stops, its
   last sign of life had no answer, its event loop is blocked, or it does not know which queues are
   paused: a role that may not read that would wait for ever.
3. Neither asks the database, so a client cannot make it work. What they say is at most as old as
   the worker's last sign of life.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from procrastinate.observing import exposing
from procrastinate.worker.process.http_port import Answer, HttpPort, Route, text

HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"
STUCK_AFTER = 60.0  # seconds without a turn of the event loop
BLOCKED_AFTER = 5.0


class Probed(Protocol):
    """What is asked about."""

    def sicknesses(self) -> Sequence[str]:
        """Return why only a restart can help; nothing if it is well."""

    def hindrances(self) -> Sequence[str]:
        """Return why no job could be started now."""


def routes(probed: Probed) -> Mapping[str, Route]:
    """Return what a worker answers."""
    return {
        HEALTH: lambda accept: verdict(probed.sicknesses()),
        READY: lambda accept: verdict([*probed.sicknesses(), *probed.hindrances()]),
        METRICS: lambda accept: metrics(accept, lambda found: found.text(accept)),
    }


@contextlib.contextmanager
def answering(
    probed: Probed, host: str, port: int | None, *, quietly: bool = False
) -> Iterator[HttpPort | None]:
    """Answer requests for the length of a block, if there is to be a port."""
    if port is None:
        yield None
        return
    opened = HttpPort(host, port, routes(probed))
    try:
        opened.start(quietly=quietly)
        yield opened
    finally:
        opened.close()


def verdict(problems: Sequence[str]) -> Answer:
    """Return the answer of a probe that has found these problems."""
    if problems:
        return text(HTTPStatus.SERVICE_UNAVAILABLE, *problems)
    return text(HTTPStatus.OK, "ok")


def metrics(accept: str, read: Callable[[exposing.Exposition], tuple[str, bytes]]) -> Answer:
    """Return what an installed package makes of metrics, or how to install one."""
    found = exposing.exposition()
    if found is None:
        return text(
            HTTPStatus.NOT_FOUND, f"metrics need a package: pip install {exposing.PUBLISHED}"
        )
    content_type, body = read(found)
    return Answer(HTTPStatus.OK, body, content_type)
