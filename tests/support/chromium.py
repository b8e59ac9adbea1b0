"""Where the browser is that the tests drive: Debian's Chromium, or another one that is named."""

from __future__ import annotations

import os
import shutil

NAMED_BY = "PROCRASTINATE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Return the path of the browser that the environment names, or of one that is found."""
    named = os.environ.get(NAMED_BY)
    return named or next(filter(None, map(shutil.which, NAMES)), None)
