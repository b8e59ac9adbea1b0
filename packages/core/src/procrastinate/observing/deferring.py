"""Showing new jobs to observers: around their insertion, and once they are inserted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from procrastinate import json_codec
from procrastinate.model.job import NewJob
from procrastinate.observing.events import Deferred
from procrastinate.observing.observers import Observers, log_is_for_debug

META_BYTES = 16 * 1024  # of what observers give a job, as JSON


def is_watched(observers: Observers) -> bool:
    """Whether anybody wants to see jobs that are deferred: an observer, or the log."""
    return observers.sees_defers or log_is_for_debug()


class Watched:
    """The insertion of jobs, as a block; tell it the ids at its end.

    Observers may have added to the ``meta`` of the jobs when the block begins.
    """

    def __init__(
        self, observers: Observers, jobs: Sequence[NewJob], *, in_transaction: bool
    ) -> None:
        self._observers = observers
        self._jobs = jobs = tuple(jobs)  # the caller's own list is not for observers
        self._in_transaction = in_transaction
        self._around = observers.around("around_defer", jobs)

    def __enter__(self) -> Watched:
        self._around.__enter__()
        _keep_what_is_json(self._jobs)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._around.__exit__(*raised)

    def inserted(self, ids: Sequence[int]) -> None:
        """Tell the log and the observers that the jobs have been inserted."""
        if not self._jobs:
            return
        event = Deferred(self._jobs, tuple(ids), self._in_transaction)
        if log_is_for_debug():
            from procrastinate.observing import job_log  # not at the top: it imports logging

            job_log.deferred(event)
        self._observers.tell("on_deferred", event)


def _keep_what_is_json(jobs: Sequence[NewJob]) -> None:
    """Take away what cannot be stored: it must not keep a job from being inserted."""
    known: dict[int, bool] = {}  # most often, all jobs have the same
    for job in jobs:
        if job.meta is None:
            continue
        if id(job.meta) not in known:
            known[id(job.meta)] = _is_storable(job.meta)
        if not known[id(job.meta)]:
            job.meta = None


def _is_storable(meta: object) -> bool:
    if not isinstance(meta, dict):
        return False
    try:
        text = json_codec.dumps(meta)
        return "\\u0000" not in text and len(text.encode()) <= META_BYTES
    except Exception:  # whatever an object's own methods raise
        return False
