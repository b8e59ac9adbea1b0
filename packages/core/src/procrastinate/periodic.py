"""Nothing is left here of what releases up to 3.x had: it says what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.former import missing_from

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
