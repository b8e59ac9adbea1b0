"""Checks of the options that every connector has, made when the connector is made.

They import nothing of core but its errors, because the contract is built on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from procrastinate.errors import InvalidOption

F = TypeVar("F", bound=Callable[..., Any])

SCHEMA_BYTES = 63  # of a name's UTF-8; PostgreSQL cuts longer ones off
#: What a schema's name must not contain: our SQL text quotes it, and has markers of its own.
_NOT_IN_SCHEMA = frozenset("\0'\"%\\{}")


def check_schema(schema: Any) -> str:
    """Return a schema's name as a plain ``str``, or raise `InvalidOption`."""
    if not isinstance(schema, str):
        raise InvalidOption(f"schema must be a str, not {_kind(schema)}")
    name = str.__str__(schema)  # a subclass may override whatever is asked of it
    if not 0 < len(name.encode(errors="replace")) <= SCHEMA_BYTES:
        raise InvalidOption(
            f"schema must be a name of 1 to {SCHEMA_BYTES} bytes, not {_cut(name)}"
            + ("" if name else ": leave it out for the first schema on the search_path")
        )
    if "\0" in name:
        raise InvalidOption(f"schema must not contain a NUL character: {_cut(name)}")
    if not _NOT_IN_SCHEMA.isdisjoint(name):
        raise InvalidOption(
            f"schema must not contain quotes, backslashes, percent signs or braces: {_cut(name)}"
        )
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidOption(f"schema must be valid Unicode text: {_cut(name)}")
    return name


def check_function(option: str, function: F | None, default: F) -> F:
    """Return a function given as an option, or the default for None. Raises `InvalidOption`."""
    if function is None:
        return default
    if not callable(function):
        raise InvalidOption(f"{option} must be a function, not {_kind(function)}")
    return function


def _kind(value: Any) -> str:
    return type.__dict__["__name__"].__get__(type(value))  # type: ignore[no-any-return]


def _cut(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
