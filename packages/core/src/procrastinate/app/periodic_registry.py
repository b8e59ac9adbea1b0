"""The periodic tasks of an app or a blueprint.

It is apart from `procrastinate.app.periodic`, which programs without periodic tasks do not import.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from procrastinate.errors import InvalidOption
from procrastinate.model.task import TaskRegistry

if TYPE_CHECKING:
    from procrastinate.app.periodic import PeriodicTask
    from procrastinate.model.periodic import Key


class PeriodicRegistry:
    """The periodic tasks of an app or a blueprint, by task and periodic_id."""

    def __init__(self) -> None:
        self._by_key: dict[Key, PeriodicTask] = {}

    def add(self, periodic: PeriodicTask) -> None:
        """Register a schedule. Raises `InvalidOption` for one that is there already."""
        if periodic.key in self._by_key:
            task_name, periodic_id = periodic.key
            raise InvalidOption(
                f"the task {task_name} has a schedule with the periodic_id {periodic_id!r} already:"
                " give each one a periodic_id of its own"
            )
        self._by_key[periodic.key] = periodic

    def add_all(self, other: PeriodicRegistry, *, namespace: str, tasks: TaskRegistry) -> None:
        """Register another registry's schedules, of tasks taken up as ``namespace:name``."""
        for periodic in other:
            name = periodic.options.task_name
            self.add(periodic.moved_to(tasks[f"{namespace}:{name}" if namespace else name]))

    def __iter__(self) -> Iterator[PeriodicTask]:
        return iter(tuple(self._by_key.values()))
