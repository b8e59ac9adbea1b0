"""The errors, where releases up to 3.x had them; now in `procrastinate.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.errors import *  # noqa: F403
from procrastinate.former import missing_from

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
