"""Finding apps and the modules of their tasks by dotted paths."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, TypeVar

from procrastinate.errors import InvalidOption, LoadFromPathError
from procrastinate.model import checks
from procrastinate.model.text.failure import headline_of
from procrastinate.model.text.printable import shown, type_of

T = TypeVar("T")


def checked_paths(import_paths: Any) -> tuple[str, ...]:
    """Return the modules that an app names. Raises `InvalidOption`."""
    paths: tuple[str, ...] = checks.guarded(_paths, "import_paths", import_paths)
    return paths


def _paths(option: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable | None):
        raise InvalidOption(f"{option} must be a list of modules, not {shown(given)}")
    paths = () if given is None else tuple(given)
    for path in paths:
        if not isinstance(path, str):
            raise InvalidOption(f"{option} must hold names of modules, not {shown(path)}")
    return paths


def app_at(path: Any, kind: type[T]) -> T:
    """Return the app at a dotted path. Raises `LoadFromPathError`."""
    if not isinstance(path, str):
        raise LoadFromPathError(f"the path of an App is a str, not {shown(path)}")
    module_name, _, attribute = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise LoadFromPathError(
            f"{shown(path)} is no dotted path to an App, such as 'package.module.app'"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise LoadFromPathError(
            f"module {module_name!r} cannot be imported: {headline_of(exc)}"
        ) from exc
    app = getattr(module, attribute, None)
    if not isinstance(app, kind):
        found = "nothing" if app is None else f"{type_of(app)} {shown(app, 80)}"
        raise LoadFromPathError(f"there is {found} at {shown(path)}, where an App should be")
    return app
