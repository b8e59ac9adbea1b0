"""``procrastinate`` itself: its options and its commands."""

from __future__ import annotations

import logging
import os
from typing import Any, cast

import click

from procrastinate.cli import PROGRAM, environment, exit_codes
from procrastinate.cli.groups import Lazy, Root
from procrastinate.cli.settings import before_command, settings_of

logger = logging.getLogger("procrastinate.cli")

_EPILOG = f"""\b
The options above may also follow the command. Each option, also of a command,
can be set by the environment: PROCRASTINATE_APP, PROCRASTINATE_WORKER_QUEUES.

{exit_codes.table()}"""


def _command(name: str, help: str, **more: Any) -> Lazy:
    return Lazy(f"{__package__}.{name}", name, help, **more)


@click.group(
    cls=Root,
    lazy={
        "worker": _command("worker", "Run jobs.", default_level="info", stops_itself=True),
        "defer": _command("defer", "Defer jobs: one, or one for each line of stdin."),
        "schema": _command("schema", "Create, migrate, check or print the tables."),
        "import": Lazy(
            f"{__package__}.importing",
            "command",
            "Take over the jobs of Procrastinate 3 and older.",
        ),
        "healthchecks": _command("healthchecks", "Check the app, the connection and the schema."),
        "jobs": _command("jobs", "Show jobs, say why one waits; retry, cancel or abort them."),
        "failures": Lazy(f"{__package__}.glances", "failures", "Show what failed, in groups."),
        "queues": _command("queues", "Show the queues; pause them; or count all jobs."),
        "workers": Lazy(f"{__package__}.fleet", "workers", "Show the workers."),
        "tasks": Lazy(f"{__package__}.fleet", "tasks", "Show tasks, their jobs and workers."),
        "schedules": Lazy(f"{__package__}.fleet", "schedules", "Show the schedules."),
        "shell": _command("shell", "Cancel, abort and retry jobs: a prompt, or one command."),
        "connectors": _command("connectors", "Show which connectors are installed."),
        "completion": _command(
            "completion", "Print the script that lets a shell complete commands."
        ),
    },
    params=before_command(),
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={
        "auto_envvar_prefix": PROGRAM.upper(),
        "help_option_names": ["-h", "--help"],
    },
)
@click.version_option(
    None,
    "-V",
    "--version",
    package_name=PROGRAM,
    prog_name=PROGRAM,
    message="%(prog)s %(version)s",
    allow_from_autoenv=False,
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """A job queue that lives in your PostgreSQL database."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(exit_codes.ExitCode.USAGE)
    settings = settings_of(ctx)
    settings.configure_logging()
    if environment.CHILD not in os.environ:  # its parent has told
        unread = environment.unread(os.environ, cast(Root, ctx.command), ctx)
        for warning in (*settings.warnings, *unread):
            logger.warning("%s", warning, extra={"action": "environment"})
