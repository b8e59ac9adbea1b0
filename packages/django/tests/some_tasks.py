"""Tasks of Django's, for the tests of the backend."""

from __future__ import annotations

from typing import Any

import django

import procrastinate_django

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
async def add_later(a: int, b: int = 1) -> int:
    return a + b


@task(priority=5, queue_name="mail", takes_context=True)
def attempt(context: Any) -> list[Any]:
    return [context.attempt, context.task_result.id, context.task_result.status]


@task
def fail(message: str) -> None:
    raise LookupError(message)


@procrastinate_django.job(retry=1, lock="one")
@task
def fail_once(state: str) -> str:
    if state not in SEEN:
        SEEN.append(state)
        raise LookupError(state)
    return state


SEEN: list[str] = []


@task
def no_json() -> object:
    return lambda: None


@task
def to_pair() -> tuple[int, bytes]:
    return 1, b"two"
