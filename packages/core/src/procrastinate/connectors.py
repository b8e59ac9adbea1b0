"""Finding connectors: the entry points of the group ``procrastinate.connectors``.

An entry point's name is the connector's name (``psycopg2``), its object the class
(``procrastinate_psycopg2:Psycopg2Connector``). Nothing is imported before it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from procrastinate import errors
from procrastinate.connector import CONTRACT_VERSION, AsyncConnector, Connector

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "procrastinate.connectors"

#: The connectors that this project publishes: name, class and package to install.
PUBLISHED = {
    "aiopg": ("AiopgConnector", "procrastinate-aiopg"),
    "psycopg": ("PsycopgConnector", "procrastinate-psycopg"),
    "psycopg_sync": ("SyncPsycopgConnector", "procrastinate-psycopg"),
    "asyncpg": ("AsyncpgConnector", "procrastinate-asyncpg"),
    "django": ("DjangoConnector", "procrastinate-django"),
    "psycopg2": ("Psycopg2Connector", "procrastinate-psycopg2"),
    "sqlalchemy": ("SQLAlchemyConnector", "procrastinate-sqlalchemy"),
    "sqlalchemy_async": ("SQLAlchemyAsyncConnector", "procrastinate-sqlalchemy-async"),
    "sqlalchemy_psycopg2": ("SQLAlchemyPsycopg2Connector", "procrastinate-sqlalchemy"),
}

#: Those of them that are asynchronous.
PUBLISHED_ASYNC = frozenset({"aiopg", "asyncpg", "psycopg", "sqlalchemy_async"})
#: The class that has no database to connect to.
_IN_MEMORY = "InMemoryConnector"
#: Classes that no URL of PostgreSQL's leads to: Django's settings say where that one's database is.
_WITHOUT_URLS = (_IN_MEMORY, "DjangoConnector")
#: Schemes that name PostgreSQL and no connector.
_ANY = ("postgresql", "postgres")

_NAME = type.__dict__["__name__"].__get__  # whatever a metaclass says
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]*)://")


def available() -> dict[str, str]:
    """Return the installed connectors: ``{name: where it comes from}``. Imports none of them."""
    return {
        name: " and ".join(sorted(map(_origin, found))) for name, found in sorted(_found().items())
    }


def get(name: str) -> type[Connector]:
    """Return a connector class by its name, importing only its own package.

    Raises `ConnectorNotInstalled`, `ConnectorBroken`, `ConnectorConflict` or
    `ConnectorVersionMismatch`.
    """
    found = _found().get(name, [])
    if not found:
        raise errors.ConnectorImportError(_not_installed(name))
    entry_point = only_one(found, "connector")
    return _checked(entry_point, load(entry_point, "connector"))


def by_class_name(class_name: str) -> type[Connector] | None:
    """Return the installed connector whose class has this name, or None if there is none.

    Raises `ConnectorNotInstalled` for one that this project publishes.
    """
    for name, found in _found().items():
        if any(each.attr == class_name for each in found):
            return get(name)
    for name, (published, _) in PUBLISHED.items():
        if published == class_name:
            raise errors.ConnectorImportError(_not_installed(name))
    return None


def resolve(connector: Connector | str) -> Connector:
    """Return a connector given as such, by name (``"psycopg2"``), or by URL (``"aiopg://host/db"``).

    A URL that begins with ``postgresql://`` or ``postgres://`` leaves the choice to what is
    installed: see `for_any_url`. In other URLs, ``-`` in the scheme may stand for ``_``.
    """
    if isinstance(connector, Connector):
        return connector
    if isinstance(connector, type) and issubclass(connector, Connector):
        raise errors.InvalidOption(
            f"connector must be an instance: write {connector.__name__}(...), with parentheses"
        )
    if not isinstance(connector, str):
        raise errors.InvalidOption(
            f"connector must be a connector, its name or a URL, not a {_NAME(type(connector))}"
        )
    url = _URL.match(connector)
    if url is None and ":" in connector:
        raise errors.InvalidOption(
            "connector is neither a name nor a URL like aiopg://user@host/database (it may hold a"
            " password, so it is not shown)"
        )
    if url is None:
        return get(connector).from_url(f"{connector}://")
    if url[1] in _ANY:
        return for_any_url().from_url(connector)
    return get(url[1].replace("-", "_")).from_url(connector)


def for_any_url() -> type[Connector]:
    """Return the connector for URLs that name none: the asynchronous one, else the synchronous.

    Raises `ConfigurationError` if several of that kind are installed, and `ConnectorNotInstalled`
    if there is none. Of what is published, it imports the package of the one it returns only.
    """
    installed = [name for name, found in _found().items() if found[0].attr not in _WITHOUT_URLS]
    candidates = [name for name in installed if _is_asynchronous(name)] or installed
    if not candidates:
        raise errors.ConnectorImportError(
            "no connector is installed: run `pip install 'procrastinate-psycopg[binary]'`"
        )
    if len(candidates) > 1:
        raise errors.ConfigurationError(
            "postgresql:// means none of the connectors installed here (a package may bring"
            " several, or another package): begin the URL with one of"
            f" {', '.join(map(_scheme_of, sorted(candidates)))}"
        )
    return get(candidates[0])


def _scheme_of(name: str) -> str:
    package = _distribution(_found()[name][0])[0]
    return f"{name.replace('_', '-')}:// (of {package})"


def _is_asynchronous(name: str) -> bool:
    if name in PUBLISHED:
        return name in PUBLISHED_ASYNC
    return issubclass(get(name), AsyncConnector)


def class_names() -> list[str]:
    """Return the class names of all installed connectors."""
    return sorted({each.attr for found in _found().values() for each in found})


def for_workers() -> str:
    """Name the published connectors that run workers, and how each is installed."""
    published = [PUBLISHED[name] for name in sorted(PUBLISHED_ASYNC)]
    return ", ".join(f"{name} (`pip install {package}`)" for name, package in published)


def _found() -> Mapping[str, list[metadata.EntryPoint]]:
    return entry_points(GROUP)


def entry_points(group: str) -> Mapping[str, list[metadata.EntryPoint]]:
    """All entry points of a group by name; a distribution found twice on the path counts once."""
    from importlib import metadata  # slow to import, and not needed by who imports a class

    found: dict[str, dict[tuple[str, str], metadata.EntryPoint]] = {}
    for each in metadata.entry_points(group=group):
        found.setdefault(each.name, {}).setdefault((_distribution(each)[0], each.value), each)
    return {name: list(each.values()) for name, each in found.items()}


def only_one(found: Sequence[metadata.EntryPoint], what: str) -> metadata.EntryPoint:
    """Return the entry point of a name. Raises `ConnectorConflict` if several packages claim it."""
    if len(found) > 1:
        raise errors.ConnectorConflict(
            f"two packages claim the {what} name {found[0].name!r}: uninstall one of"
            f" {' and '.join(sorted(map(_origin, found)))}"
        )
    return found[0]


def _distribution(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    dist = entry_point.dist
    return ("an unknown package", "") if dist is None else (dist.name, dist.version)


def _origin(entry_point: metadata.EntryPoint) -> str:
    name, version = _distribution(entry_point)
    return f"{name} {version} ({entry_point.value})"


def load(entry_point: metadata.EntryPoint, what: str) -> object:
    """Return the object of an entry point. Raises `ConnectorBroken`."""
    try:
        return entry_point.load()
    except errors.ProcrastinateException:
        raise
    except (Exception, SystemExit) as exc:  # anything may happen in a stranger's module
        raise errors.ConnectorBroken(
            f"{what} {entry_point.name!r} of {_origin(entry_point)} cannot be imported:"
            f" {type(exc).__name__}: {exc}"
        ) from exc


def _checked(entry_point: metadata.EntryPoint, loaded: object) -> type[Connector]:
    if not (isinstance(loaded, type) and issubclass(loaded, Connector)):
        raise errors.ConnectorBroken(
            f"connector {entry_point.name!r} of {_origin(entry_point)} is no Connector class:"
            f" {loaded!r}"
        )
    contract = getattr(loaded, "contract", None)
    if contract != CONTRACT_VERSION:
        from importlib import metadata

        older = isinstance(contract, int) and contract < CONTRACT_VERSION
        upgrade = _distribution(entry_point)[0] if older else "procrastinate"
        raise errors.ConnectorVersionMismatch(
            f"connector {entry_point.name!r} of {_origin(entry_point)} was built for version"
            f" {contract} of the connector contract, and procrastinate"
            f" {metadata.version('procrastinate')} has version {CONTRACT_VERSION}: upgrade the"
            f" package {upgrade}"
        )
    return loaded


def _not_installed(name: str) -> str:
    if name in PUBLISHED:
        return f"connector {name!r} is not installed: run `pip install {PUBLISHED[name][1]}`"
    known = ", ".join(sorted({*_found(), *PUBLISHED}))
    what_to_do = "install the package that provides it, or correct the name"
    if "+" in name:
        what_to_do = (
            "that is how SQLAlchemy writes a URL: make an engine of it, and give that to app.open()"
            " of an app with a connector over SQLAlchemy; or begin with a connector's name, as in"
            " aiopg://user@host/database"
        )
    if name in ("postgres", "postgresql"):
        what_to_do = "a connector's URL begins with its name, as in aiopg://user@host/database"
    from procrastinate.connector_tools.urls import shown_name  # not at the top: it needs urllib

    return f"there is no connector {shown_name(name)} (known: {known}): {what_to_do}"
