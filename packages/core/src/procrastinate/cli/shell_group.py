"""The group of the shell's commands: how a name and its arguments are understood."""

from __future__ import annotations

from typing import Any

import click

from procrastinate.cli.groups import completed


class Leave(click.exceptions.Exit):
    """The command ``exit``: all is well, and the prompt ends."""


class Commands(click.Group):
    """The commands of the shell. ``list-jobs`` and ``list_jobs`` are the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Names that are accepted, and not listed.
        self.also: dict[str, click.Command] = {}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command: with the program's options too, unless it comes from the prompt."""
        command = super().get_command(ctx, cmd_name.replace("-", "_")) or self.also.get(cmd_name)
        return completed(command) if command and ctx.parent else command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added: related ones together."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        ctx.auto_envvar_prefix = None  # see the rules of `changes`
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest if command is None else _in_todays_spelling(command, rest)


def _in_todays_spelling(command: click.Command, args: list[str]) -> list[str]:
    """Accept ``queue=mail`` for ``--queue=mail``, as earlier releases wrote it."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    valued = {name for each in options if not each.is_flag and not each.count for name in each.opts}
    return [
        _option_for(word, valued) if before not in valued else word
        for before, word in zip(["", *args], args, strict=False)
    ]


def _option_for(word: str, valued: set[str]) -> str:
    if word == "details":
        raise click.UsageError("`details` is gone: `show ID...` shows everything about jobs")
    name, equals, value = word.partition("=")
    option = f"--{name.replace('_', '-')}"
    return f"{option}={value}" if equals and option in valued else word
