"""One statement, as core gives it to a connector: see rules 1, 2, 9 and 11 of the contract.

Connectors import it from `procrastinate.connector`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Value: TypeAlias = (
    bool | int | float | str | bytes | datetime | Sequence[int | None] | Sequence[str | None] | None
)
Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = Sequence[Row]

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")


#: Of the setting ``plan_cache_mode``: the plan does not depend on the values of the parameters.
GENERIC = "force_generic_plan"
_SETTING = re.compile(r"[a-z_][a-z_0-9.]*")
_OF_THE_PLANNER = "enable_"  # how the names of settings begin that switch kinds of plans


@functools.lru_cache(maxsize=256)
def _set_local(settings: tuple[tuple[str, str], ...]) -> str:
    for name, value in settings:
        if not _SETTING.fullmatch(name) or set(value) & set("'\\%\0"):
            raise ValueError(f"{name}={value!r} cannot be a setting of a query")
    return "".join(f"SET LOCAL {name} = '{value}';" for name, value in settings)


@functools.lru_cache(maxsize=256)
def _is_for_the_planner(names: tuple[str, ...]) -> bool:
    return any(name.startswith(_OF_THE_PLANNER) for name in names)


@functools.lru_cache(maxsize=1024)  # a cluster has many texts
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        return "%" if name is None else f"${numbers.setdefault(name, len(numbers) + 1)}"

    return _PLACEHOLDER.sub(number, sql), tuple(numbers)


@dataclass(slots=True)  # frozen, it takes three times as long to make, for each statement
class Query:
    """One statement to execute: its name (for logs), its SQL, and the values of its parameters.

    ``settings`` are the server's settings that it runs with (rule 9). It is never changed.
    """

    name: str
    sql: str
    params: Mapping[str, Value] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_plan(self) -> bool:
        """Whether one plan fits all values of the parameters (rule 11).

        So it is for calls of functions, which have settings, but none for the planner.
        """
        return self.is_sent_often or (bool(self.settings) and not self.is_for_the_planner)

    @property
    def is_sent_often(self) -> bool:
        """Whether core asks for a plan that is kept, because a worker sends it again and again."""
        return self.settings.get("plan_cache_mode") == GENERIC

    @property
    def is_for_the_planner(self) -> bool:
        """Whether its settings say how to plan it: statements on tables have such ones.

        Calls of functions have not. A driver that prepares a statement lets the server make its
        plan anew for each execution, unless it `keeps_plan`: a plan that was made for few jobs is
        slow for many.
        """
        return _is_for_the_planner(tuple(self.settings)) if self.settings else False

    def set_local(self) -> str:
        """Return the SQL that sets the settings for one transaction: empty if there are none."""
        return _set_local(tuple(self.settings.items())) if self.settings else ""

    def numbered(self) -> tuple[str, list[Value]]:
        """Return the SQL with ``$1, $2, ...`` and the values in that order, for other drivers.

        A name used twice keeps one number.
        """
        if not self.params:
            return self.sql, []
        sql, names = _numbered(self.sql)
        return sql, [self.params[name] for name in names]
