"""What a package says of itself to an index and to installers."""

from __future__ import annotations

import email.message
from collections.abc import Collection, Iterator, Mapping

REPOSITORY = "https://github.com/procrastinate-org/procrastinate"
DOCUMENTATION = "https://procrastinate.readthedocs.io"
LICENCE = "MIT"
PYTHON = ">=3.11"
#: Classifiers that every package has.
CLASSIFIERS = frozenset(
    {
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    }
)
SUMMARY_AT_MOST = 512  # characters: indexes refuse more


def urls(folder: str) -> dict[str, str]:
    """Return the Project-URLs of the package in a folder below packages/."""
    return {
        "Homepage": REPOSITORY,
        "Documentation": DOCUMENTATION,
        "Source": f"{REPOSITORY}/tree/main/packages/{folder}",
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/packages/{folder}/CHANGELOG.md",
    }


def complaints(said: email.message.Message, name: str, version: str, folder: str) -> list[str]:
    """Return what is wrong with the metadata of a package's wheel or sdist."""
    found = [
        *_different(said, {"Name": name, "Version": version, "Requires-Python": PYTHON}),
        *_different(said, {"License-Expression": LICENCE, "License-File": "LICENSE"}),
        *_different(said, {"Description-Content-Type": "text/markdown"}),
        *_of_summary(said["Summary"] or ""),
        *_of_urls(said.get_all("Project-URL", []), urls(folder)),
        *_of_classifiers(said.get_all("Classifier", [])),
    ]
    if not said["Keywords"]:
        found.append("has no keywords")
    if not str(said.get_payload()).startswith(f"# {name}\n"):
        found.append(f"its description does not begin with the heading {name!r}")
    return [f"{name}: {each}" for each in found]


def _different(said: email.message.Message, expected: Mapping[str, str]) -> Iterator[str]:
    for field, value in expected.items():
        if said[field] != value:
            yield f"{field} is {said[field]!r}, not {value!r}"


def _of_summary(summary: str) -> Iterator[str]:
    if not 20 < len(summary) <= SUMMARY_AT_MOST:
        yield f"its summary has {len(summary)} characters, not 21 to {SUMMARY_AT_MOST}"


def _of_urls(lines: Collection[str], expected: Mapping[str, str]) -> Iterator[str]:
    found = dict(line.split(", ", 1) for line in lines)
    for label in sorted({*found, *expected}):
        if found.get(label) != expected.get(label):
            yield f"the URL {label} is {found.get(label)!r}, not {expected.get(label)!r}"


def _of_classifiers(found: Collection[str]) -> Iterator[str]:
    for missing in sorted(CLASSIFIERS - {*found}):
        yield f"the classifier {missing!r} is missing"
    for licence in (each for each in found if each.startswith("License ::")):
        yield f"the classifier {licence!r} stands beside a licence expression"
