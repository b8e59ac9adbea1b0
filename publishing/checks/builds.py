"""Two builds of one package give the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from publishing.archives import read


def complaints(first: Path, second: Path) -> list[str]:
    """Return in what two builds of an archive differ: nothing if they are equal byte for byte."""
    if first.read_bytes() == second.read_bytes():
        return []
    found = list(_differences(first, second)) or ["order, times or rights of its files"]
    return [f"{first.name}: two builds differ in {each}" for each in found]


def _differences(first: Path, second: Path) -> Iterator[str]:
    one, other = read(first).files, read(second).files
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            yield name
