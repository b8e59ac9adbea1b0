"""A behaviour: a promise that is written once and kept by synchronous and asynchronous connectors.

A behaviour is a coroutine function. For an asynchronous connector it runs on an event loop, for
a synchronous one in a plain thread, where it never has to wait for anything (see `subject`).
When it fails, the failure names the rules of `procrastinate.connector` that were broken.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias

from procrastinate import connector as contract
from procrastinate_connector_testkit.subject import Subject

#: Through which halves of a connector a behaviour is checked: its own, or both.
Ways: TypeAlias = Literal["both", "own"]
#: A rule's number, or the place where the promise is made, in words.
Rule: TypeAlias = int | str


def behaviour(
    *rules: Rule, ways: Ways = "both"
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a test of a promise (of a coroutine function, or of a plain one that drives itself)."""

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(function)
        def test(*args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            try:
                if inspect.iscoroutinefunction(function):
                    _subject(kwargs).run(function(*args, **kwargs))
                else:
                    function(*args, **kwargs)
            except BaseException as exc:
                for rule in rules:
                    exc.add_note(f"broken: {rule_text(rule)}")
                raise

        test.ways = ways  # type: ignore[attr-defined]
        return test

    return decorate


def _subject(kwargs: dict[str, Any]) -> Subject:
    subject = kwargs.get("db") or kwargs["queue"].db
    assert isinstance(subject, Subject)
    return subject


Promise: TypeAlias = Callable[..., Coroutine[Any, Any, None]]


def rule_text(rule: Rule) -> str:
    """Return a rule as the contract words it."""
    if isinstance(rule, str):
        return f"the contract of {rule}"
    text = _rules().get(rule, "(see its docstring)")
    return f"rule {rule} of procrastinate.connector: {text}"


@functools.cache
def _rules() -> dict[int, str]:
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", contract.__doc__ or "", re.M | re.S)
    return {int(number): " ".join(text.split()) for number, text in found}
