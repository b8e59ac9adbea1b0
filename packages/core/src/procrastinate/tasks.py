"""Tasks, where releases up to 3.x had them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.app.deferring import ConfigureOptions as ConfigureTaskOptions
from procrastinate.app.task import Task as Task
from procrastinate.former import missing_from

__all__ = ["ConfigureTaskOptions", "Task"]

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
