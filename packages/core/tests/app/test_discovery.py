"""How connectors are found: by attribute, import, name and URL; and every way to fail."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procrastinate
import procrastinate_aiopg
import procrastinate_psycopg2
import procrastinate_sqlalchemy
from procrastinate import connectors, errors
from procrastinate.connector import CONTRACT_VERSION, AsyncConnector


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package that claims a connector name, made of one module."""

    def make(package: str, *, entry_point: str, source: str, version: str = "1.0") -> None:
        module = entry_point.partition("=")[2].strip().partition(":")[0]
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[procrastinate.connectors]\n{entry_point}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield make
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


STRANGER = f"""
from procrastinate.testing import InMemoryConnector
class StrangersConnector(InMemoryConnector):
    contract = {CONTRACT_VERSION}
"""


def test_every_documented_import_path_leads_to_the_same_class() -> None:
    from procrastinate.contrib.aiopg import AiopgConnector
    from procrastinate.contrib.psycopg2 import Psycopg2Connector
    from procrastinate.contrib.sqlalchemy import SQLAlchemyConnector, SQLAlchemyPsycopg2Connector

    assert {procrastinate.AiopgConnector, AiopgConnector, connectors.get("aiopg")} == {
        procrastinate_aiopg.AiopgConnector
    }
    assert {procrastinate.Psycopg2Connector, Psycopg2Connector, connectors.get("psycopg2")} == {
        procrastinate_psycopg2.Psycopg2Connector
    }
    assert {
        procrastinate.SQLAlchemyConnector,
        SQLAlchemyConnector,
        connectors.get("sqlalchemy"),
    } == {procrastinate_sqlalchemy.SQLAlchemyConnector}
    assert {
        procrastinate.SQLAlchemyPsycopg2Connector,
        SQLAlchemyPsycopg2Connector,
        connectors.get("sqlalchemy_psycopg2"),
    } == {procrastinate_sqlalchemy.SQLAlchemyPsycopg2Connector}


def test_available_says_where_each_connector_comes_from() -> None:
    found = connectors.available()

    assert {"aiopg", "memory", "psycopg2", "sqlalchemy"} <= set(found)
    assert found["psycopg2"].startswith("procrastinate-psycopg2 4.")
    assert found["psycopg2"].endswith("(procrastinate_psycopg2:Psycopg2Connector)")


def test_importing_procrastinate_and_listing_connectors_imports_no_driver() -> None:
    script = (
        "import sys, procrastinate; procrastinate.connectors.available(); dir(procrastinate);"
        "print([m for m in ('psycopg2', 'aiopg', 'sqlalchemy', 'procrastinate_aiopg',"
        " 'procrastinate_psycopg2', 'procrastinate_sqlalchemy') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert shown.strip() == "[]"


def test_getting_one_connector_imports_only_its_own_package() -> None:
    script = (
        "import sys, procrastinate; procrastinate.connectors.get('psycopg2');"
        "print(sorted(m for m in sys.modules if m in ('psycopg2', 'aiopg', 'sqlalchemy')))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert shown.strip() == "['psycopg2']"


def test_a_strangers_connector_appears_everywhere(install: Callable[..., None]) -> None:
    install("theirs", entry_point="theirs = theirs_module:StrangersConnector", source=STRANGER)

    assert procrastinate.StrangersConnector is connectors.get("theirs")  # type: ignore[attr-defined]
    assert "StrangersConnector" in dir(procrastinate)
    app = procrastinate.App(connector="theirs")
    assert type(app.connector).__name__ == "StrangersConnector"


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())


@pytest.mark.usefixtures("nothing_installed")
def test_a_connector_that_is_not_installed_names_the_command() -> None:
    command = "pip install procrastinate-aiopg"
    with pytest.raises(errors.ConnectorNotInstalled, match=command):
        _ = procrastinate.AiopgConnector
    with pytest.raises(AttributeError, match=command):
        _ = procrastinate.AiopgConnector
    with pytest.raises(ImportError, match=command):
        from procrastinate import AiopgConnector  # noqa: F401
    with pytest.raises(errors.ConnectorNotInstalled, match=command):
        connectors.get("aiopg")
    with pytest.raises(ImportError, match=command):
        procrastinate.App(connector="aiopg://host/db")
    assert not hasattr(procrastinate, "AiopgConnector")


@pytest.mark.usefixtures("nothing_installed")
def test_the_contrib_door_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "procrastinate.contrib.aiopg", raising=False)
    with pytest.raises(ImportError, match="pip install procrastinate-aiopg"):
        import procrastinate.contrib.aiopg  # noqa: F401


def test_an_unknown_attribute_is_a_plain_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = procrastinate.nonsense  # type: ignore[attr-defined]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        errors.ConnectorNotInstalled, match=r"'postgres' .*known: aiopg, asyncpg, django, memory"
    ):
        connectors.get("postgres")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have only some of the installed connectors announced."""
    found = importlib.metadata.entry_points

    def only(*names: str) -> None:
        monkeypatch.setattr(
            importlib.metadata,
            "entry_points",
            lambda group: [each for each in found(group=group) if each.name in names],
        )

    return only


@pytest.mark.parametrize(
    "names, meant",
    [
        (["psycopg2"], "Psycopg2Connector"),
        (["psycopg2", "aiopg", "memory"], "AiopgConnector"),
        (["psycopg", "psycopg_sync", "psycopg2", "sqlalchemy"], "PsycopgConnector"),
    ],
    ids=["the_only_one", "asynchronous_before_synchronous", "whatever_else_is_synchronous"],
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_an_url_of_libpq_means_the_connector_that_is_installed(
    installed: Callable[..., None], names: list[str], meant: str, scheme: str
) -> None:
    installed(*names)
    app = procrastinate.App(connector=f"{scheme}://somebody@somehost/db")
    assert type(app.connector).__name__ == meant
    assert "host=somehost" in repr(app.connector)


@pytest.mark.parametrize(
    "names, said",
    [
        (
            ["aiopg", "psycopg", "psycopg2"],
            r"aiopg:// \(of procrastinate-aiopg\), psycopg:// \(of procrastinate-psycopg\)$",
        ),
        (
            ["psycopg2", "sqlalchemy"],
            (
                r"psycopg2:// \(of procrastinate-psycopg2\), sqlalchemy:// \(of"
                r" procrastinate-sqlalchemy\)$"
            ),
        ),
    ],
)
def test_an_url_of_libpq_that_could_mean_several_lists_them(
    installed: Callable[..., None], names: list[str], said: str
) -> None:
    installed(*names)
    with pytest.raises(errors.ConfigurationError, match=said):
        procrastinate.App(connector="postgresql://host/db")


def test_an_url_of_libpq_without_any_connector_says_what_to_install(
    installed: Callable[..., None],
) -> None:
    installed("memory")
    with pytest.raises(errors.ConnectorNotInstalled, match="pip install 'procrastinate-psycopg"):
        procrastinate.App(connector="postgresql://host/db")


def test_a_strangers_connector_is_asked_what_it_is(
    install: Callable[..., None], installed: Callable[..., None]
) -> None:
    install("theirs", entry_point="theirs = theirs_module:StrangersConnector", source=STRANGER)
    installed("theirs", "psycopg2")
    assert connectors.for_any_url() is connectors.get("theirs")


def test_published_connectors_are_as_asynchronous_as_is_said() -> None:
    found = {name for name in connectors.PUBLISHED if name in connectors.available()}
    asynchronous = {name for name in found if issubclass(connectors.get(name), AsyncConnector)}
    assert asynchronous == connectors.PUBLISHED_ASYNC & found


def test_a_broken_connector_names_its_package_and_cause(install: Callable[..., None]) -> None:
    install("brittle", entry_point="brittle = brittle_module:X", source="import no_such_driver")

    with pytest.raises(errors.ConnectorBroken, match=r"brittle 1.0 .*no_such_driver") as caught:
        connectors.get("brittle")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert isinstance(caught.value, ImportError)


def test_an_object_that_is_no_connector_is_refused(install: Callable[..., None]) -> None:
    install("odd", entry_point="odd = odd_module:X", source="X = 7")

    with pytest.raises(errors.ConnectorBroken, match=r"odd 1\.0 .* no Connector class: 7"):
        connectors.get("odd")


def test_two_packages_with_one_name_are_both_named(install: Callable[..., None]) -> None:
    install("first", entry_point="both = first_module:StrangersConnector", source=STRANGER)
    install("second", entry_point="both = second_module:StrangersConnector", source=STRANGER)

    with pytest.raises(errors.ConnectorConflict, match=r"first 1.0 .*second 1.0"):
        connectors.get("both")
    assert "first 1.0" in connectors.available()["both"]
    assert "second 1.0" in connectors.available()["both"]


@pytest.mark.parametrize(
    ("contract", "upgrade"),
    [
        (CONTRACT_VERSION - 1, "upgrade the package skewed"),
        (99, "upgrade the package procrastinate"),
    ],
)
def test_another_contract_version_is_refused_with_both_versions(
    install: Callable[..., None], contract: int, upgrade: str
) -> None:
    source = STRANGER.replace(f"contract = {CONTRACT_VERSION}", f"contract = {contract}")
    install("skewed", entry_point="skewed = skewed_module:StrangersConnector", source=source)

    with pytest.raises(errors.ConnectorVersionMismatch) as caught:
        connectors.get("skewed")
    message = str(caught.value)
    assert f"version {contract} of the connector contract" in message
    assert f"has version {CONTRACT_VERSION}" in message
    assert upgrade in message


@pytest.mark.parametrize(
    "url, class_name",
    [
        ("aiopg://somebody@somehost/db", "AiopgConnector"),
        ("aiopg", "AiopgConnector"),
        ("psycopg-sync://somebody@somehost/db", "SyncPsycopgConnector"),
        ("psycopg_sync://somebody@somehost/db", "SyncPsycopgConnector"),
        ("psycopg_sync", "SyncPsycopgConnector"),
    ],
)
def test_an_app_takes_a_name_or_a_url(url: str, class_name: str) -> None:
    assert type(procrastinate.App(connector=url).connector).__name__ == class_name


@pytest.mark.parametrize(
    "connector",
    [
        "not a url: at all",
        "psycopg2://user:secret@[broken/db",
        "psycopg2://host/db?nonsense=1",
        "psycopg2://host:port/db",
    ],
)
def test_a_malformed_url_is_refused_without_its_password(connector: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        procrastinate.App(connector=connector)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("connector", [None, 7, procrastinate_aiopg.AiopgConnector])
def test_something_else_than_a_connector_is_refused(connector: Any) -> None:
    with pytest.raises(errors.InvalidOption, match="connector must be"):
        procrastinate.App(connector=connector)
