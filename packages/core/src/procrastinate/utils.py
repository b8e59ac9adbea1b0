"""What releases up to 3.x showed of their utilities: the time."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from procrastinate.former import missing_from


def utcnow() -> datetime.datetime:
    """Return the time, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC)


if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
