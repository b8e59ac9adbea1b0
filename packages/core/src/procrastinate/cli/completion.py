"""``procrastinate completion``: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from procrastinate.cli import PROGRAM

SHELLS = ("bash", "zsh", "fish")
VARIABLE = f"_{PROGRAM.upper()}_COMPLETE"  # that click looks at


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and names.

    \b
    In ~/.bashrc:                    eval "$(procrastinate completion bash)"
    In ~/.zshrc, after compinit:     eval "$(procrastinate completion zsh)"
    In ~/.config/fish/config.fish:   procrastinate completion fish | source

    Names of tasks and queues are completed where the app is known, by PROCRASTINATE_APP or by
    --app before the command; it is imported for that.
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, PROGRAM, VARIABLE).source(), nl=False)
