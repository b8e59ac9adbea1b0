"""Exports of a package that are imported when they are first asked for.

An inner surface, for the packages of this repository. The embedded server's package has its own
copy, because its supervisor imports nothing but the standard library.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def imported(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return what a package calls ``__getattr__``.

    ``modules`` maps each export to the module of the package that has it. The package keeps what
    was imported, so each name is asked for once. Other names raise AttributeError.

    Define it under ``if not TYPE_CHECKING``: type checkers would take every name for a known one.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute
