"""``manage.py procrastinate worker|jobs|...``: the command line, on the project's app."""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from procrastinate.cli import prepare_stdout
from procrastinate.cli.root import root
from procrastinate.cli.settings import Settings

APP = "procrastinate_django.worker_app.app"
#: Options of all management commands that have a value, and are obeyed before this is called.
_OF_DJANGO = ("--settings", "--pythonpath")


class Command(BaseCommand):
    """Takes the command line as it is, so that its options and its help are procrastinate's."""

    help = "Runs a worker, shows and steers jobs: see `manage.py procrastinate --help`."
    requires_system_checks: Sequence[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Run ``manage.py procrastinate ...`` and exit."""
        prepare_stdout()
        self._prepare_children(argv[0])
        _run(without_djangos(argv[2:]), " ".join([Path(argv[0]).name, argv[1]]))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run ``call_command("procrastinate", "jobs", "--json")``. Raises `CommandError`."""
        try:
            _run([*args, *options["arguments"]], "procrastinate")
        except SystemExit as exc:
            if exc.code:
                raise CommandError(
                    f"procrastinate ended with the exit code {exc.code}",
                    returncode=int(exc.code),
                ) from exc

    def _prepare_children(self, program: str) -> None:
        """Let the processes of ``--processes`` and ``--reload`` find the project, too."""
        folders = [os.path.dirname(os.path.abspath(program)), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(each for each in folders if each)
        os.environ.setdefault("PROCRASTINATE_APP", APP)


def _run(arguments: list[str], name: str) -> None:
    root.main(args=arguments, prog_name=name, obj=Settings(app=APP))
    sys.exit(0)


def without_djangos(arguments: list[str]) -> list[str]:
    """Return the arguments without the options that Django has obeyed already."""
    kept: list[str] = []
    rest = iter(arguments)
    for each in rest:
        if each in _OF_DJANGO:
            next(rest, None)
        elif not each.startswith(tuple(f"{name}=" for name in _OF_DJANGO)):
            kept.append(each)
    return kept
