"""Runs all tests of other versions, and writes the page."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import click

from publishing.compatibility import cores, drivers, page
from publishing.compatibility.suites import SUITES, pythons
from publishing.environments import is_found
from publishing.packages import named, packages
from publishing.releasing import DAY
from publishing.report import Said


def run(dist: Path, folder: Path, *, write: bool, only: Collection[str]) -> Said:
    """Test packages with other versions of what they ask for, and of core.

    ``only`` names packages, whose other versions of core are then left out.
    """
    missing = [each for each in pythons() if not is_found(each)]
    if missing:
        done = f"Not tested: Python {', '.join(missing)} was not found."
        return Said("compatibility", done, was_done=False)
    tried = []
    for suite in (each for each in SUITES if not only or each.package in only):
        for each in drivers.tried(suite, named(suite.package), dist, folder / "drivers"):
            click.echo(f"  {each.package}, {each.versions}, Python {each.python}: {each.outcome}")
            tried.append(each)
    met = []
    for one in cores.met(dist, folder / "cores") if not only else ():
        click.echo(f"  {one.package}, {one.core.title}: {one.said}")
        met.append(one)
    if write:
        text = page.generated(f"{datetime.now(UTC):{DAY}}", tried, met, packages())
        page.PAGE.write_text(page.replaced(page.PAGE.read_text("utf-8"), text), "utf-8")
    complaints = [
        *(
            f"{each.package} with {each.versions}, Python {each.python}: {each.outcome}"
            for each in tried
            if not each.outcome.is_well
        ),
        *(f"{one.package} with {one.core.title}: {one.said}" for one in met if not one.is_well),
    ]
    done = f"{len(tried)} times with other versions, {len(met)} times with other cores."
    return Said("compatibility", done, complaints)
