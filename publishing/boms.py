"""A bill of materials for each package: CycloneDX, by the library of that name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from publishing.building import last_commit
from publishing.environments import run
from publishing.packages import Package
from publishing.report import Said
from publishing.trees import Tree

SCHEMA = SchemaVersion.V1_6


def written(trees: list[Tree], folder: Path) -> Said:
    """Write the bill of each package into a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    complaints: list[str] = []
    for tree in trees:
        bill = completed(_drawn(tree), tree.package)
        text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
        complaints += [f"{tree.package.name}: {each}" for each in of_bill(text, tree)]
        (folder / f"{tree.package.module}-{tree.package.version}.cdx.json").write_text(text)
    return Said("SBOM", f"{len(trees)} bills of materials in {folder}.", complaints)


def _drawn(tree: Tree) -> dict[str, Any]:
    printed = run(
        *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
        *("--mc-type", "library", "--pyproject", tree.package.path / "pyproject.toml"),
        *("--spec-version", SCHEMA.to_version(), tree.environment.python),
        SOURCE_DATE_EPOCH=last_commit(),
    )
    drawn: dict[str, Any] = json.loads(printed)
    return drawn


def completed(bill: dict[str, Any], package: Package) -> dict[str, Any]:
    """Say of the package itself what is said of all others: its version and its package URL."""
    component = bill["metadata"]["component"]
    component["version"] = package.version
    component["purl"] = f"pkg:pypi/{package.name}@{package.version}"
    return bill


def of_bill(text: str, tree: Tree) -> list[str]:
    """Return what is wrong with a bill: against its schema, or against what is installed."""
    invalid = JsonStrictValidator(SCHEMA).validate_str(text)
    if invalid:
        return [f"the bill of materials is not valid: {invalid.data}"]
    bill = json.loads(text)
    named = {each["purl"] for each in bill["components"]}
    installed = {f"pkg:pypi/{each.name}@{each.version}" for each in tree.brought}
    return [
        *(f"the bill of materials lacks {each}" for each in sorted(installed - named)),
        *(["the bill of materials names a file of this machine"] if "file:///" in text else []),
    ]
