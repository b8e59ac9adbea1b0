"""The setting ``PROCRASTINATE``: a dict, checked by name and kind before anything uses it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections

from procrastinate.app.working import checked_periodic_defaults, checked_worker_defaults
from procrastinate.errors import InvalidOption
from procrastinate.model.text import redacting
from procrastinate.model.text.redacting import Redact
from procrastinate.storage.statements import quoted

logger = logging.getLogger(__name__)

SETTING = "PROCRASTINATE"


@dataclass(frozen=True, slots=True)
class Conf:
    """What the project says of its queue."""

    #: The PostgreSQL schema of the tables; None: the first one on the search_path.
    schema: str | None = None
    #: The alias, in ``DATABASES``, of the database that holds the jobs.
    database: str = DEFAULT_DB_ALIAS
    #: The dotted path of the project's own App; None: one is made.
    app: str | None = None
    #: The name of the modules to import from each installed app; None: none.
    autodiscover: str | None = "tasks"
    #: More modules that define tasks.
    import_paths: tuple[str, ...] = ()
    worker_defaults: Mapping[str, Any] = field(default_factory=dict)
    periodic_defaults: Mapping[str, Any] = field(default_factory=dict)
    #: Observers, or names of installed ones.
    observers: tuple[Any, ...] = ()
    #: More words of names whose values the admin and the dashboard hide, or a function.
    redact: Redact | None = None


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "SCHEMA": ((str, type(None)), "a str or None"),
    "DATABASE": ((str,), "a str, an alias of DATABASES"),
    "APP": ((str, type(None)), 'a dotted path such as "project.queue.app", or None'),
    "AUTODISCOVER": ((str, bool, type(None)), 'the name of modules, such as "tasks", or False'),
    "IMPORT_PATHS": ((list, tuple), "a list of dotted paths"),
    "WORKER_DEFAULTS": ((dict,), "a dict of options for workers"),
    "PERIODIC_DEFAULTS": ((dict,), "a dict"),
    "OBSERVERS": ((list, tuple), "a list of observers"),
    "REDACT": (
        (list, tuple, Callable, type(None)),  # type: ignore[dict-item]
        "a list of words, or a function of a task's name and arguments",
    ),
}


def _checked_schema(name: str | None) -> None:
    if name is not None:
        quoted(name)


def _checked_modules(name: Any) -> None:
    if isinstance(name, str) and not all(map(str.isidentifier, name.split("."))):
        raise InvalidOption(f"{name!r} is no name of modules")


#: What says more of a value than its kind: of each option that has such a check, where it is used.
_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "SCHEMA": _checked_schema,
    "AUTODISCOVER": _checked_modules,
    "WORKER_DEFAULTS": checked_worker_defaults,
    "PERIODIC_DEFAULTS": checked_periodic_defaults,
    "REDACT": redacting.Redaction,
}


class Redaction(redacting.Redaction):
    """Hides secrets, and logs why nothing of a job is shown."""

    def failed(self, task_name: str, exc: Exception) -> None:
        logger.error(
            "PROCRASTINATE['REDACT'] failed for a job of %s, of which nothing is shown",
            task_name,
            exc_info=exc,
        )


def problems() -> list[str]:
    """Return what is wrong with the setting, a sentence each: empty if nothing is."""
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        return [f"{SETTING} must be a dict, not {type(given).__name__}"]
    found = [
        f"{SETTING} has no option {name!r}: it takes {', '.join(_KINDS)}"
        for name in given
        if name not in _KINDS
    ]
    for name, value in given.items():
        found += _problems_of(name, value)
    database = given.get("DATABASE", DEFAULT_DB_ALIAS)
    if isinstance(database, str) and database not in connections.settings:
        found.append(f"{SETTING}['DATABASE'] is {database!r}, which is not in DATABASES")
    return found


def _problems_of(name: str, value: Any) -> list[str]:
    kinds, words = _KINDS.get(name, ((object,), ""))
    if not isinstance(value, kinds):
        return [f"{SETTING}[{name!r}] must be {words}, not {type(value).__name__}"]
    try:
        if name in _CHECKS:
            _CHECKS[name](value)
    except InvalidOption as exc:
        return [f"{SETTING}[{name!r}]: {exc}"]
    return []


def read_conf() -> Conf:
    """Return the setting as it is now. Raises ``ImproperlyConfigured``."""
    found = problems()
    if found:
        raise ImproperlyConfigured("; ".join(found))
    given = {name.lower(): value for name, value in getattr(settings, SETTING, {}).items()}
    modules = given.get("autodiscover", "tasks")
    given["autodiscover"] = {True: "tasks", False: None}.get(modules, modules)
    for name in ("import_paths", "observers"):
        given[name] = tuple(given.get(name, ()))
    return Conf(**given)
