"""Making a cluster."""

from __future__ import annotations

import shutil
import subprocess

from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.home import Home, give, last_lines
from procrastinate_embedded.request import Request

FIRST_WITH_BUILTIN_LOCALES = 17


def make_cluster(request: Request, home: Home) -> None:
    """Run initdb, unless there is a cluster; one cut short by a crash is made anew."""
    if home.data_version() is not None:
        return
    shutil.rmtree(home.unfinished_data, ignore_errors=True)
    command = [
        *(request.program("initdb"), "-D", str(home.unfinished_data)),
        *("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions"),
        *_locale_options(request.version),
        *([] if request.durable else ["--no-sync"]),
    ]
    home.unfinished_data.mkdir(mode=0o700)
    give(home.unfinished_data, request.user())
    _run_initdb(command, request)
    home.unfinished_data.rename(home.data)


def _locale_options(version: int) -> list[str]:
    if version >= FIRST_WITH_BUILTIN_LOCALES:
        return ["--locale-provider=builtin", "--locale=C.UTF-8"]
    return ["--locale=C"]


def _run_initdb(command: list[str], request: Request) -> None:
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=request.timeout,
            **request.popen_options(),
        )
    except subprocess.TimeoutExpired as exc:
        raise LaunchFailed(f"initdb did not end within {request.timeout:g} s") from exc
    except (OSError, subprocess.SubprocessError) as exc:
        raise LaunchFailed(f"cannot run {command[0]}: {exc}") from exc
    if result.returncode != 0:
        raise LaunchFailed(
            f"initdb ended with code {result.returncode} for {request.home}; its last lines:\n"
            f"{last_lines(result.stdout)}"
        )
