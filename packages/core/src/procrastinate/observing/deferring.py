"""Showing new jobs to observers: around their insertion, and once they are inserted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from procrastinate import json_codec
from procrastinate.model.job import NewJob
from procrastinate.model.text.printable import shown, type_of
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
        _keep_what_is_json(self._jobs, self._observers)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._around.__exit__(*raised)

    def inserted(self, ids: Sequence[int]) -> None:
        """Tell the log and the observers that the jobs have been inserted."""
        if not self._jobs:
            return
        from procrastinate.observing.events import Deferred  # if anybody watches

        event = Deferred(self._jobs, tuple(ids), self._in_transaction)
        if log_is_for_debug():
            from procrastinate.observing import job_log  # not at the top: it imports logging

            job_log.deferred(event)
        self._observers.tell("on_deferred", event)


def _keep_what_is_json(jobs: Sequence[NewJob], observers: Observers) -> None:
    """Take away what cannot be stored: it must keep no job from being inserted, and no key."""
    known: dict[int, dict[str, Any] | None] = {}  # most often, all jobs have the same
    for job in jobs:
        if job.meta is None:
            continue
        if id(job.meta) not in known:
            known[id(job.meta)] = _storable_part(job.meta, observers)
        job.meta = known[id(job.meta)]


def _storable_part(meta: object, observers: Observers) -> dict[str, Any] | None:
    """Return what can be stored of a job's meta; the log names what cannot."""
    if not isinstance(meta, dict):
        observers.left_out("all of it", TypeError(f"it is no dict, but {type_of(meta)}"))
        return None
    try:
        if _bytes_of(meta) <= META_BYTES:
            return meta
    except Exception:  # whatever an object's own methods raise
        pass  # it is looked for key by key
    return _storable_keys(meta, observers)


def _storable_keys(meta: dict[str, Any], observers: Observers) -> dict[str, Any] | None:
    kept: dict[str, Any] = {}
    free = META_BYTES - len("{")
    for key, value in dict.items(meta):
        try:
            size = _bytes_of({key: value}) - len("{")  # with a comma, or the brace at the end
            if size > free:
                raise ValueError(f"with it, meta is longer than {META_BYTES // 1024} KiB as JSON")
            kept[key] = value
            free -= size
        except Exception as broken:  # whatever an object's own methods raise
            observers.left_out(f"key {shown(key)}", broken)
    return kept or None


def _bytes_of(meta: dict[str, Any]) -> int:
    """Return how long meta is as JSON, in bytes. Raises what says why it cannot be stored."""
    text = json_codec.dumps(meta)
    if "\\u0000" in text:
        raise ValueError("PostgreSQL stores no text that contains a NUL")
    return len(text.encode())
