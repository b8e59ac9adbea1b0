"""What a user asks of the supervisor, and how it runs PostgreSQL's programs for that."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from procrastinate_embedded.accounts import Account


class PopenOptions(TypedDict):
    """Some of subprocess's arguments."""

    stdin: int
    cwd: str | None
    env: dict[str, str]
    user: int | None
    group: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True)
class Request:
    """What to start; `timeout` is in seconds, for making the cluster and for the start."""

    home: str
    temporary: bool
    bin_dir: str
    version: int
    durable: bool
    settings: dict[str, str]
    timeout: float
    account: dict[str, Any] | None = field(default=None)

    def user(self) -> Account | None:
        return None if self.account is None else Account(**self.account)

    def program(self, name: str) -> str:
        return str(Path(self.bin_dir) / name)

    def popen_options(self) -> PopenOptions:
        """Arguments for subprocess: the server's user, and nothing of the caller's own."""
        user = self.user()
        return {
            "stdin": subprocess.DEVNULL,
            # Not the caller's folder, which may be closed to the server's user.
            "cwd": "/" if sys.platform != "win32" else None,
            "env": clean_environment(),
            "user": user.uid if user else None,
            "group": user.gid if user else None,
            "extra_groups": list(user.groups) if user else None,
        }


def clean_environment() -> dict[str, str]:
    """The environment without what would redirect PostgreSQL's programs, messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "LANGUAGE": "C"}
