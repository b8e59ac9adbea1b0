"""The shell's prompt: lines become commands, and no failure ends it but that of a script.

Rules

1. A command that fails tells so in one line, and the prompt goes on: also when the database is
   away, or when Ctrl-C interrupts it.
2. Ctrl-C at the prompt drops the line, Ctrl-D leaves.
3. A script (lines that come from no terminal) ends at the first command that fails, with its exit
   code. A line that is empty, or begins with #, does nothing.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from importlib import metadata

import click

from procrastinate.cli import PROGRAM, failures, line_editing
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.settings import Settings
from procrastinate.cli.shell_group import Commands, Leave

PROMPT = f"{PROGRAM}> "


class Prompt:
    """Runs lines as commands of the shell. The app is open meanwhile."""

    def __init__(self, commands: Commands, settings: Settings) -> None:
        self._commands = commands
        self._settings = settings

    def talk(self) -> int:
        """Read lines from the terminal until somebody leaves."""
        click.echo(
            f"{PROGRAM} {metadata.version(PROGRAM)}, {self._settings.app}."
            " `help` lists the commands, Ctrl-D leaves."
        )
        with line_editing.enabled(self._commands, self._settings):
            while True:
                try:
                    self.run(line_editing.read_line(PROMPT))
                except KeyboardInterrupt:
                    click.echo()
                except EOFError:
                    click.echo()
                    return ExitCode.OK
                except Leave:
                    return ExitCode.OK

    def run_script(self, lines: Iterable[str]) -> int:
        """Run lines up to the first that fails, and return its exit code."""
        for line in lines:
            try:
                code = self.run(line)
            except Leave:
                break
            if code != ExitCode.OK:
                return code
        return ExitCode.OK

    def run(self, line: str) -> int:
        """Run one line and return its exit code. Raises `Leave`."""
        try:
            words = shlex.split(line)
        except ValueError as exc:
            return failures.report(click.ClickException(str(exc)), verbose=False)
        if not words or words[0].startswith("#"):
            return ExitCode.OK
        try:
            return self._invoke(words)
        except Leave:
            raise
        except click.exceptions.Exit as exc:
            return exc.exit_code
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as exc:
            if isinstance(exc, KeyboardInterrupt) and sys.stderr.isatty():
                click.echo(err=True)  # the line on which the terminal shows ^C
            return failures.report(exc, verbose=self._settings.verbose > 0)

    def _invoke(self, words: list[str]) -> int:
        with self._context() as ctx:
            name, command, rest = self._commands.resolve_command(ctx, words)
            assert command is not None
            with command.make_context(name, rest, parent=ctx) as below:
                return int(command.invoke(below) or ExitCode.OK)

    def _context(self) -> click.Context:
        settings = self._commands.context_settings
        return click.Context(self._commands, info_name="", obj=self._settings, **settings)
