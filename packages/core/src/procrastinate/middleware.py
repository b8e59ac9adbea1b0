"""The types of middleware, under the names that releases up to 3.x had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.former import missing_from
from procrastinate.model.middleware import AnyMiddleware as TaskMiddleware
from procrastinate.worker.context import AsyncCallNext, CallNext
from procrastinate.worker.context import AsyncMiddleware as WorkerMiddleware

SyncCallNext = CallNext

__all__ = ["AsyncCallNext", "SyncCallNext", "TaskMiddleware", "WorkerMiddleware"]

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
