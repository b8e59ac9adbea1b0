"""The demo told in this process, its workers in processes of their own."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from procrastinate.demo import story


@dataclass(frozen=True)
class Told:
    """What the demo printed, and whether all was well."""

    good: bool
    text: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for files."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def tell(procrastinate_dsn: str, folder: Path) -> Callable[..., Told]:
    """Run the demo on the files of `folder`, in the test's own database."""

    def tell(**options: Any) -> Told:
        console = Console(file=io.StringIO(), width=200, highlight=False)
        chosen = story.Options(folder=os.fsencode(folder), dsn=procrastinate_dsn, **options)
        good = story.tell(chosen, console)
        assert isinstance(console.file, io.StringIO)
        return Told(good, console.file.getvalue())

    return tell
