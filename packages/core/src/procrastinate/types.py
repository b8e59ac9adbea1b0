"""The types that releases up to 3.x had here, for annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from procrastinate.former import missing_from

JSONValue: TypeAlias = Any
JSONDict: TypeAlias = dict[str, Any]
TimeDeltaParams: TypeAlias = Mapping[str, Any]

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
