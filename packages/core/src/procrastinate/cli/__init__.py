"""The command ``procrastinate``.

It ends with one of the exit codes of `procrastinate.cli.exit_codes.ExitCode`: 0 when all went
well, 1 for an error, 2 for a wrong command line, 3 to 5 where the schema does not fit, 6 and 7 if
a job that was waited for has not succeeded, 130 when it was interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

#: The program's name: in messages, in the names of environment variables, and in `sys.argv`.
PROGRAM = "procrastinate"


def main() -> NoReturn:
    """Run the command line and exit. Applications see ``sys.argv[0] == "procrastinate"``.

    An application may choose its connector by ``sys.argv[0:2] == ["procrastinate", "worker"]``.
    Under a console script ``sys.argv[0]`` would be the script's full path, and under ``python -m``
    that of a file, so it is set here, before anything of the user's is imported. Where options
    stand before the command, the command is moved to the front too (see `groups.Root`).
    """
    from procrastinate.cli.root import root
    from procrastinate.cli.settings import Settings

    sys.argv[:1] = [PROGRAM]
    _make_current_folder_importable()
    prepare_stdout()
    root.main(prog_name=PROGRAM, obj=Settings(shows_argv=True))
    raise AssertionError("the command line exits by itself")


def prepare_stdout() -> None:
    r"""Write each line of stdout at once, and letters that it cannot encode as ``\xfc``.

    Python buffers 8 KiB if stdout is a pipe or a file: what a task prints would appear minutes
    later, and never if the worker is killed. The commands themselves lose nothing by this, because
    they already write in whole pieces.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    sys.stdout.reconfigure(line_buffering=True)
    if sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _make_current_folder_importable() -> None:
    """Let ``--app`` find modules in the current folder, as ``python -m`` does."""
    if sys.flags.safe_path:
        return
    with suppress(OSError):  # the folder is gone
        folder = os.getcwd()
        if folder not in sys.path:
            sys.path.insert(0, folder)
