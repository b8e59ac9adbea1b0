"""Known vulnerabilities of what packages bring along: pip-audit.

Where a database of advisories cannot be reached, pip-audit fails, or it says of each distribution
that it was skipped and ends well. Neither is an audit (rule 3).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publishing.packages import ROOT
from publishing.report import Said

#: pip-audit's names of the databases, which are asked in this order.
DATABASES = ("pypi", "osv")
MAY_TAKE = 300.0  # seconds


def audited(versions: Mapping[str, str], folder: Path) -> Said:
    """Ask a database about distributions: the next one if one did not answer about all."""
    listed = folder / "audited.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
    said = Said("audit", "", was_done=False)
    for database in DATABASES:
        said = judged(_asked(database, listed), [*versions])
        if said.was_done:
            break
    return said


def _asked(database: str, listed: Path) -> str:
    """Return what pip-audit prints as JSON; nothing if it failed."""
    options = ("--format", "json", "--progress-spinner", "off", "--vulnerability-service", database)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", *options),
            *("--no-deps", "--disable-pip", "--requirement", str(listed)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAY_TAKE,
        check=False,
    )
    return done.stdout


def judged(printed: str, names: list[str]) -> Said:
    """Return what pip-audit found, from what it printed about distributions with these names."""
    try:
        found: list[dict[str, Any]] = json.loads(printed)["dependencies"]
    except (ValueError, KeyError, TypeError):
        found = []
    answered = {each["name"] for each in found if "vulns" in each}
    complaints = tuple(
        f"{each['name']} {each['version']} has {vulnerability['id']}, mended in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for each in found
        for vulnerability in each.get("vulns", [])
    )
    missing = sorted({*names} - answered)
    if not answered:
        return Said("audit", "Not audited: no advisory database was reached.", was_done=False)
    if missing:
        done = f"{len(answered)} of {len(names)} distributions. Not audited: {', '.join(missing)}."
        return Said("audit", done, complaints, was_done=False)
    return Said("audit", f"{len(answered)} distributions.", complaints)
