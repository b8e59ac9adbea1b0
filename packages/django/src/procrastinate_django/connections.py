"""Django's connections around each job, as Django does it around each request.

A plain task runs in a thread of the worker, whose connections are looked after before and after the
job: one that is broken, or older than ``CONN_MAX_AGE``, is closed. So a worker goes on after a
restart of the database. (Django itself finds a connection that broke while it was idle by an error,
or by ``CONN_HEALTH_CHECKS``; here the socket is looked at, which sends nothing.)

An ``async def`` task reaches the database by ``sync_to_async``, which would share one thread of the
process among all jobs. So each has a thread of its own (`ThreadSensitiveContext`), made if it is
used, and its connections are closed with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections

from procrastinate import Job, Observer
from procrastinate_django import drivers


class ConnectionCare(Observer):
    """Looks after Django's connections around each job.

    The app of this package has one. Give one to an app of your own:
    ``App(..., observers=[ConnectionCare()])``.
    """

    def around_attempt(self, job: Job) -> AbstractContextManager[object]:
        return _thread_of_its_own() if _is_on_loop() else _looked_after()


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _looked_after() -> Iterator[None]:
    _look_after()
    try:
        yield
    finally:
        _look_after()


def _look_after() -> None:
    """Close what is old or dead, but in a transaction: that is left to those who began it."""
    for wrapper in connections.all(initialized_only=True):
        if wrapper.in_atomic_block:  # of a test, for instance
            continue
        wrapper.close_if_unusable_or_obsolete()
        if _is_dead(wrapper):
            wrapper.close()


def _is_dead(wrapper: Any) -> bool:
    if wrapper.connection is None or wrapper.vendor != "postgresql":
        return False
    return not drivers.driver().looks_alive(wrapper.connection)


@contextmanager
def _thread_of_its_own() -> Iterator[None]:
    """Do what the block of `ThreadSensitiveContext` does, and wait for nothing at its end."""
    context = ThreadSensitiveContext()
    token = SyncToAsync.thread_sensitive_context.set(context)
    try:
        yield
    finally:
        SyncToAsync.thread_sensitive_context.reset(token)
        executor = SyncToAsync.context_to_thread_executor.pop(context, None)
        if executor is not None:
            _end(executor)


def _end(executor: Executor) -> None:
    executor.submit(connections.close_all)
    executor.shutdown(wait=False)
