"""What comes with each package: its wheel with all extras, installed into an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publishing.archives import wheel_of
from publishing.checks import licences
from publishing.environments import Environment
from publishing.packages import Package, needed_by, packages
from publishing.report import Said


@dataclass(frozen=True)
class Tree:
    """A package, the environment that it is installed in, and what else is there."""

    package: Package
    environment: Environment
    brought: tuple[licences.Licensed, ...]


def grown(dist: Path, folder: Path) -> list[Tree]:
    """Install each package into an environment of its own."""
    return [_grown(package, dist, folder / package.name) for package in packages()]


def _grown(package: Package, dist: Path, folder: Path) -> Tree:
    environment = Environment(folder)
    extras = f"[{','.join(package.extras)}]" if package.extras else ""
    ours = needed_by(package, packages())
    wheel = f"{package.name}{extras} @ {wheel_of(package, dist).as_uri()}"
    environment.install([wheel, *(wheel_of(each, dist) for each in ours)])
    environment.forget_paths()
    found = map(licences.licensed, environment.distributions())
    names = {package.name, *(each.name for each in ours)}
    return Tree(package, environment, tuple(each for each in found if each.name not in names))


def third_parties(trees: list[Tree]) -> dict[str, str]:
    """Return the version of everything that is not of this repository, by its name."""
    return {each.name: each.version for tree in trees for each in tree.brought}


def licensed(trees: list[Tree]) -> Said:
    """Check the licences of everything that packages bring along."""
    complaints = [
        complaint
        for tree in trees
        for complaint in licences.complaints(tree.package.name, tree.brought)
    ]
    by_name = {each.name: each for tree in trees for each in tree.brought}
    done = f"{len(by_name)} distributions, on this system only:\n{table(by_name)}"
    return Said("licences", done, complaints)


def table(found: Mapping[str, licences.Licensed]) -> str:
    """Return a line for each distribution, with its licence and why it is let in."""
    return "\n".join(
        f"    {name} {each.version}: {each.licence or 'not known'}{_reason(name)}"
        for name, each in sorted(found.items())
    )


def _reason(name: str) -> str:
    return f" ({licences.EXCEPTIONS[name].reason})" if name in licences.EXCEPTIONS else ""
