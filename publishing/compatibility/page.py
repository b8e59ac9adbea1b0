"""The page docs/reference/compatibility.md: what stands between its markers is written by a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from packaging.requirements import Requirement

from publishing.compatibility.cores import Met
from publishing.compatibility.drivers import Tried, asked
from publishing.packages import ROOT, Package

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
MARKERS = ("<!-- tables: begin -->", "<!-- tables: end -->")
#: A row of the first table, whose second column has requirements.
_ROW = re.compile(r"^\| `(?P<package>[^`]+)` \| (?P<asks>`[^|]*) \|", re.MULTILINE)


def shown(requirement: Requirement) -> str:
    """Return a requirement with its lowest version first: ``sqlalchemy>=2.0,<3``."""
    limits = sorted(map(str, requirement.specifier), key=lambda each: not each.startswith(">"))
    return f"{requirement.name}{','.join(limits)}"


def asks(package: Package, found: Collection[Package]) -> str:
    """Return what stands in the column of what a package asks for."""
    names = dict.fromkeys(f"`{shown(each)}`" for each in asked(package, found))
    return ", ".join(names)


def driver_table(tried: Sequence[Tried], found: Collection[Package]) -> str:
    """Return the table of the oldest and the newest versions."""
    lines = ["| | asks for | oldest | between | newest |", "|---|---|---|---|---|"]
    for package in found:
        cells = {
            kind: "; ".join(
                f"{each.versions}, Python {each.python}: {each.outcome}"
                for each in tried
                if (each.package, each.kind) == (package.name, kind)
            )
            for kind in ("oldest", "between", "newest")
        }
        lines.append(
            f"| `{package.name}` | {asks(package, found)} | {' | '.join(cells.values())} |"
        )
    return "\n".join(lines)


def core_table(met: Sequence[Met]) -> str:
    """Return the table of the other versions of core."""
    cores = list(dict.fromkeys(each.core for each in met))
    lines = [f"| | {' | '.join(each.title for each in cores)} |", "|---" * (len(cores) + 1) + "|"]
    for package in dict.fromkeys(each.package for each in met):
        said = {each.core: each.said for each in met if each.package == package}
        lines.append(f"| `{package}` | {' | '.join(said.get(core, '') for core in cores)} |")
    return "\n".join(lines)


def generated(
    day: str, tried: Sequence[Tried], met: Sequence[Met], found: Collection[Package]
) -> str:
    """Return what stands between the markers."""
    return "\n\n".join(
        [
            f"The run of {day} (UTC).",
            "## What packages stand on",
            driver_table(tried, found),
            "## Other versions of core",
            core_table(met),
        ]
    )


def replaced(page: str, text: str) -> str:
    """Return the page with another text between its markers."""
    before, _, rest = page.partition(MARKERS[0])
    after = rest.partition(MARKERS[1])[2]
    return f"{before}{MARKERS[0]}\n\n{text}\n\n{MARKERS[1]}{after}"


def asks_on(page: str) -> dict[str, str]:
    """Return what the page says that each package asks for."""
    return {row["package"]: row["asks"] for row in _ROW.finditer(page)}
