"""The schema manager, where releases up to 3.x had it; now it is `App.schema_manager`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.app.schema_manager import SchemaManager as SchemaManager
from procrastinate.former import missing_from

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
