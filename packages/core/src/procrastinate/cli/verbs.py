"""A command that shows something, and has further ones below it: ``jobs``, ``jobs why``."""

from __future__ import annotations

from typing import Any

import click

from procrastinate.cli.groups import completed


class WithVerbs(click.Command):
    """A command whose first argument may be the name of another one."""

    verbs: dict[str, click.Command]

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        verb = self.verbs.get(args[0]) if args else None
        if verb is None:
            return super().make_context(info_name, args, parent, **extra)
        # (Of a command without arguments: they would stand in the usage of the other one.)
        above = click.Context(click.Command(info_name), info_name=info_name, parent=parent)
        above.auto_envvar_prefix = None  # see the rules of `changes`
        return completed(verb).make_context(args[0], args[1:], above, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, verb.get_short_help_str()) for name, verb in self.verbs.items()]
            )
