"""``python -m publishing``, which is what ``nox -s publish`` runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from publishing import advisories, boms, building, described, releasing, trees, uploads
from publishing.compatibility import tables
from publishing.environments import CommandFailed
from publishing.packages import ROOT, Package, named
from publishing.report import Said, succeeded, summary

DIST = ROOT / "dist"


def _named(name: str) -> Package:
    try:
        return named(name)
    except LookupError as exc:
        raise click.ClickException(str(exc)) from exc


@click.group()
def main() -> None:
    """Check what is published, and make the edits of a release. Nothing is uploaded."""


@main.command()
@click.option("--write", is_flag=True, help="Write the tables of docs/reference/compatibility.md.")
@click.option("--without-tests", is_flag=True, help="Leave out the tests of other versions.")
@click.option("--only", multiple=True, help="Test other versions of these packages only.")
def check(write: bool, without_tests: bool, only: tuple[str, ...]) -> None:
    """Check everything about the files in dist/."""
    if write and (only or without_tests):
        raise click.UsageError("--write needs the tests of all packages")
    for name in only:
        _named(name)
    with tempfile.TemporaryDirectory(prefix="publishing-") as folder:
        Path(folder).chmod(0o755)  # root's test server runs as another user, who must read it
        said = []
        for each in _steps(Path(folder), write, without_tests, only):
            click.echo(summary([each]))
            said.append(each)
    click.echo(f"\nAll together:\n{_in_short(said)}")
    sys.exit(0 if succeeded(said) else 1)


def _steps(folder: Path, write: bool, without_tests: bool, only: tuple[str, ...]) -> Iterator[Said]:
    yield described.described(DIST)
    yield uploads.checked(DIST)
    yield building.built_twice(DIST, folder / "again")
    grown = trees.grown(DIST, folder / "trees")
    yield trees.licensed(grown)
    yield boms.written(grown, DIST / "sbom")
    yield advisories.audited(trees.third_parties(grown), folder)
    if without_tests:
        yield Said("compatibility", "Not tested: left out.", was_done=False)
    else:
        yield tables.run(DIST, folder / "compatibility", write=write, only=only)


def _in_short(said: list[Said]) -> str:
    return "\n".join(
        f"  {each.step}: {each.outcome}. {each.done.splitlines()[0].rstrip(':')}" for each in said
    )


@main.command()
@click.argument("package")
@click.argument("version")
def bump(package: str, version: str) -> None:
    """Give PACKAGE a later VERSION, and its changelog a section for it."""
    try:
        releasing.bump(_named(package), version)
    except releasing.NoRelease as exc:
        raise click.ClickException(str(exc)) from exc


@main.command()
@click.argument("package")
@click.argument("day", default=f"{datetime.now(UTC):{releasing.DAY}}", metavar="[YYYY-MM-DD]")
def date(package: str, day: str) -> None:
    """Date the changelog of PACKAGE: today (UTC), unless a day is named."""
    try:
        releasing.date(_named(package), day)
    except releasing.NoRelease as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    try:
        main(prog_name="python -m publishing")
    except (CommandFailed, LookupError) as exc:
        click.echo(f"publishing: {exc}", err=True)
        sys.exit(1)
