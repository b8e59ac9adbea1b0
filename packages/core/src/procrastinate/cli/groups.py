"""The group of commands: each is imported when it is called, so that the program starts at once."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from procrastinate.cli import environment, failures, packages
from procrastinate.cli.settings import Settings, after_command, settings_of
from procrastinate_entry.stopping import STOP


class Lazy(NamedTuple):
    """A command that is not imported yet: where it is, and its line in the list of commands.

    One that ``stops_itself`` is asked by SIGINT and SIGTERM, and they do not end it.
    """

    module: str
    attribute: str
    help: str
    default_level: str = "warning"
    stops_itself: bool = False


#: How a command behaves that comes from a package.
OF_A_PACKAGE = Lazy("", "", "")


class Root(click.Group):
    """``procrastinate``: lazy commands, one-line errors, and `sys.argv` as applications want it."""

    def __init__(self, *args: Any, lazy: dict[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *self._of_packages()]

    def _of_packages(self) -> list[str]:
        """Return the names of installed packages' commands, which cannot take a name of ours."""
        return [name for name in packages.names() if name not in self._lazy]

    def is_own(self, name: str) -> bool:
        """Whether it is a command of this package, and not of another one."""
        return name in self._lazy

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            command = self._imported(cmd_name)
            if command is None:
                return None
            self.add_command(completed(command), cmd_name)
        return self.commands[cmd_name]

    def _imported(self, name: str) -> click.Command | None:
        if name not in self._lazy:
            return packages.get(name)
        lazy = self._lazy[name]
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self._lazy.items()])
        if added := self._of_packages():
            with formatter.section("Commands of installed packages"):
                formatter.write_dl([(name, packages.help_of(name)) for name in added])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands, importing none, and the program's options."""
        names = {name: lazy.help for name, lazy in self._lazy.items()}
        names |= dict.fromkeys(self._of_packages(), "")
        found = [
            CompletionItem(name, help=help or None)
            for name, help in names.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        settings = settings_of(ctx)
        if name is not None:
            lazy = self._lazy.get(name, OF_A_PACKAGE)
            settings.default_level = lazy.default_level
            if not lazy.stops_itself:
                STOP.release()
        if settings.shows_argv:
            _put_command_first(settings.args, args)
        return name, command, rest

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and exit; see `click.Command.main`."""
        settings = kwargs["obj"] = kwargs.get("obj") or Settings()
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as exc:
            code = failures.report(exc, verbose=settings.verbose > 0)
        sys.exit(int(code or 0))

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        settings = extra["obj"]
        settings.args = list(args)
        settings.warnings += environment.bring_up_to_date(os.environ)
        return super().make_context(info_name, args, *more, **extra)


def _put_command_first(given: list[str], from_command_on: list[str]) -> None:
    """Let applications see ``["procrastinate", "worker", ...]`` also for ``-a app worker ...``.

    Options of the program are accepted after the command too, so this is the same command line,
    and one that looks at ``sys.argv[1]`` need not know which options have values.
    """
    options = given[: len(given) - len(from_command_on)]
    sys.argv[1:] = [*from_command_on[:1], *options, *from_command_on[1:]]


def completed(command: click.Command) -> click.Command:
    """Return a command with what they all have: the program's options, variables in the help."""
    for option in command.params:
        if isinstance(option, click.Option) and option.allow_from_autoenv:
            option.show_envvar = True
    taken = {name for option in command.params for name in option.opts}
    command = copy.copy(command)
    command.params = [
        *command.params,
        *(each for each in after_command() if not taken.intersection(each.opts)),
    ]
    return command
