"""Arguments of methods that had other names in releases up to 3.x, or are gone."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from procrastinate.errors import InvalidOption
from procrastinate.former import RELEASE

P = ParamSpec("P")
R = TypeVar("R")


def former_arguments(
    *, gone: Mapping[str, str] | None = None, **renamed: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method take the former names of its arguments, with a DeprecationWarning.

    ``renamed`` gives the present name of each. ``gone`` says what to write instead of one that is
    no more: it raises `InvalidOption`.
    """

    def decorate(method: Callable[..., Any]) -> Any:
        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                return await method(*args, **_as_now(method, kwargs, renamed, gone or {}))

            return call_async

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **_as_now(method, kwargs, renamed, gone or {}))

        return call

    return decorate


def _as_now(
    method: Callable[..., Any],
    given: dict[str, Any],
    renamed: Mapping[str, str],
    gone: Mapping[str, str],
) -> dict[str, Any]:
    arguments = dict(given)
    for name in given:
        if name in gone:
            raise InvalidOption(
                f"{method.__name__}() has no {name}= any more, which {RELEASE} had: {gone[name]}"
            )
        if name not in renamed:
            continue
        now = renamed[name]
        if now in given:
            raise InvalidOption(f"{method.__name__}(): {name} is the former name of {now}")
        warnings.warn(
            f"{method.__name__}({name}=...) is called {now}= now", DeprecationWarning, stacklevel=3
        )
        arguments[now] = arguments.pop(name)
    return arguments
