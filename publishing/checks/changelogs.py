"""A package's changelog: the newest section comes first and is that of its version."""

from __future__ import annotations

import re
from collections.abc import Iterator

NOT_YET = "not yet released"
_SECTION = re.compile(r"^## (?P<version>\S+)(?: \((?P<state>[^)]*)\))?\s*$", re.MULTILINE)
_STATE = re.compile(rf"{NOT_YET}|\d{{4}}-\d{{2}}-\d{{2}}")
#: What a changelog with no section of its own for a version begins a new one with.
_EMPTY = "- Nothing yet.\n"


def complaints(name: str, version: str, text: str) -> list[str]:
    """Return what is wrong with the changelog of a package in a version."""
    found = [
        *([] if text.startswith(f"# Changelog of {name}\n") else ["has another heading"]),
        *_of_sections(version, text),
    ]
    return [f"{name}: its CHANGELOG.md {each}" for each in found]


def _of_sections(version: str, text: str) -> Iterator[str]:
    sections = list(_SECTION.finditer(text))
    if not sections:
        yield "has no section"
        return
    first = sections[0]
    if first["version"] != version:
        yield f"begins with the section of {first['version']}, not with that of {version}"
    end = sections[1].start() if len(sections) > 1 else len(text)
    entries = text[first.end() : end]
    if not re.search(r"^\s*\S", entries, re.MULTILINE) or entries.strip() == _EMPTY.strip():
        yield f"says nothing about {first['version']}"
    for each in sections:
        if not _STATE.fullmatch(each["state"] or ""):
            yield f"says neither a date (2026-01-31) nor {NOT_YET!r} of {each['version']}"
    for later in sections[1:]:
        if later["state"] == NOT_YET:
            yield f"has a later release above {later['version']}, which is {NOT_YET}"


def state_of(text: str) -> str:
    """Return what the first section says: a date, or that it is not yet released."""
    found = _SECTION.search(text)
    return (found and found["state"]) or ""


def opened(text: str, version: str) -> str:
    """Return a changelog with a new section for a version on top."""
    first = _SECTION.search(text)
    at = first.start() if first else len(text)
    return f"{text[:at]}## {version} ({NOT_YET})\n\n{_EMPTY}\n{text[at:]}"


def dated(text: str, version: str, day: str) -> str:
    """Return a changelog whose section of a version has a date. Raises `ValueError`."""
    before = f"## {version} ({NOT_YET})\n"
    if before not in text:
        raise ValueError(f"there is no section {before.strip()!r}")
    return text.replace(before, f"## {version} ({day})\n", 1)
