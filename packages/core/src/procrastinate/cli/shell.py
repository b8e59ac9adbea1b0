"""``procrastinate shell``: look after jobs, at a prompt or by one command from the arguments.

Both run the same click commands. The difference is in who opens the app: the prompt, once, or
each command for itself.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from procrastinate.cli import changes, details
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.jobs import jobs
from procrastinate.cli.options import option
from procrastinate.cli.queues import KINDS, listing, queues
from procrastinate.cli.settings import settings_of
from procrastinate.cli.shell_group import Commands, Leave
from procrastinate.cli.values import Id
from procrastinate.cli.why import why


@click.command("show")
@click.argument("ids", type=Id(), nargs=-1, required=True, metavar="ID...")
@option("--json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def show(ctx: click.Context, /, ids: tuple[int, ...], **given: Any) -> ExitCode:
    """Show everything about jobs, with their tracebacks."""
    with settings_of(ctx).open_app() as app:
        return details.show(app, ids, as_json=given["json"])


@click.command("help")
@click.argument("command", required=False)
@click.pass_context
def help_(ctx: click.Context, /, command: str | None) -> None:
    """List the commands, or explain one."""
    above = ctx.parent
    assert above is not None
    assert isinstance(above.command, Commands)
    if command is None:
        formatter = above.make_formatter()
        above.command.format_commands(above, formatter)
        click.echo(formatter.getvalue(), nl=False)
        return
    name, found, _ = above.command.resolve_command(above, [command])
    assert found is not None
    with click.Context(found, info_name=name, parent=above) as about:
        click.echo(found.get_help(about))


@click.command("exit")
def exit_() -> None:
    """Leave the shell; so does Ctrl-D."""
    raise Leave(ExitCode.OK)


@click.group(
    "shell",
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # the prompt has no root to ask
)
@click.pass_context
def shell(ctx: click.Context) -> int | None:
    """Look after jobs: at a prompt, or by one command.

    Without a command, a terminal gets a prompt with history and completion. Commands that come
    from a pipe or a file are run line by line, up to the first that fails; its exit code is the
    shell's.

    \b
      procrastinate shell
      procrastinate shell cancel 12 13
      procrastinate shell retry --error ConnectionError --since 14:00
    """
    if ctx.invoked_subcommand is not None:
        return None
    from procrastinate.cli.prompt import Prompt

    settings = settings_of(ctx)
    with settings.open_app() as app:
        settings.opened = app
        prompt = Prompt(shell, settings)
        return prompt.talk() if sys.stdin.isatty() else prompt.run_script(sys.stdin)


shell.add_command(jobs, "list_jobs")
for _kind in KINDS:
    shell.add_command(listing(_kind))
for _command in (show, why, changes.cancel, changes.abort, changes.retry, help_, exit_):
    shell.add_command(_command)
shell.also |= {"jobs": jobs, "queues": queues, "quit": exit_}
