"""A job's context, where releases up to 3.x had it; now in `procrastinate` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.former import missing_from
from procrastinate.model.endings.outcome import AbortReason as AbortReason
from procrastinate.worker.context import JobContext as JobContext

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
