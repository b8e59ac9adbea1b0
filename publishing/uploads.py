"""What an index would say of the files: ``twine check``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from publishing.environments import CommandFailed, run
from publishing.report import Said

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def checked(dist: Path) -> Said:
    """Let twine check metadata and descriptions of all files; a warning is an error."""
    files = sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])
    try:
        run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)
    except CommandFailed as exc:
        return Said("twine check --strict", f"{len(files)} files.", complaints(str(exc)))
    return Said("twine check --strict", f"{len(files)} files.")


def complaints(printed: str) -> list[str]:
    """Return the lines of what twine printed that say what is wrong."""
    lines = [_COLOUR.sub("", line).strip() for line in printed.splitlines()]
    return [line for line in lines if line and not line.endswith(": PASSED")]
