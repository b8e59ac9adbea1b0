"""Middleware as it is given to a task or a worker: checked, and in the order in which it wraps.

Rules

1. The first of several is the outermost; the worker's are outside of the task's.
2. ``async def`` middleware runs on the event loop, a plain function in the thread of its job. So a
   task has middleware of its own kind only.
3. A worker's ``async def`` middleware wraps tasks of both kinds: to it, a plain function is
   something to wait for. A worker's plain middleware wraps plain functions only, and lies inside of
   the worker's ``async def`` middleware, because a thread cannot hold what runs on the loop.
4. Nothing is left out silently. If the rules cannot hold, that is an `InvalidOption`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown

AnyMiddleware = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Layers:
    """What wraps a task, outermost first: on the loop and, within that, in a thread."""

    on_loop: tuple[AnyMiddleware, ...] = ()
    in_thread: tuple[AnyMiddleware, ...] = ()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling this gives a coroutine: an ``async def``, or an object with such a call."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  an object with an async __call__
    )


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling this runs nothing of its body: it has a ``yield``."""
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, getattr(function, "__call__", None))  # noqa: B004  as above
    )


def middlewares(given: Any) -> tuple[AnyMiddleware, ...]:
    """Return one middleware, a sequence of them, or None as a tuple. Raises `InvalidOption`."""
    if given is None:
        return ()
    if callable(given):
        given = (given,)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidOption(f"middleware must be a function or a list of them, not {shown(given)}")
    for middleware in given:
        _check_callable(middleware)
    return tuple(given)


def check_kind(name: str, task_is_async: bool, of_task: Sequence[AnyMiddleware]) -> None:
    """Raise `InvalidOption` unless all of a task's middleware is of the task's kind."""
    for middleware in of_task:
        if is_async(middleware) is not task_is_async:
            raise InvalidOption(
                f"task {name!r} is {_kind(task_is_async)}, and its middleware"
                f" {_name(middleware)} is {_kind(not task_is_async)}: both must be of one kind"
            )


def check_order(of_worker: Sequence[AnyMiddleware]) -> None:
    """Raise `InvalidOption` unless a worker's ``async def`` middleware comes before plain ones."""
    for outer, inner in pairwise(of_worker):
        if is_async(inner) and not is_async(outer):
            raise InvalidOption(
                f"the worker's middleware {_name(outer)} is {_kind(False)}, runs in the thread and"
                f" cannot wrap {_name(inner)}, which is {_kind(True)}: give that one first"
            )


def layers(
    name: str,
    task_is_async: bool,
    of_task: Sequence[AnyMiddleware],
    of_worker: Sequence[AnyMiddleware],
) -> Layers:
    """Return what wraps a task in a worker. Raises `InvalidOption` by rule 3."""
    plain = tuple(each for each in of_worker if not is_async(each))
    on_loop = tuple(each for each in of_worker if is_async(each))
    if not task_is_async:
        return Layers(on_loop, (*plain, *of_task))
    if plain:
        raise InvalidOption(
            f"the worker's middleware {_name(plain[0])} is {_kind(False)} and cannot wrap task"
            f" {name!r}, which is {_kind(True)}: write it as `async def`, and it wraps both"
        )
    return Layers((*on_loop, *of_task))


def _check_callable(middleware: Any) -> None:
    if not callable(middleware):
        raise InvalidOption(
            f"middleware must be a function or a list of them, not {shown(middleware)}"
        )
    if is_generator(middleware):
        raise InvalidOption(
            f"middleware {_name(middleware)} has a `yield`, so that a call runs nothing of it: call"
            " or await `call_next()` in its place"
        )
    try:
        inspect.signature(middleware).bind(None, None, None)
    except TypeError as exc:
        raise InvalidOption(
            f"middleware is called with (call_next, context, worker), and {_name(middleware)}"
            f" cannot be: {exc}"
        ) from exc
    except ValueError:
        pass  # no signature to be found: a callable written in C


def _kind(asynchronous: bool) -> str:
    return "an `async def`" if asynchronous else "a plain function"


def _name(middleware: AnyMiddleware) -> str:
    module = getattr(middleware, "__module__", None)
    name = getattr(middleware, "__qualname__", None)
    return f"{module}.{name}" if module and name else shown(middleware)
