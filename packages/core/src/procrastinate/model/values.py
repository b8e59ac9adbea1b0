"""Frozen values that are changed by making others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace
else:
    T = TypeVar("T")

    def replace(value: T, /, **changes: Any) -> T:
        """Return a copy of a frozen dataclass with other values in some of its fields.

        The class must have neither slots nor ``__post_init__``, and type checkers see that the
        fields exist. `dataclasses.replace` asks for each field and calls ``__init__``, which sets
        each by a call. A claim of one job makes nine such copies, which was half of its work.
        """
        changed = object.__new__(type(value))
        changed.__dict__.update(value.__dict__, **changes)
        return changed


__all__ = ["replace"]
