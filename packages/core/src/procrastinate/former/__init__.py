"""What releases up to 3.x called otherwise: such a call works here, or says what to write.

Rules

1. A name that has only moved is still found where it was: `procrastinate.exceptions` and the other
   thin modules beside this package.
2. An argument that has only another name works, with a DeprecationWarning (`arguments`).
3. A name that has no counterpart raises AttributeError (ImportError, if it was in a module) with
   what to write. The texts are in `names`, which is imported when one is asked for.
4. What asks for such a text pays for it: names that are there are found as before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

RELEASE = "Procrastinate 3"

#: Modules of rule 1. `import procrastinate` was enough for all of them.
FORMER_MODULES = (
    "aiopg_connector",
    "blueprints",
    "exceptions",
    "job_context",
    "jobs",
    "manager",
    "middleware",
    "periodic",
    "psycopg_connector",
    "retry",
    "schema",
    "sync_psycopg_connector",
    "tasks",
    "types",
    "utils",
)


class HasFormerNames:
    """A class whose attributes had other names: for one of these it says what to write."""

    __slots__ = ()

    if not TYPE_CHECKING:  # or every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            found = getattr(type(self), name, None)
            if isinstance(found, property):  # it has raised an AttributeError: let it say why
                return found.__get__(self)
            raise _missing(type(self), name, self)


class WasMapping:
    """A class whose objects were dicts: ``object["name"]`` says which attribute to read.

    Of its ``former_names`` it says what to write, as `HasFormerNames` does. Each is an attribute
    that raises: a class with ``__getattr__`` takes Python 3.11 five times as long to find any
    attribute, and a worker reads some thirty of each job.
    """

    __slots__ = ()

    def __init_subclass__(cls, *, former_names: tuple[str, ...] = (), **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in former_names:
            setattr(cls, name, _FormerName(name))

    if not TYPE_CHECKING:

        def __getitem__(self, key: Any) -> Any:
            from procrastinate.former import names

            what = type(self).__name__
            attribute = names.KEYS.get(key, key) if isinstance(key, str) else None
            if attribute is None or not hasattr(self, attribute):
                raise TypeError(f"{what!r} object is not subscriptable")
            raise TypeError(f"{what} is no dict (it was in {RELEASE}): read .{attribute}")


class _FormerName:
    """In the place of an attribute that is gone."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise _missing(owner, self._name, owner if instance is None else instance)


def _missing(kind: type, name: str, asked: object) -> AttributeError:
    message = f"{kind.__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        message += _instead(kind, name)
    return AttributeError(message, name=name, obj=asked)


def _instead(kind: type, name: str) -> str:
    from procrastinate.former import names

    for each in kind.__mro__:
        if text := names.ATTRIBUTES.get(each.__name__, {}).get(name):
            return f", which {RELEASE} had: {text}"
    return ""


def missing_from(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module that had more names."""

    def missing(name: str) -> Any:
        text = None if name.startswith("_") else instead_of(module, name)
        if text is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        # What an import makes of an AttributeError says nothing of the text.
        raise ImportError(text, name=module)

    return missing


def instead_of(module: str, name: str) -> str | None:
    """Return what to write instead of a name that a module had; None if it had no such name."""
    from procrastinate.former import names

    text = names.MODULES.get(module, {}).get(name)
    return text and f"{module}.{name}, which {RELEASE} had, is gone: {text}"


def former_attribute(name: str, *, asked_by_import: bool) -> Any:
    """Return a module that `procrastinate` had as an attribute; else say what there is instead."""
    if name in FORMER_MODULES:
        return importlib.import_module(f"procrastinate.{name}")
    text = instead_of("procrastinate", name)
    if text is not None and asked_by_import:
        raise ImportError(text, name="procrastinate")
    raise AttributeError(text or f"module 'procrastinate' has no attribute {name!r}")
