"""Each package with other versions of core, made of the same sources.

Only one release of this design exists, so the others are built: a later one of the same connector
contract, one of another contract, and the next major version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from publishing.archives import wheel_of
from publishing.building import build, copied
from publishing.compatibility.drivers import install_all
from publishing.compatibility.running import tests
from publishing.compatibility.suites import SUITES, Suite
from publishing.environments import CommandFailed, Environment
from publishing.packages import Package, named, packages, with_version

_CONTRACT = re.compile(r"^CONTRACT_VERSION = (\d+)$", re.MULTILINE)
#: Prints what core says of each connector: a version mismatch, or that it is welcome.
_ASK_CONNECTORS = """
import importlib.metadata, json
from procrastinate import connectors, errors

said = {}
for point in importlib.metadata.entry_points(group="procrastinate.connectors"):
    if point.dist.name == "procrastinate":
        continue
    try:
        connectors.get(point.name)
        said.setdefault(point.dist.name, "welcome")
    except errors.ConnectorVersionMismatch as error:
        said.setdefault(point.dist.name, str(error))
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Core:
    """A version of core that is made for the test."""

    version: str
    contract: int

    @property
    def title(self) -> str:
        return f"core {self.version}, contract {self.contract}"


@dataclass(frozen=True)
class Met:
    """What became of a package with a version of core."""

    package: str
    core: Core
    said: str
    is_well: bool


def contract_in(text: str) -> int:
    """Return the contract version that core's module of it names."""
    found = _CONTRACT.search(text)
    if found is None:
        raise ValueError("there is no line CONTRACT_VERSION = ...")
    return int(found[1])


def with_contract(text: str, contract: int) -> str:
    """Return the text of that module with another contract version."""
    return _CONTRACT.sub(f"CONTRACT_VERSION = {contract}", text)


def later(version: str, contract: int) -> tuple[Core, Core, Core]:
    """Return the next minor version, the same with another contract, and the next major version."""
    now = Version(version)
    minor = f"{now.major}.{now.minor + 1}.0"
    return (
        Core(minor, contract),
        Core(minor, contract + 1),
        Core(f"{now.major + 1}.0.0", contract),
    )


def made(core: Core, folder: Path) -> Path:
    """Build a core in a folder. Returns its wheel."""
    package = named("procrastinate")
    sources = copied(package, folder)
    described = sources / "pyproject.toml"
    described.write_text(with_version(described.read_text("utf-8"), core.version), "utf-8")
    connector = sources / "src" / "procrastinate" / "connector.py"
    connector.write_text(with_contract(connector.read_text("utf-8"), core.contract), "utf-8")
    build(sources, folder / "dist", "--wheel")
    return wheel_of(package, folder / "dist")


def met(dist: Path, folder: Path) -> Iterator[Met]:
    """Try all packages with all other versions of core."""
    core = named("procrastinate")
    module = core.path / "src" / "procrastinate" / "connector.py"
    same, other_contract, major = later(core.version, contract_in(module.read_text("utf-8")))
    yield from _working(same, dist, folder / "minor")
    yield from _refused(other_contract, dist, folder / "contract")
    yield from _left_out(major, dist, folder / "major")


def _with(core: Core, dist: Path, folder: Path) -> Environment:
    environment = Environment(folder / "environment")
    install_all(environment, dist)
    environment.replace(made(core, folder))
    return environment


def _others() -> list[Package]:
    return [each for each in packages() if each.name != "procrastinate"]


def _working(core: Core, dist: Path, folder: Path) -> Iterator[Met]:
    environment = _with(core, dist, folder)
    environment.check()
    for suite in _suites():
        outcome = tests(environment, smoke_of(suite))
        yield Met(suite.package, core, f"works: {outcome}", outcome.is_well)


def _suites() -> list[Suite]:
    return [each for each in SUITES if each.package != "procrastinate"]


def smoke_of(suite: Suite) -> tuple[str, ...]:
    """Return the arguments of pytest for a suite's tests with another core."""
    if suite.smoke and suite.smoke[0].startswith("-"):
        return (*suite.tests, *suite.smoke)
    return suite.smoke or suite.tests


def _refused(core: Core, dist: Path, folder: Path) -> Iterator[Met]:
    said = json.loads(_with(core, dist, folder).says(_ASK_CONNECTORS))
    for package in _others():
        yield judged(package, core, said.get(package.name))


def judged(package: Package, core: Core, said: str | None) -> Met:
    """Return whether a core of another contract refuses a connector and names both versions."""
    if said is None:
        return Met(package.name, core, "has no connector", True)
    names_both = (
        f"version {core.contract - 1} " in said
        and f"version {core.contract}:" in said
        and f"{package.name} {package.version} " in said
        and f"procrastinate {core.version} " in said
    )
    return Met(
        package.name, core, "refused, both versions named" if names_both else said, names_both
    )


def _left_out(core: Core, dist: Path, folder: Path) -> Iterator[Met]:
    wheel = made(core, folder)
    environment = Environment(folder / "environment")
    for package in _others():
        is_let_in = _installs(environment, [wheel_of(package, dist), wheel])
        yield Met(package.name, core, "installed" if is_let_in else "not installed", not is_let_in)


def _installs(environment: Environment, wheels: Collection[Path]) -> bool:
    try:
        environment.install([*wheels], dry_run=True)
    except CommandFailed as exc:
        if "unsatisfiable" not in str(exc):
            raise
        return False
    return True
